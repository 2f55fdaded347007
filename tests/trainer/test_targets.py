"""The sources of targets, and how labels move between modalities at the pairs."""

from collections import Counter

import pytest
import torch

from trainer.data.batch import Batch
from trainer.settings import MethodSettings
from trainer.targets import Predictions, Source, draw_sources, pixel_target, point_target, refine_points

ALL = {Source.CLIP_2D, Source.CLIP_3D, Source.OWN_2D, Source.OWN_3D}


def u8(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8)


@pytest.fixture
def batch() -> Batch:
    """One picture of 2 x 3 pixels in two masks (the last pixel in none), four points, the last one unseen.

    Points 0 and 1 lie in mask 1, point 2 in mask 2; point 0 is seen a second time, in no mask.
    """
    pairs = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 0], [0, 0, 2, 2]])
    pair_point, pair_image = torch.tensor([0, 1, 2, 0]), pairs[0]
    empty = torch.zeros(0)
    return Batch(
        batch_size=1,
        rgb=empty,
        pixel_labels=u8([[[0, 0, 1], [0, 1, 2]]]),
        mask_ids=torch.tensor([[[1, 1, 2], [1, 2, 0]]], dtype=torch.int32),
        mask_count=3,
        features={},
        features_valid={},
        scales={},
        voxels=empty,
        voxel_features=empty,
        point_voxel=empty,
        point_labels=u8([0, 2, 1, 255]),
        pair_point=pair_point,
        pair_image=pair_image,
        pair_row=torch.tensor([0, 1, 0, 1]),
        pair_col=torch.tensor([0, 0, 2, 2]),
        pair_position=empty,
        first_pair_of_point=torch.tensor([True, True, True, False]),
        first_pair_of_pixel=torch.tensor([True, True, True, True]),
    )


@pytest.fixture
def own() -> Predictions:
    """The 2D network says 2 in mask 1 but for a pixel; the 3D network disagrees within mask 1 and is even there."""
    return Predictions(u8([[[2, 2, 0], [1, 0, 1]]]), u8([1, 1, 0, 2]))


def test_clip_labels_are_cached_labels(batch: Batch, own: Predictions) -> None:
    assert pixel_target(Source.CLIP_2D, batch, own, 3, refine=True) is batch.pixel_labels
    assert point_target(Source.CLIP_3D, batch, own, 3, refine=True) is batch.point_labels


def test_labels_move_from_pixels_to_points(batch: Batch, own: Predictions) -> None:
    assert point_target(Source.CLIP_2D, batch, own, 3, refine=True).tolist() == [0, 0, 1, 255]


def test_labels_move_from_points_to_pixels(batch: Batch, own: Predictions) -> None:
    assert pixel_target(Source.CLIP_3D, batch, own, 3, refine=True).tolist() == [[[0, 255, 1], [2, 255, 0]]]


def test_own_labels_of_pixels_are_voted_in_masks(batch: Batch, own: Predictions) -> None:
    assert pixel_target(Source.OWN_2D, batch, own, 3, refine=True).tolist() == [[[2, 2, 0], [2, 0, 1]]]
    assert point_target(Source.OWN_2D, batch, own, 3, refine=True).tolist() == [2, 2, 0, 255]


def test_own_labels_of_points_are_voted_by_the_points_in_each_mask(batch: Batch, own: Predictions) -> None:
    points = Predictions(own.pixels, u8([1, 1, 0, 2]))
    assert point_target(Source.OWN_3D, batch, points, 3, refine=True).tolist() == [1, 1, 0, 255]
    split = Predictions(own.pixels, u8([2, 1, 0, 2]))
    assert point_target(Source.OWN_3D, batch, split, 3, refine=True).tolist() == [1, 1, 0, 255]
    assert pixel_target(Source.OWN_3D, batch, split, 3, refine=True).tolist() == [[[1, 255, 0], [1, 255, 2]]]
    assert refine_points(split.points, batch, 3).tolist() == [1, 1, 0, 2]


def test_without_refinement_predictions_stay_as_they_are(batch: Batch, own: Predictions) -> None:
    assert pixel_target(Source.OWN_2D, batch, own, 3, refine=False) is own.pixels
    split = Predictions(own.pixels, u8([2, 1, 0, 2]))
    assert point_target(Source.OWN_3D, batch, split, 3, refine=False).tolist() == [2, 1, 0, 255]


# The draw


def draws(**settings: object) -> tuple[Counter, Counter]:
    method = MethodSettings(stage2_epoch=3, **settings)
    drawn = [draw_sources(method, 0, 5, step) for step in range(4000)]
    return Counter(draw.image for draw in drawn), Counter(draw.cloud for draw in drawn)


def test_stage_1_always_takes_clips_labels() -> None:
    drawn = {draw_sources(MethodSettings(stage2_epoch=3), 0, 2, step) for step in range(50)}
    assert {(draw.image, draw.cloud) for draw in drawn} == {(Source.CLIP_2D, Source.CLIP_3D)}


def test_stage_2_draws_all_four_sources_uniformly_for_each_network() -> None:
    image, cloud = draws()
    for counts in (image, cloud):
        assert set(counts) == ALL
        assert all(count == pytest.approx(1000, abs=120) for count in counts.values())
    method = MethodSettings(stage2_epoch=0)
    pairs = {(d.image, d.cloud) for d in (draw_sources(method, 0, 0, step) for step in range(400))}
    assert len(pairs) == 16


@pytest.mark.parametrize(
    ("settings", "image", "cloud"),
    [
        ({"cross_training": False}, ALL - {Source.OWN_3D}, ALL - {Source.OWN_2D}),
        (
            {"cross_training": False, "self_training": False},
            {Source.CLIP_2D, Source.CLIP_3D},
            {Source.CLIP_2D, Source.CLIP_3D},
        ),
        ({"clip_in_stage2": False}, {Source.OWN_2D, Source.OWN_3D}, {Source.OWN_2D, Source.OWN_3D}),
    ],
    ids=["w/o CT", "w/o SCT", "w/o CLIP"],
)
def test_ablations_leave_sources_out(settings: dict, image: set, cloud: set) -> None:
    found = draws(**settings)
    assert (set(found[0]), set(found[1])) == (image, cloud)


def test_a_stage_2_without_sources_is_refused() -> None:
    with pytest.raises(ValueError, match="no source of targets"):
        MethodSettings(clip_in_stage2=False, self_training=False, cross_training=False)
