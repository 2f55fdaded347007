"""Resume: which groups of a finished cache a changed setting, file or network redoes."""

import hashlib
from pathlib import Path

import pytest

from cache_schemas.documents import QuarantinedSample
from cache_schemas.store import Cache
from pipelines.announcement import announce
from pipelines.config import load_config
from pipelines.plan import BadSample, Planner, ShardPlan
from pipelines.resolve import open_dataset, resolve
from tests.pipelines.conftest import small_settings


@pytest.fixture
def todo(made: Path, data: Path, built: Path):
    """Return a function: what a run with these overrides would redo in each shard, by shard key."""

    def plan(*overrides: str, **how: object) -> dict[str, set[str]]:
        return {shard.key: set(shard.todo) for shard in plans(made, data, built, *overrides, **how)}

    return plan


def plans(made: Path, data: Path, cache: Path, *overrides: str, **how: object) -> list[ShardPlan]:
    config = load_config("nuscenes", teachers="untrained", overrides=[*small_settings(made), *overrides])
    adapter = open_dataset("nuscenes", data)
    scenes = adapter.scenes(config.split, config.version)
    return Planner(data, Cache(str(cache)), resolve(config, adapter)).plan(scenes, **how)


def first(todo: dict[str, set[str]]) -> set[str]:
    return todo["scene-0061-000"]


def test_shards_are_runs_of_one_scene(made: Path, data: Path, built: Path) -> None:
    sizes = {shard.key: len(shard.samples) for shard in plans(made, data, built)}
    assert sizes == {"scene-0061-000": 2, "scene-0061-001": 1, "scene-0103-000": 2}


def test_nothing_changed_nothing_to_do(todo) -> None:
    assert todo() == {"scene-0061-000": set(), "scene-0061-001": set(), "scene-0103-000": set()}


@pytest.mark.parametrize(
    ("override", "redone"),
    [
        ("prompts=nuscenes-paper", {"clip", "labels"}),
        ("clip.weights=untrained:1", {"clip", "labels"}),
        ("clip.prompt_denoising=0.5", {"clip", "labels"}),
        ("clip.store_features=true", {"clip", "labels"}),
        ("clip.mean=[0.5, 0.5, 0.5]", {"clip", "labels"}),
        ("clip.mean=[0.48145466, 0.4578275, 0.40821073]", set()),
        ("sam.weights=untrained:1", {"sam", "labels"}),
        ("sam.pred_iou_thresh=0.1", {"sam", "labels"}),
        ("points.min_depth_m=2", {"pairs", "labels"}),
        ("points.visibility=none", {"pairs", "labels"}),
        ("points.zbuffer_margin_m=1", {"pairs", "labels"}),
        ("images.height=48", {"images", "clip", "sam", "pairs", "labels", "truth"}),
        ("sam.points_per_batch=8", set()),
        ("sam.compile=true", set()),
        ("ray.retries=5", set()),
        ("ray.sam.actors=2", set()),
    ],
)
def test_a_setting_redoes_what_it_shapes(todo, override: str, redone: set[str]) -> None:
    assert all(groups == redone for groups in todo(override).values())


def test_a_changed_file_redoes_its_shard_only(todo, data: Path) -> None:
    picture = sorted((data / "samples" / "CAM_BACK").glob("*.jpg"))[0]
    picture.write_bytes(picture.read_bytes() + b"\0")
    changed = {key: groups for key, groups in todo().items() if groups}
    assert list(changed.values()) == [{"images", "clip", "sam", "labels"}]


def test_a_changed_picture_redoes_pairs_if_superpixels_tell_what_is_hidden(made: Path, data: Path, built: Path) -> None:
    def pairs(*overrides: str) -> list[str]:
        return [shard.fingerprints["pairs"] for shard in plans(made, data, built, *overrides)]

    rules = ["points.visibility=slic"], ["points.visibility=zbuffer"]
    before = [pairs(*rule) for rule in rules]
    picture = sorted((data / "samples" / "CAM_BACK").glob("*.jpg"))[0]
    picture.write_bytes(picture.read_bytes() + b"\0")
    changed = [sum(map(str.__ne__, old, pairs(*rule))) for old, rule in zip(before, rules, strict=True)]
    assert changed == [1, 0]
    assert pairs("points.visibility=slic", "points.slic_superpixels=900") != pairs("points.visibility=slic")


def test_the_announcement_names_what_changed(made: Path, data: Path, built: Path) -> None:
    cloud = sorted((data / "samples" / "LIDAR_TOP").glob("*.bin"))[0]
    cloud.write_bytes(cloud.read_bytes() + bytes(20))
    overrides = [*small_settings(made), "sam.pred_iou_thresh=0.1", "ray.retries=5"]
    config = load_config("nuscenes", teachers="untrained", overrides=overrides)
    planner = Planner(data, Cache(str(built)), resolve(config, open_dataset("nuscenes", data)))
    plan = planner.plan(open_dataset("nuscenes", data).scenes(config.split, config.version), limit=1)
    assert announce(plan, plan, planner)[2:] == [
        "changed since the last run: sam.pred_iou_thresh 0.0 -> 0.1",
        "  sam    1 to redo, since settings changed",
        "  points 1 to redo, since raw files changed",
        "  pairs  1 to redo, since points changed",
        "  labels 1 to redo, since sam, pairs changed",
        "  truth  1 to redo, since points changed",
        "shards: 0 up to date, 1 to do",
    ]


def test_a_changed_cloud_redoes_points_and_what_follows(todo, data: Path) -> None:
    cloud = sorted((data / "samples" / "LIDAR_TOP").glob("*.bin"))[0]
    cloud.write_bytes(cloud.read_bytes() + bytes(20))
    changed = [groups for groups in todo().values() if groups]
    assert changed == [{"points", "pairs", "truth", "labels"}]


def test_truth_that_changes_at_the_same_size_is_redone_alone(todo, data: Path) -> None:
    truth = sorted((data / "lidarseg" / "v1.0-mini").glob("*.bin"))[0]
    content = bytearray(truth.read_bytes())
    content[0] ^= 1
    truth.write_bytes(content)
    assert [groups for groups in todo().values() if groups] == [{"truth"}]


def test_a_copy_of_the_dataset_is_the_same_dataset(todo, data: Path) -> None:
    for file in [*data.rglob("*.jpg"), *data.rglob("*.bin")]:
        file.touch()
    assert not any(todo().values())


def test_files_that_are_gone_do_not_undo_what_was_made_from_them(todo, data: Path) -> None:
    for picture in (data / "samples").rglob("*.jpg"):
        picture.unlink()
    assert not any(todo().values())
    assert all(groups == {"clip", "labels"} for groups in todo("prompts=nuscenes-paper").values())
    assert first(todo("sam.pred_iou_thresh=0.1")) == {"sam", "labels"}


def test_patterns_and_limits_choose_shards(todo) -> None:
    assert list(todo(pattern="scene-0061-*")) == ["scene-0061-000", "scene-0061-001"]
    assert list(todo(limit=1)) == ["scene-0061-000"]
    assert todo(pattern="scene-9*") == {}


def test_weights_are_known_by_their_bytes_not_their_name(todo, made: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from labelgen.settings import ClipSettings
    from labelgen.teachers.clip.network import build_clip
    from labelgen.weights import OPENAI_MEAN, OPENAI_STD

    model = build_clip(ClipSettings(architecture="tiny-vit-16", weights="untrained:0"))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    own = [
        f"clip.weights={tmp_path / 'w.safetensors'}",
        f"clip.mean={list(OPENAI_MEAN)}",
        f"clip.std={list(OPENAI_STD)}",
    ]
    config = load_config("nuscenes", teachers="untrained", overrides=own)
    identity = resolve(config, open_dataset("nuscenes", tmp_path)).teachers.networks["clip"]
    assert identity.sha256 == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    assert identity.weights == "w.safetensors"
    assert first(todo(*own)) == {"clip", "labels"}


def test_a_quarantined_sample_stays_out_until_its_files_change_or_it_is_asked_for(
    made: Path, data: Path, cache: Path
) -> None:
    store = Cache(str(cache), "a")
    shard = plans(made, data, cache)[0]
    token = shard.samples[0].token
    config = load_config("nuscenes", teachers="untrained", overrides=small_settings(made))
    planner = Planner(data, store, resolve(config, open_dataset("nuscenes", data)))
    smaller = planner.without(shard, {token: BadSample("sam", "sam: kills its worker")})
    store.write_shard_record(shard.key, smaller.record)

    again = plans(made, data, cache)[0]
    assert [sample.token for sample in again.samples] == [shard.samples[1].token]
    assert again.quarantined == (
        QuarantinedSample(
            sample=token, stage="sam", reason="sam: kills its worker", inputs=smaller.quarantined[0].inputs
        ),
    )
    assert set(again.todo) == {"images", "clip", "sam", "points", "pairs", "labels", "truth"}
    assert len(plans(made, data, cache, retry_quarantined=True)[0].samples) == 2

    picture = data / shard.samples[0].cameras[0].image_path
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert len(plans(made, data, cache)[0].samples) == 2
