"""`labelgen replay`: one sample is made again in this process, and compared with what is sealed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SHARD_GROUPS
from cache_schemas.store import Cache
from labelgen.stages import STAGES
from pipelines.replay.compare import Tolerance, compare_array, compare_arrays


@pytest.fixture
def second(built: Path) -> str:
    """Return the name of a sample that has another one before it in its shard."""
    records = Cache(str(built)).shard_records(Cache(str(built)).shard_keys())
    return next(record.samples[1] for record in records.values() if len(record.samples) > 1)


def test_all_stages_give_what_is_sealed(made: Path, built: Path, second: str, labelgen_here: Any) -> None:
    done = labelgen_here("replay", str(built), second, "--data", str(made / "nuscenes"), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    sealed = {"text", *Cache(str(built)).shard_seals(found["shard"])}
    assert set(found["stages"]) == sealed
    assert sealed <= set(STAGES)
    assert [name for name, stage in found["stages"].items() if not stage["equal"] or stage["other_settings"]] == []
    assert found["stages"]["pairs"]["arrays"].keys() >= {"point", "image", "row", "col", "offsets"}


def test_what_differs_is_counted_for_the_sample_where_it_is(
    made: Path, cache: Path, second: str, labelgen_here: Any
) -> None:
    store = Cache(str(cache), "a")
    key = next(key for key, record in store.shard_records(store.shard_keys()).items() if second in record.samples)
    path = GroupPath(key, "labels")
    seal, arrays = store.seals([path])[path], store.read(path)
    first_image = int(store.read(GroupPath(key, "images"), "offsets")["offsets"][1])
    pixels = arrays["image"][first_image, 0, :3]
    pixels[:] = np.where(pixels < 8, pixels + 7, pixels - 7)
    store.write_group(path, arrays, Provenance(seal.fingerprint, recipe="of other settings", samples=seal.samples))

    command = ["replay", str(cache), "--data", str(made / "nuscenes"), "--stage", "labels"]
    done = labelgen_here(*command, second, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)["stages"]["labels"]
    assert found["other_settings"] is True
    assert {name for name, array in found["arrays"].items() if array["differing"]} == {"image"}
    assert (found["arrays"]["image"]["differing"], found["arrays"]["image"]["largest"]) == (3, 7)
    assert found["arrays"]["image"]["elements"] == arrays["image"][0].size * 6
    text = labelgen_here(*command, second).stdout
    assert "image: 3 of 43,008 elements differ (0.01%), by up to 7" in text
    before = labelgen_here(*command, store.shard_records([key])[key].samples[0])
    assert before.returncode == 0, "the other sample of the shard is as it was"


def test_bad_input_is_one_error(
    made: Path, built: Path, second: str, labelgen_here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELGEN_WEIGHTS", str(tmp_path))

    def error(sample: str, *options: str) -> str:
        done = labelgen_here("replay", str(built), sample, "--data", str(made / "nuscenes"), *options)
        assert (done.returncode, done.stdout) == (2, "")
        return str(done.stderr)

    assert f"did you mean {second}" in error(second[:-1])
    assert "no stage 'masks'; choose from text, images" in error(second, "--stage", "masks")
    assert "has no sealed sweeps" in error(second, "--stage", "sweeps")
    assert "weights fetch sam-vit-h" in error(second, "--stage", "sam", "--teachers", "paper")
    assert "sam.points" in error(second, "--set", "sam.pionts_per_batch=64")
    assert "split mini_val has no sample" in error(second, "--set", "split=mini_val")


@pytest.mark.parametrize("prompts", [{"templates": ()}, {"class_names": {"car": ()}}])
def test_a_manifest_without_prompts_is_one_error(
    made: Path, cache: Path, second: str, labelgen_here: Any, prompts: dict[str, Any]
) -> None:
    store, manifest = Cache.open(str(cache), "a")
    Cache.create(store.url, manifest.model_copy(update={"prompts": manifest.prompts.model_copy(update=prompts)}))
    done = labelgen_here("replay", str(cache), second, "--data", str(made / "nuscenes"), "--stage", "text")
    assert done.returncode == 2 and "no template or a class without names" in done.stderr


def test_arrays_are_compared_element_by_element() -> None:
    sealed = np.array([[1.0, np.nan, 3.0, 4.0]], np.float32)
    other = np.array([[1.0, np.nan, 3.5, np.nan]], np.float32)
    assert compare_array(sealed, sealed).within_tolerance
    near = compare_array(sealed[:, :3], other[:, :3], Tolerance(largest=0.5))
    assert (near.elements, near.differing, near.largest, near.within_tolerance) == (3, 1, 0.5, True)
    assert not compare_array(sealed[:, :3], other[:, :3], Tolerance(largest=0.4)).within_tolerance
    assert not compare_array(sealed, other, Tolerance(largest=0.5)).within_tolerance, "NaN is near nothing"
    ids = np.arange(100, dtype=np.uint16)
    moved = np.where(ids < 2, 60_000, ids).astype(np.uint16)
    assert compare_array(ids, moved, Tolerance(share=0.02)).within_tolerance
    assert not compare_array(ids, moved, Tolerance(share=0.01)).within_tolerance
    assert compare_array(ids, moved).largest == 60_000
    assert "sealed as uint16 (100,)" in compare_array(ids, ids.astype(np.int64)).misfit


def test_int8_features_of_clip_may_differ_by_one_step() -> None:
    scale = np.full((1, 2), 0.002, np.float32)
    sealed = {"features": np.array([[[[3]], [[-5]]]], np.int8), "features_scale": scale}
    for steps, within in ((1, True), (2, False)):
        replayed = {"features": sealed["features"] + np.int8(steps), "features_scale": scale * np.float32(1.001)}
        found = compare_arrays("clip", SHARD_GROUPS["clip"], sealed, replayed, alone=True)
        assert found["features"].within_tolerance is within and found["features_scale"].within_tolerance
