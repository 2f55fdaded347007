"""The stage `time` on caches with made labels: what it writes, who reads it, and what it says without poses."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from labelgen.cli import main
from labelgen.errors import DatasetError
from labelgen.inspection.audit import inspect_cache
from labelgen.inspection.showing.terminal import render_text
from labelgen.labelling import upsample_scores
from labelgen.stages import STAGES
from labelgen.stages.inputs import Arrays, ShardInputs
from pipelines.resolve import open_dataset
from tests.made_labels import write_label_cache
from tests.pipelines.test_order import resolved

VOXEL_M = 8.0
"""So large that points of these random clouds share voxels."""


def build(url: str, key: str) -> Arrays:
    """Return what the stage makes for a shard."""
    chosen = resolved("time.enabled=true", f"time.voxel_m={VOXEL_M}", "time.rounds=0")
    function = STAGES["time"].build
    assert callable(function)
    made: Arrays = function(ShardInputs(chosen, open_dataset("nuscenes", Path(url).parent), (), Cache(url), key))
    return made


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache of two shards, with two samples and with one, whose points have poses, and with the group `time`."""
    place = write_label_cache(str(tmp_path_factory.mktemp("made") / "cache.zarr"), "nuscenes16")
    cache = Cache(place, "a")
    for key in cache.shard_keys():
        path = GroupPath(key, "points")
        seal, points = cache.seals([path])[path], cache.read(path)
        poses = np.tile(np.eye(4), (len(seal.samples), 1, 1))
        poses[:, :3, 3] = 1000.0
        cache.write_group(
            path, points | {"world_from_cloud": poses}, Provenance(seal.fingerprint, samples=seal.samples)
        )
        sources = {name: f"f-{name}" for name in STAGES["time"].made_from}
        made = build(place, key)
        cache.write_group(GroupPath(key, "time"), made, Provenance("f-time", upstream=sources, samples=seal.samples))
    return place


def test_points_of_a_shard_of_one_keyframe_agree_in_its_voxels(url: str) -> None:
    """The same computed view by view, without rounds. The frame of the first cloud is that of the voxels."""
    cache = Cache(url)
    (key,) = [key for key, record in cache.shard_records(cache.shard_keys()).items() if len(record.samples) == 1]
    pairs, masks = cache.read(GroupPath(key, "pairs")), cache.read(GroupPath(key, "sam"))["mask_ids"][0]
    planes = upsample_scores(cache.read(GroupPath(key, "clip"))["logits"], (8, 12))[0]
    xyz = cache.read(GroupPath(key, "points"))["xyz"]
    voxels = [tuple(voxel) for voxel in np.floor(xyz / VOXEL_M).astype(int).tolist()]
    scores: dict[tuple[int, ...], list[np.ndarray]] = {voxel: [] for voxel in voxels}
    for point, row, col in zip(pairs["point"], pairs["row"], pairs["col"], strict=True):
        mask = masks[row, col]
        scores[voxels[point]].append(planes[:, masks == mask].mean(axis=1) if mask else planes[:, row, col])
    expected = []
    for voxel in voxels:
        winner = int(np.mean(scores[voxel], axis=0).argmax()) if scores[voxel] else 255
        share = sum(int(own.argmax()) == winner for own in scores[voxel]) / max(1, len(scores[voxel]))
        expected.append((winner, round(255 * share)))
    found = cache.read(GroupPath(key, "time"))
    assert list(zip(found["point"].tolist(), found["point_confidence"].tolist(), strict=True)) == expected
    unlabelled = (cache.read(GroupPath(key, "labels"))["point"] == 255).sum()
    assert 0 < sum(label == 255 for label, _ in expected) < unlabelled, "voxels label some points"


def test_the_group_is_sound_and_is_scored_beside_the_voted_labels(url: str) -> None:
    assert list(validate(*Cache.open(url))) == []
    cache, report = Cache(url), inspect_cache(url)
    assert report.over_time is not None
    groups = ("truth", "labels", "time")
    for unit, target in (("points", "point"), ("pixels", "image")):
        truth, voted, over_time = (
            np.concatenate([cache.read(GroupPath(key, group))[target].ravel() for key in cache.shard_keys()])
            for group in groups
        )
        found = dict(report.over_time.labels.by_unit)[unit]
        assert found.labelled.over_time == pytest.approx((over_time != 255).mean())
        for labels, accuracy in ((voted, found.accuracy.voted), (over_time, found.accuracy.over_time)):
            scored = (truth != 255) & (labels != 255)
            assert accuracy == pytest.approx((truth == labels)[scored].mean())
        common = (truth != 255) & (voted != 255) & (over_time != 255)
        assert found.common_accuracy.voted == pytest.approx((truth == voted)[common].mean())
    assert "points with a label of both kinds: mIoU" in render_text(report)
    done = CliRunner().invoke(main, ["compare-labels", url, "--labels", "labels", "--labels", "time", "--json"])
    rows = json.loads(done.output)["caches"]
    assert [row["labels"] for row in rows] == ["labels", "time"]
    points = report.over_time.labels.point
    assert rows[1]["point"]["own"]["accuracy"] == pytest.approx(points.accuracy.over_time)
    assert rows[0]["point"]["common"]["miou"] == pytest.approx(points.common_miou.voted)
    assert rows[0]["point"]["calibration"] is None and rows[1]["point"]["calibration"]["error"] > 0


def test_a_cache_without_poses_is_refused_with_the_remedy(tmp_path: Path) -> None:
    place = write_label_cache(str(tmp_path / "cache.zarr"), "nuscenes16", points=20)
    key = Cache(place).shard_keys()[0]
    with pytest.raises(DatasetError, match=rf"shard {key} have no poses; .* or set time.enabled=false"):
        build(place, key)


def test_only_the_group_itself_depends_on_the_setting() -> None:
    off, on = resolved(), resolved("time.enabled=true")
    assert STAGES["time"].settings(off) is None
    assert STAGES["time"].settings(on) != STAGES["time"].settings(resolved("time.enabled=true", "time.rounds=9"))
    assert all(stage.settings(off) == stage.settings(on) for name, stage in STAGES.items() if name != "time")
