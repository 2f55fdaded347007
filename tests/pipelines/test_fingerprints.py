"""Fingerprints and recipes are those of the caches that exist: a digest that changes here redoes a group everywhere.

Change an expectation only together with the `version` of its stage.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import create_model

from labelgen.samples import Camera, Distortion, Sample, Scene
from labelgen.settings import SamSettings, shaping
from labelgen.stages import STAGES
from labelgen.stages.inputs import ResolvedSettings
from pipelines.config import load_config
from pipelines.fingerprints import recipe_of, root_fingerprints, shard_fingerprints
from pipelines.resolve import open_dataset, resolve, with_modalities_of
from tests.pipelines.conftest import small_settings

RECIPES = {
    "text": "7ba4011d3fe144ee",
    "images": "2d7e73be7500f191",
    "clip": "ee766ba4947b72ec",
    "sam": "b644e33b9a7e73f2",
    "points": "bce11e9949748272",
    "pairs": "c9ea0e4b8fc62cad",
    "labels": "b01dd00edce53f82",
    "truth": "1e3f4fff1a24304d",
    "sweeps": "34aab59df7e71dc0",
    "instances": "879f727ab34a6316",
    "instance_labels": "ba35df174c7746ae",
    "time": "2f3cfdb9dfaff370",
}

FINGERPRINTS = {
    "images": "1002776e260809d5",
    "clip": "3756d31c5ad52ac0",
    "sam": "8a06e940dfd396bc",
    "points": "d4ae7dc705096537",
    "pairs": "1fd3046516f8757c",
    "labels": "5305b8cca55baa7b",
    "truth": "0c891135397a2f7e",
}


def resolve_nuscenes(made: Path, *overrides: str) -> ResolvedSettings:
    config = load_config("nuscenes", teachers="untrained", overrides=["points.visibility=none", *overrides])
    return resolve(config, open_dataset("nuscenes", made / "nuscenes"))


@pytest.fixture
def resolved(made: Path) -> ResolvedSettings:
    return resolve_nuscenes(made, *small_settings(made))


def sample(truth: bool) -> Sample:
    camera = Camera("CAM_FRONT", "a.jpg", 64, 48, np.eye(3), np.eye(4))
    return Sample("token", "scene", "a.bin", (camera,), point_truth_path="a.truth" if truth else None)


def sizes(paths: tuple[str, ...]) -> dict[str, int | None]:
    return dict.fromkeys(paths, 7)


def digests(paths: tuple[str, ...]) -> dict[str, str | None]:
    return dict.fromkeys(paths, "d1")


def test_recipes_are_those_of_existing_caches(resolved: ResolvedSettings) -> None:
    assert {name: recipe_of(name, resolved)[:16] for name in STAGES} == RECIPES
    assert {name: value[:16] for name, value in root_fingerprints(resolved).items()} == {"text": RECIPES["text"]}


def test_fingerprints_are_those_of_existing_caches(resolved: ResolvedSettings) -> None:
    found = shard_fingerprints([sample(truth=True)], sizes, digests, resolved, {})
    assert {name: value[:16] for name, value in found.items()} == FINGERPRINTS


def test_the_second_box_threshold_only_redoes_masks_that_it_shapes(made: Path) -> None:
    def recipe(*more: str) -> str:
        overrides = [*small_settings(made), "sam.box_nms_thresh=0.5", *more]
        return recipe_of("sam", resolve_nuscenes(made, *overrides))[:16]

    assert recipe() == "2d6636203570fd7d"
    assert recipe("sam.min_mask_region_area=60", "sam.box_nms_thresh=0.8") == "09c65fa7f462ef57"
    assert recipe("sam.min_mask_region_area=60") != "de05bb52927d74ec"


def test_samples_without_truth_have_no_group_of_truth(resolved: ResolvedSettings) -> None:
    assert set(FINGERPRINTS) - set(shard_fingerprints([sample(truth=False)], sizes, digests, resolved, {})) == {"truth"}


def test_an_accepted_fingerprint_replaces_that_of_its_group_and_shapes_what_follows(resolved: ResolvedSettings) -> None:
    plain = shard_fingerprints([sample(truth=True)], sizes, digests, resolved, {})
    accepted = shard_fingerprints([sample(truth=True)], sizes, digests, resolved, {"points": "sealed"})
    assert accepted["points"] == "sealed"
    assert {name for name in plain if plain[name] != accepted[name]} == {"points", "pairs", "truth", "labels"}


def test_a_setting_that_format_1_did_not_know_counts_only_if_it_is_not_at_its_default() -> None:
    newer = create_model("SamSettings", __base__=SamSettings, sharpness=(float, 1.0))
    weights = {"architecture": "vit_b", "weights": "untrained:0"}
    assert shaping(newer(**weights)) == shaping(SamSettings(**weights), without={"points_per_batch", "compile"})
    assert shaping(newer(**weights, sharpness=2.0))["sharpness"] == 2.0


def test_features_as_int8_are_other_content_only_where_features_are_stored(made: Path) -> None:
    def recipe(*overrides: str) -> str:
        return recipe_of("clip", resolve_nuscenes(made, *small_settings(made), *overrides))

    stored, int8 = "clip.store_features=true", "clip.features_dtype=int8"
    assert recipe() == recipe(int8)
    assert recipe(stored) == recipe(stored, "clip.features_dtype=float16")
    assert len({recipe(), recipe(stored), recipe(stored, int8)}) == 3


def test_samples_without_clouds_have_labels_and_truth_of_pictures(resolved: ResolvedSettings) -> None:
    truth = replace(sample(truth=False).cameras[0], truth_path="a.png")
    plain = replace(sample(truth=False), cloud_path=None, cameras=(truth,))
    alone = with_modalities_of([Scene("scene", (plain,))], resolved)
    found = shard_fingerprints([plain], sizes, digests, alone, {})
    assert set(found) == {"images", "clip", "sam", "labels", "truth"}
    assert {name: found[name][:16] for name in ("images", "clip", "sam")} == {
        name: FINGERPRINTS[name] for name in ("images", "clip", "sam")
    }
    assert recipe_of("labels", alone) != recipe_of("labels", resolved)


def test_poses_pictures_in_files_of_many_lenses_and_truth_in_tables_count(resolved: ResolvedSettings) -> None:
    plain, camera = sample(truth=True), sample(truth=True).cameras[0]
    lens = Distortion("pinhole", (0.1, 0.0, 0.0, 0.0))
    changes = {
        "points": replace(plain, world_from_cloud=np.eye(4)),
        "sam": replace(plain, cameras=(replace(camera, frame=3),)),
        "images": replace(plain, cameras=(replace(camera, distortion=lens),)),
        "truth": replace(plain, cameras=(replace(camera, truth_masks=((3, "04"),)),)),
    }
    before = shard_fingerprints([plain], sizes, digests, resolved, {})
    for group, changed in changes.items():
        assert shard_fingerprints([changed], sizes, digests, resolved, {})[group] != before[group], group


def test_a_shard_without_samples_has_no_groups(resolved: ResolvedSettings) -> None:
    assert shard_fingerprints([], sizes, digests, resolved, {}) == {}


def test_clip_is_made_from_sam_where_it_reads_what_sam_found(made: Path) -> None:
    def recipes(*overrides: str) -> tuple[str, str]:
        changed = resolve_nuscenes(made, *small_settings(made), *overrides)
        return recipe_of("sam", changed), recipe_of("clip", changed)

    (sam, clip), (other_sam, same_clip) = recipes(), recipes("sam.pred_iou_thresh=0.5")
    assert other_sam != sam and same_clip == clip
    for setting in ("clip.scope=sam", "clip.proxy=sam"):
        of_default, of_other = recipes(setting), recipes(setting, "sam.pred_iou_thresh=0.5")
        assert len({clip, of_default[1], of_other[1]}) == 3, setting
