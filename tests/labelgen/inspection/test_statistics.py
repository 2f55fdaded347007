"""Statistics of the audit against counts by hand: labels, points, masks, CLIP scores, true segments."""

from pathlib import Path

import numpy as np
import pytest

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.inspection.counting import statistics
from labelgen.inspection.counting.statistics import best_ious, count_together

CAR, TREE = 0, 2


def test_labels_are_counted_before_and_after_the_vote(ten_shards: str, report) -> None:
    labels = report(ten_shards)["labels"]["image"]
    # 10 samples x 48 pixels, half of them car in raw labels; a quarter of all is road called tree.
    assert labels["raw"] == {"car": 240, "road": 120, "tree": 120, "ignore": 0}
    assert labels["refined"] == {"car": 216, "road": 240, "tree": 24, "ignore": 0}
    # The vote changes 12 pixels of each sample, and in s9 the 24 of cars as well.
    assert labels["changed"] == pytest.approx((9 * 12 + 36) / 480)
    assert labels["flow"][TREE] == [0, 120, 0, 0]


def test_points_masks_and_scores_are_counted(ten_shards: str, report) -> None:
    found = report(ten_shards, "--sample", "s0-0")
    assert found["points"]["by_cameras"] == {"0": 1, "1": 2, "2+": 1}
    assert found["points"]["pairs"] == 4
    # Points 0 and 1 lie on cars, point 2 at column 3 on the road; (1, 1) and (2, 2) are both car.
    assert found["points"]["camera_disagreement"] == 0
    assert found["points"]["pair_agreement"] == 1
    assert found["masks"]["per_image"] | {"histogram": 0} == {"mean": 2, "min": 2, "max": 2, "histogram": 0}
    assert found["masks"]["covered_share"] == 1
    assert [part["masks"] for part in found["masks"]["by_share"]] == [0] * 8 + [4]
    assert found["scores"]["entropy"]["mean"] == pytest.approx(0, abs=1e-6)
    assert found["scores"]["margin"]["histogram"][-1] == found["scores"]["patches"] == 4


def test_equal_scores_of_all_classes_have_full_entropy(tmp_path: Path, make_cache, sample, report) -> None:
    found = report(make_cache(tmp_path / "c.zarr", {"s": [sample(logits=0.2)]}))
    assert found["scores"]["entropy"]["mean"] == pytest.approx(1, abs=1e-6)
    assert found["scores"]["margin"]["mean"] == 0


def test_cameras_that_see_a_point_with_different_labels_disagree(tmp_path: Path, make_cache, sample, report) -> None:
    voted = np.stack([np.full((4, 6), CAR), np.full((4, 6), TREE)])
    found = report(make_cache(tmp_path / "c.zarr", {"s": [sample(voted=voted)]}))
    assert found["points"]["camera_disagreement"] == 1
    assert found["points"]["pair_agreement"] == pytest.approx(3 / 4), "the second camera of point 1 says tree"


def test_hidden_pairs_are_counted_and_left_out(tmp_path: Path, make_cache, sample, report) -> None:
    voted = np.stack([np.full((4, 6), CAR), np.full((4, 6), TREE)])
    cache, path = Cache(make_cache(tmp_path / "c.zarr", {"s": [sample(voted=voted)]}), "a"), GroupPath("s-000", "pairs")
    seal = cache.seals([path])[path]
    hidden = {"visible": np.array([1, 1, 0, 1], np.uint8)}  # the second camera of point 1 does not see it
    cache.write_group(
        path, cache.read(path) | hidden, Provenance(seal.fingerprint, upstream=seal.upstream, samples=seal.samples)
    )
    found = report(cache.url)["points"]
    assert (found["pairs"], found["hidden_pairs"]) == (4, 1)
    assert found["by_cameras"] == {"0": 1, "1": 3, "2+": 0}
    assert found["pair_agreement"] == 1


def test_each_true_segment_gets_its_best_iou_with_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SMALLEST_SEGMENT_PX", 2)
    segments = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 3, 2]], np.uint16)
    masks = np.array([[7, 7, 0, 5], [7, 0, 0, 5], [7, 7, 5, 5]], np.uint16)
    # Segment 1: 4 px, mask 7 has 5, 3 shared: 3/6. Segment 2: 5 px, mask 5 has 4, 3 shared: 3/6. Segment 3: too small.
    assert best_ious(segments, masks).tolist() == [[0.5, 0.5], [4 / 12, 5 / 12]]


def test_a_segment_under_no_mask_has_an_iou_of_zero() -> None:
    segments = np.ones((20, 20), np.uint16)
    assert best_ious(segments, np.zeros((20, 20), np.uint16)).tolist() == [[0.0], [1.0]]
    assert best_ious(segments, segments).tolist() == [[1.0], [1.0]]
    assert best_ious(np.zeros((20, 20), np.uint16), segments).tolist() == [[], []]


def test_ids_that_are_no_class_are_refused() -> None:
    with pytest.raises(ValueError, match="label id 3 is neither below 3 nor 255"):
        count_together(np.array([0, 3], np.uint8), np.array([0, 0], np.uint8), 3)
