"""One whole `labelgen run` on a made nuScenes and real Ray, and what the cache that it makes holds."""

import json
from pathlib import Path

import numpy as np

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from tests.pipelines.caches import checksums, problems

GROUPS = ("images", "clip", "sam", "points", "pairs", "labels", "truth")


def test_the_cache_is_whole_and_says_what_made_it(finished: Path, labelgen) -> None:
    assert problems(finished) == []
    assert labelgen("verify", str(finished)).returncode == 0
    found = labelgen.inspect(finished)
    assert found["shards"] == {"sealed": 3, "stale": 0, "quarantined": 0, "unfinished": 0}
    assert found["samples"]["labelled"] == 5
    assert found["teachers"]["preset"] == "untrained"
    assert found["teachers"]["untrained"] is True
    assert found["groups_sealed"] == dict.fromkeys(sorted(GROUPS), 3)
    assert found["truth"]["image"] is None
    for kind in ("raw", "refined"):
        scores = found["truth"]["point"][kind]
        assert set(scores) >= {"miou", "accuracy", "iou"}
        assert len(scores["iou"]) == 16
    assert "UNTRAINED" in labelgen("inspect", str(finished)).stdout


def test_ray_changes_nothing_about_a_cache(finished: Path, built: Path) -> None:
    """Every document, and so every seal with its checksums, is that of stages called one after the other."""
    ours, reference = (
        {str(file.relative_to(cache)): json.loads(file.read_text()) for file in cache.rglob("zarr.json")}
        for cache in (finished, built)
    )
    assert ours == reference


def test_pairs_agree_with_the_stored_calibration(built: Path) -> None:
    """Anyone can redo the pairing from the cache: cam_from_cloud and intrinsics project each point onto its pixel."""
    store = Cache(str(built))
    for key in store.shard_keys():
        images, points, pairs = (store.read(GroupPath(key, group)) for group in ("images", "points", "pairs"))
        xyz, view = points["xyz"][pairs["point"]].astype(np.float64), pairs["image"]
        camera = np.einsum("nij,nj->ni", images["cam_from_cloud"][view, :3, :3], xyz)
        camera += images["cam_from_cloud"][view, :3, 3]
        pixel = np.einsum("nij,nj->ni", images["intrinsics"][view], camera / camera[:, 2:])[:, :2]
        assert len(pixel) > 0
        assert np.abs(pixel - np.stack([pairs["col"], pairs["row"]], axis=1)).max() <= 0.5 + 1e-6


def test_labels_follow_from_the_other_groups_by_plain_loops(built: Path) -> None:
    """Redo one image's eq 1 to 4 and its points' transfer with loops, from the cached scores, masks and pairs."""
    import torch

    store = Cache(str(built))
    key = store.shard_keys()[0]
    clip, sam, pairs, labels = (store.read(GroupPath(key, group)) for group in ("clip", "sam", "pairs", "labels"))
    logits = torch.from_numpy(clip["logits"].astype(np.float32))
    ids = sam["mask_ids"]
    scores = torch.nn.functional.interpolate(logits, ids.shape[1:], mode="bilinear", align_corners=False).numpy()
    raw = scores.argmax(axis=1)
    top_two = np.sort(scores, axis=1)[:, -2:]
    clear = top_two[:, 1] - top_two[:, 0] > 1e-5  # elsewhere float rounding may choose
    assert clear.mean() > 0.9
    assert (labels["image_raw"] == raw)[clear].all()
    for image in range(len(ids)):
        for mask in np.unique(ids[image]):
            inside = ids[image] == mask
            own = labels["image_raw"][image][inside]
            voted = labels["image"][image][inside]
            if mask == 0:
                assert (voted == own).all()
                continue
            votes = np.bincount(own, minlength=16)
            best = [c for c in range(16) if votes[c] == votes.max()]
            assert len(np.unique(voted)) == 1
            assert voted[0] in best
            if len(best) == 1:
                assert voted[0] == best[0]
    seen, columns = {}, [pairs[name][pairs["visible"] > 0] for name in ("point", "image", "row", "col")]
    for point, image, row, col in zip(*columns, strict=True):
        score = scores[image, :, row, col].max()
        if point not in seen or score > seen[point][0] + 1e-6:
            seen[point] = (score, labels["image_raw"][image, row, col], labels["image"][image, row, col])
    unseen = np.setdiff1d(np.arange(len(labels["point"])), list(seen))
    assert (labels["point"][unseen] == 255).all()
    agree = [labels["point_raw"][p] == raw and labels["point"][p] == voted for p, (_, raw, voted) in seen.items()]
    assert np.mean(agree) > 0.99  # two cameras within rounding of each other may swap


def test_a_second_run_does_nothing_and_takes_no_cluster(made: Path, cache: Path, labelgen) -> None:
    before = checksums(cache)
    done = labelgen.run(made / "nuscenes", cache, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["shards_done"], summary["shards_kept"], summary["groups_sealed"]) == (0, 3, {})
    assert summary["samples_labelled"] == 5
    assert summary["wall_over_teachers"] is None
    assert checksums(cache) == before


def test_nothing_is_left_in_home(finished: Path, labelgen) -> None:
    assert list((labelgen.made / "home").iterdir()) == []
