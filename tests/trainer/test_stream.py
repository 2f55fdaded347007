"""The stream: every sample once, in an order that seeds decide, read as the cache holds it, or refused with a fix."""

import itertools
import json
import shutil
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.errors import DamagedGroupError, NoCacheError, SchemaVersionError
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from trainer.errors import UnfitCacheError
from trainer.stream import CacheStream, SampleRef, epoch_order, split_scenes, steps_of_epoch

ARRAYS = ["images/rgb", "labels/image", "points/xyz", "pairs/point", "pairs/image", "pairs/row", "pairs/col"]


def refs(*sizes: int) -> list[SampleRef]:
    return [SampleRef(f"s{n}", i, f"{n}-{i}", f"scene-{n}") for n, size in enumerate(sizes) for i in range(size)]


# Order


def test_an_epoch_takes_every_sample_once_in_an_order_of_its_own() -> None:
    samples = refs(3, 1, 4, 2, 6)
    orders = [epoch_order(samples, seed, epoch, window=2) for seed, epoch in itertools.product((0, 1), (0, 1))]
    assert all(sorted(order) == list(range(16)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert epoch_order(samples, 1, 1, window=2) == orders[3]


def test_only_shards_of_one_window_mix() -> None:
    samples = refs(*[5] * 9)
    order = epoch_order(samples, 0, 0, window=3)
    windows = [{samples[number].shard for number in order[start : start + 15]} for start in (0, 15, 30)]
    assert all(len(shards) == 3 for shards in windows)
    first = [samples[number].shard for number in order[:15]]
    assert first != sorted(first, key=first.index), "samples of a window are shuffled, not shard by shard"


@pytest.mark.parametrize(("count", "samples", "world"), [(32, 2, 1), (33, 2, 2), (7, 4, 3), (100, 3, 4), (2, 4, 2)])
def test_ranks_split_an_epoch_without_overlap_or_loss(count: int, samples: int, world: int) -> None:
    order = epoch_order(refs(count), 0, 0, window=8)
    ranks = [steps_of_epoch(order, 0, samples, rank, world) for rank in range(world)]
    assert len({len(steps) for steps in ranks}) == 1, "all ranks take equally many steps"
    taken = Counter(number for steps in ranks for step in steps for number in step.samples)
    assert taken == Counter(range(count))
    assert all(step.samples for steps in ranks for step in steps), "no rank is without a sample"
    alone = steps_of_epoch(order, 0, samples * world, 0, 1)
    joint = [tuple(n for steps in ranks for n in steps[i].samples) for i in range(len(alone))]
    assert joint == [step.samples for step in alone], "the ranks' joint steps are those of one rank"


def test_more_ranks_than_samples_are_refused() -> None:
    with pytest.raises(UnfitCacheError, match="2 samples are too few for 3 ranks"):
        steps_of_epoch([0, 1], 0, 1, 0, 3)


def test_every_nth_scene_is_held_out() -> None:
    training, held_out = split_scenes(refs(2, 1, 1, 1, 2, 1, 1), 3)
    assert {ref.scene for ref in held_out} == {"scene-2", "scene-5"}
    assert len(training) + len(held_out) == 9
    assert split_scenes(refs(2, 1), 0) == (refs(2, 1), [])
    with pytest.raises(UnfitCacheError, match="hold_out = 5 leaves 0 of 2 scenes"):
        split_scenes(refs(1, 1), 5)


# Reading


@pytest.mark.parametrize("place", ["local", "memory"])
def test_samples_read_as_the_cache_holds_them(place: str, tmp_path: Path, make_cache) -> None:
    url = make_cache(tmp_path / "c" if place == "local" else f"memory://{uuid.uuid4().hex}/c")
    stream, cache = CacheStream(url, ARRAYS, optional=["truth/image"]), Cache(url)
    assert len(stream.samples) == 6
    for ref in stream.samples:
        found = stream.read(ref)
        images, points, pairs = (cache.read(GroupPath(ref.shard, group)) for group in ("images", "points", "pairs"))
        rows = slice(*images["offsets"][ref.place : ref.place + 2])
        np.testing.assert_array_equal(found["images/rgb"], images["rgb"][rows])
        np.testing.assert_array_equal(
            found["truth/image"], cache.read(GroupPath(ref.shard, "truth"), "image")["image"][rows]
        )
        kept = slice(*pairs["offsets"][ref.place : ref.place + 2])
        xyz = points["xyz"][pairs["point"][kept]]
        np.testing.assert_array_equal(found["points/xyz"][found["pairs/point"]], xyz)
        rgb = images["rgb"][pairs["image"][kept], pairs["row"][kept], pairs["col"][kept]]
        local = found["images/rgb"][found["pairs/image"], found["pairs/row"], found["pairs/col"]]
        np.testing.assert_array_equal(local, rgb)


def test_chosen_images_come_alone_with_their_pairs(toy: str) -> None:
    stream = CacheStream(toy, ARRAYS)
    ref = stream.samples[3]
    both, second = stream.read(ref), stream.read(ref, [1])
    assert stream.images(ref) == 2
    np.testing.assert_array_equal(second["images/rgb"], both["images/rgb"][1:])
    kept = both["pairs/image"] == 1
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_array_equal(second["pairs/point"], both["pairs/point"][kept])
    assert (second["pairs/image"] == 0).all()


# Refusals


def test_no_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoCacheError):
        CacheStream(str(tmp_path / "none"), ARRAYS)


def test_unsealed_groups_are_refused(own: str) -> None:
    Cache(own, "a").remove_group(GroupPath("scene-1-000", "labels"))
    with pytest.raises(UnfitCacheError, match=r"scene-1-000/labels: .*not sealed.*; finish .*`labelgen run`"):
        CacheStream(own, ARRAYS)


def test_groups_of_other_upstream_groups_are_refused(own: str) -> None:
    file = Path(own) / "shards/scene-2-000/sam/zarr.json"
    file.write_text(file.read_text().replace('"f-sam"', '"f-new"'))
    with pytest.raises(UnfitCacheError, match=r"scene-2-000/labels: .*made from sam f-sam, which is now f-new"):
        CacheStream(own, ARRAYS)


def test_other_class_names_than_the_labels_were_made_with_are_refused(own: str) -> None:
    file = Path(own) / "text/zarr.json"
    file.write_text(file.read_text().replace('"f-text"', '"f-new"'))
    with pytest.raises(UnfitCacheError, match=r"clip: .*made from text f-text, which is now f-new"):
        CacheStream(own, [*ARRAYS, "clip/logits"])


def test_missing_arrays_are_refused_with_the_way_to_make_them(own: str) -> None:
    with pytest.raises(UnfitCacheError, match=r"clip/features: not in this cache; .*clip\.store_features=true"):
        CacheStream(own, [*ARRAYS, "clip/features"])


def test_other_schema_versions_are_refused(own: str) -> None:
    file = Path(own) / "zarr.json"
    document = json.loads(file.read_text())
    document["attributes"]["schema_version"] = 2
    file.write_text(json.dumps(document))
    with pytest.raises(SchemaVersionError, match="schema version 2"):
        CacheStream(own, ARRAYS)


def edit_document(cache: str, path: str, **changes: object) -> None:
    file = Path(cache) / path / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_attributes(cache: str, path: str, **changes: object) -> None:
    attributes = json.loads((Path(cache) / path / "zarr.json").read_text())["attributes"]
    edit_document(cache, path, attributes=attributes | changes)


def cut(cache: str, array: str, *, keep: int) -> None:
    (file,) = (file for file in (Path(cache) / array / "c").rglob("*") if file.is_file())
    file.write_bytes(file.read_bytes()[:keep])


DAMAGES = {
    "a seal without a field": (
        "shards/scene-0-000/sam",
        lambda c: edit_attributes(c, "shards/scene-0-000/sam", arrays=1),
    ),
    "a shard without a record": ("shards/scene-2-000", lambda c: edit_document(c, "shards/scene-2-000", attributes={})),
    "another dtype": (
        "shards/scene-1-000/points/intensity",
        lambda c: edit_document(c, "shards/scene-1-000/points/intensity", data_type="float64"),
    ),
    "another shape": (
        "shards/scene-1-000/clip/logits",
        lambda c: edit_document(c, "shards/scene-1-000/clip/logits", shape=[10**12, 3, 3, 4]),
    ),
    "other codecs": (
        "shards/scene-1-000/clip/logits",
        lambda c: edit_document(c, "shards/scene-1-000/clip/logits", codecs=[]),
    ),
    "a file that is cut short": (
        "shards/scene-1-000/images/rgb",
        lambda c: cut(c, "shards/scene-1-000/images/rgb", keep=50),
    ),
    "an emptied file": ("shards/scene-0-000/labels/point", lambda c: cut(c, "shards/scene-0-000/labels/point", keep=0)),
    "an array that is gone": (
        "shards/scene-1-000/images/rgb",
        lambda c: shutil.rmtree(Path(c) / "shards/scene-1-000/images/rgb"),
    ),
    "a chunk file that is gone": ("text/embeddings", lambda c: shutil.rmtree(Path(c) / "text/embeddings/c")),
    "a shard of another scene": (
        "shards/scene-7-000",
        lambda c: shutil.copytree(Path(c) / "shards/scene-1-000", Path(c) / "shards/scene-7-000"),
    ),
    "a shard under samples of another": (
        "shards/scene-1-001",
        lambda c: shutil.copytree(Path(c) / "shards/scene-1-000", Path(c) / "shards/scene-1-001"),
    ),
    "a group of other samples": (
        "shards/scene-1-000/sam",
        lambda c: edit_attributes(c, "shards/scene-1-000/sam", samples=["x", "y"]),
    ),
}
"""What `labelgen verify` finds without reading a value, and the trainer refuses: the path, and the damage."""


@pytest.mark.parametrize(("path", "damage"), DAMAGES.values(), ids=DAMAGES.keys())
def test_what_verify_would_refuse_for_its_structure_is_refused_at_the_start(own: str, path: str, damage) -> None:
    damage(own)
    with pytest.raises(UnfitCacheError) as caught:
        CacheStream(own, ARRAYS)
    message = str(caught.value)
    assert message.startswith(f"{own}/{path}: ") and "\n" not in message
    assert "`labelgen" in message.rpartition("; ")[2], "the fix comes last"
    assert path in {problem.path for problem in validate(*Cache.open(own))}


def test_stray_files_do_not_stop_a_training(own: str) -> None:
    (Path(own) / "notes.txt").write_text("mine")
    assert len(CacheStream(own, ARRAYS).samples) == 6


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 4
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("array", ["images/rgb", "labels/image", "points/xyz", "pairs/row"])
@pytest.mark.parametrize("position", [6, -8], ids=["values", "index"])
def test_a_flipped_bit_stops_with_shard_array_and_remedy(own: str, array: str, position: int) -> None:
    (file,) = (file for file in (Path(own) / f"shards/scene-0-000/{array}/c").rglob("*") if file.is_file())
    flip(file, position)
    stream = CacheStream(own, ARRAYS)
    with pytest.raises(
        DamagedGroupError, match=rf"scene-0-000/{array}: damaged \(.*\); remove .*; .*`labelgen verify`"
    ):
        stream.read(stream.samples[0])


def test_a_flipped_bit_in_the_class_names_stops_too(own: str) -> None:
    flip(Path(own) / "text/embeddings/c/0/0", 6)
    with pytest.raises(DamagedGroupError, match=r"text: damaged .*rerun the same `labelgen run`"):
        CacheStream(own, ARRAYS).text_embeddings()
