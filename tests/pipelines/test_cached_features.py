"""A cache with CLIP's features: new prompts as a run with them would make them, and what fits a sentence best."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cache_schemas.documents import Provenance
from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.cli import main
from labelgen.labelling import upsample_scores
from labelgen.query.ranking import SMALLEST_MASK_PX
from labelgen.teachers.clip.cached_features import decode_features
from labelgen.teachers.clip.teacher import ClipTeacher
from pipelines.config import RunConfig, load_config
from pipelines.plan import Planner
from pipelines.reprompt.redo import reprompt
from pipelines.resolve import open_dataset, read_scenes, resolve
from tests.pipelines.caches import checksums, problems
from tests.pipelines.conftest import PROMPTS, small_settings
from tests.pipelines.in_process import build_cache

CLIP = ("clip.architecture=demo-vit-16", "clip.weights=demo-clip")
FEATURES, INT8 = "clip.store_features=true", "clip.features_dtype=int8"


def config_with(made: Path, *more: str) -> RunConfig:
    return load_config("nuscenes", teachers="untrained", overrides=[*small_settings(made), *CLIP, *more])


@pytest.fixture(scope="module")
def featured(made: Path, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with features of the demo's CLIP; do not change it."""
    cache = Path(shutil.copytree(built, tmp_path_factory.mktemp("featured") / "cache.zarr"))
    build_cache(config_with(made, FEATURES), made / "nuscenes", str(cache))
    return cache


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "others.yaml"
    file.write_text(PROMPTS.replace("car: [", "car: [red sports car, "))
    assert file.read_text() != PROMPTS
    return file


def say(line: str) -> None:
    """Print nothing."""


def test_it_makes_what_a_run_would_make_and_a_run_finds_the_cache_up_to_date(
    made: Path, featured: Path, prompts: Path, tmp_path: Path
) -> None:
    ran, redone = (Path(shutil.copytree(featured, tmp_path / name)) for name in ("ran.zarr", "redone.zarr"))
    config = config_with(made, FEATURES, f"prompts={prompts}")
    build_cache(config, made / "nuscenes", str(ran))
    assert reprompt(str(redone), str(prompts), say) == len(Cache(str(redone)).shard_keys())

    assert problems(redone) == []
    adapter = open_dataset(config.dataset, made / "nuscenes")
    planner = Planner(made / "nuscenes", Cache(str(redone)), resolve(config, adapter))
    assert planner.due_roots() == [] and not any(s.todo for s in planner.plan(read_scenes(config, adapter)))
    assert Cache(str(redone)).manifest() == Cache(str(ran)).manifest()

    before, after, expected = checksums(featured), checksums(redone), checksums(ran)
    kept = [path for path in before if path.split("/")[1] not in ("clip", "labels")]
    assert [after[path] for path in kept] == [before[path] for path in kept]
    different = logits = 0
    for key in Cache(str(ran)).shard_keys():
        found, wanted = (Cache(str(cache)).read(GroupPath(key, "clip"), "logits")["logits"] for cache in (redone, ran))
        np.testing.assert_allclose(found, wanted, atol=2e-3)
        assert after[f"{key}/clip/features"] == expected[f"{key}/clip/features"]
        assert after[f"{key}/clip/logits"] != before[f"{key}/clip/logits"]
        found, wanted = (Cache(str(cache)).read(GroupPath(key, "labels"), "image")["image"] for cache in (redone, ran))
        different, logits = different + int((found != wanted).sum()), logits + found.size
    assert different < 0.01 * logits


def test_a_stopped_one_continues(featured: Path, prompts: Path, tmp_path: Path) -> None:
    cache = Path(shutil.copytree(featured, tmp_path / "cache.zarr"))

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reprompt(str(cache), str(prompts), stop)
    assert problems(cache) != []
    assert reprompt(str(cache), str(prompts), say) == len(Cache(str(cache)).shard_keys()) - 1
    assert problems(cache) == []


def test_a_cache_without_features_is_refused_and_not_changed(made: Path, cache: Path, prompts: Path) -> None:
    before = checksums(cache)
    with pytest.raises(CacheError, match=r"clip/features.*store_features"):
        reprompt(str(cache), str(prompts), say)
    assert checksums(cache) == before and problems(cache) == []


def test_features_as_int8_give_the_same_scores_within_their_rounding(
    made: Path, featured: Path, prompts: Path, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(featured, tmp_path / "compact.zarr"))
    build_cache(config_with(made, FEATURES, INT8), made / "nuscenes", str(place))
    before, after = checksums(featured), checksums(place)
    exact, compact = Cache(str(featured)), Cache(str(place))
    assert {path for path in before if after[path] != before[path]} == {
        f"{key}/clip/features" for key in exact.shard_keys()
    }
    reprompt(str(place), str(prompts), say)
    assert problems(place) == []
    text = compact.read(GroupPath.root("text"))["embeddings"]
    for key in exact.shard_keys():
        found, wanted = (cache.read(GroupPath(key, "clip")) for cache in (compact, exact))
        assert (found["features"].dtype, wanted["features"].dtype) == (np.int8, np.float16)
        one, other = (decode_features(arrays).astype(np.float64) for arrays in (found, wanted))
        cosine = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert 0.9995 < cosine.min() < 1
        np.testing.assert_allclose(found["logits"], np.einsum("idhw,cd->ichw", other, text), atol=4e-3)


def test_scores_that_are_not_the_cosines_of_the_features_are_refused(
    made: Path, featured: Path, prompts: Path, tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(featured, tmp_path / "cache.zarr"))
    build_cache(config_with(made, FEATURES, INT8, "clip.key_smoothing=1.0"), made / "nuscenes", str(cache))
    with pytest.raises(CacheError, match="a refinement that needs CLIP's image network"):
        reprompt(str(cache), str(prompts), say)
    assert problems(cache) == []


def test_a_query_ranks_masks_by_their_mean_cosine(featured: Path, made: Path, tmp_path: Path) -> None:
    cache, page = Path(shutil.copytree(featured, tmp_path / "cache.zarr")), tmp_path / "page.html"
    own, scores = Cache(str(cache), "a"), {}
    text = ClipTeacher(config_with(made).clip).embed_text([["a bus"]])[0]
    for key in own.shard_keys():
        path = GroupPath(key, "sam")
        seal, arrays = own.seals([path])[path], own.read(path)
        masks = arrays["mask_ids"] = np.zeros_like(arrays["mask_ids"])
        masks[:, 8:40, 8:50], masks[:, 20:60, 60:100], masks[:, :2, :2] = 1, 2, 3  # the last is too small
        assert masks[0][masks[0] == 3].size < SMALLEST_MASK_PX
        own.write_group(path, arrays, Provenance(seal.fingerprint, samples=seal.samples, recipe=seal.recipe))
        features = own.read(GroupPath(key, "clip"), "features")["features"].astype(np.float32)
        cosines = upsample_scores(np.einsum("idhw,d->ihw", features, text)[:, None], masks.shape[1:])[:, 0]
        scores |= {(key, i, m): cosines[i][masks[i] == m].mean() for i in range(len(masks)) for m in (1, 2)}
    arguments = ["query", str(cache), "a bus", "--top", "3", "--json", "--html", str(page)]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    found = json.loads(done.stdout)
    best = sorted(scores, key=lambda place: -scores[place])
    assert [(hit["shard"], hit["image"], hit["mask"]) for hit in found["masks"]] == best[:3]
    np.testing.assert_allclose(
        [hit["score"] for hit in found["masks"]], [scores[place] for place in best[:3]], atol=1e-5
    )
    pictures = list(dict.fromkeys(place[:2] for place in best))
    assert [(hit["shard"], hit["image"]) for hit in found["pictures"]] == pictures[:3]
    record = own.shard_records([best[0][0]])[best[0][0]]
    assert found["samples"][0]["sample"] == found["masks"][0]["sample"] in record.samples
    assert len({(hit["shard"], hit["sample"]) for hit in found["samples"]}) == 3
    assert page.read_text().count("data:image/webp") == 9 and "a bus" in page.read_text()


def test_a_query_of_a_cache_without_features_names_the_setting(cache: Path) -> None:
    done = CliRunner().invoke(main, ["query", str(cache), "a bus"])
    assert done.exit_code == 1 and "clip.store_features=true" in done.output
