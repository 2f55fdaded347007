"""The sources of targets, and how labels move between modalities at the pairs."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from cache_schemas.errors import ConfigError
from trainer.data.batch import Batch
from trainer.method_settings import ScheduleSettings, Source, StageSettings
from trainer.schedule import TargetSources, draw_sources
from trainer.settings import load_settings
from trainer.targets import Predictions, make_targets, pixel_target, point_target

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
        image_crop=torch.tensor([[0.0, 0.0, 1.0, 1.0]]),
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


def test_without_refinement_predictions_stay_as_they_are(batch: Batch, own: Predictions) -> None:
    assert pixel_target(Source.OWN_2D, batch, own, 3, refine=False) is own.pixels
    split = Predictions(own.pixels, u8([2, 1, 0, 2]))
    assert point_target(Source.OWN_3D, batch, split, 3, refine=False).tolist() == [2, 1, 0, 255]


@pytest.mark.parametrize(
    ("image", "cloud", "pixels", "points"),
    [
        (Source.CLIP_2D, Source.CLIP_3D, [[[10, 20, 30], [40, 50, 60]]], [1, 2, 3, 0]),
        (Source.CLIP_3D, Source.CLIP_2D, [[[1, 255, 3], [2, 255, 1]]], [10, 40, 30, 255]),
        (Source.OWN_2D, Source.OWN_3D, None, None),
    ],
)
def test_confidence_moves_with_cached_labels(batch: Batch, own: Predictions, image, cloud, pixels, points) -> None:
    sure = replace(batch, pixel_confidence=u8([[[10, 20, 30], [40, 50, 60]]]), point_confidence=u8([1, 2, 3, 0]))
    found = make_targets(TargetSources(image, cloud), sure, own, 3, refine=True)
    of_pixels, of_points = found.pixel_confidence, found.point_confidence
    assert (None if of_pixels is None else of_pixels.tolist()) == pixels
    assert (None if of_points is None else of_points.tolist()) == points


# The draw


def schedule(recipe: str, stage2_epoch: int = 3) -> ScheduleSettings:
    return load_settings("demo", recipe, None, [f"schedule.stage2_epoch={stage2_epoch}"]).schedule


def draws(recipe: str) -> tuple[Counter, Counter]:
    of_recipe = schedule(recipe)
    drawn = [draw_sources(of_recipe, 0, 5, step) for step in range(4000)]
    return Counter(draw.image for draw in drawn), Counter(draw.cloud for draw in drawn)


def test_stage_1_always_takes_clips_labels() -> None:
    of_recipe = schedule("cns")
    drawn = {draw_sources(of_recipe, 0, 2, step) for step in range(50)}
    assert {(draw.image, draw.cloud) for draw in drawn} == {(Source.CLIP_2D, Source.CLIP_3D)}


def test_stage_2_draws_all_four_sources_uniformly_for_each_network() -> None:
    image, cloud = draws("cns")
    for counts in (image, cloud):
        assert set(counts) == ALL
        assert all(count == pytest.approx(1000, abs=120) for count in counts.values())
    of_recipe = schedule("cns", 0)
    pairs = {(d.image, d.cloud) for d in (draw_sources(of_recipe, 0, 0, step) for step in range(400))}
    assert len(pairs) == 16


def test_sources_are_drawn_in_proportion_to_their_shares() -> None:
    shares = StageSettings(image={Source.CLIP_2D: 3, Source.OWN_2D: 1, Source.OWN_3D: 0})
    drawn = Counter(draw_sources(ScheduleSettings(stage1=shares), 0, 0, step).image for step in range(4000))
    assert drawn == {Source.CLIP_2D: pytest.approx(3000, abs=120), Source.OWN_2D: pytest.approx(1000, abs=120)}


def test_a_network_without_sources_has_no_target() -> None:
    assert draw_sources(ScheduleSettings(), 0, 0, 0).cloud is None


@pytest.mark.parametrize(
    ("recipe", "image", "cloud"),
    [
        ("cns-without-ct", ALL - {Source.OWN_3D}, ALL - {Source.OWN_2D}),
        ("cns-without-sct", {Source.CLIP_2D, Source.CLIP_3D}, {Source.CLIP_2D, Source.CLIP_3D}),
        ("cns-without-clip", {Source.OWN_2D, Source.OWN_3D}, {Source.OWN_2D, Source.OWN_3D}),
        ("maskclip++", {Source.CLIP_2D}, {Source.CLIP_3D}),
    ],
)
def test_ablations_leave_sources_out(recipe: str, image: set, cloud: set) -> None:
    found = draws(recipe)
    assert (set(found[0]), set(found[1])) == (image, cloud)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["schedule.stage2.image={clip-2d: 0, clip-3d: 0, own-2d: 0, own-3d: 0}"], "stage2.image has no source"),
        (["networks.image=none"], "takes targets from own-2d, but networks.image is none"),
        (["networks.image=none", "networks.cloud=none"], "both none"),
        (["schedule.stage1.cloud.clip-3d=-1"], "clip-3d = -1"),
        (["schedule.stage1.cloud.clip=1"], "clip"),
        (["terms.semantic.confidence=true", "schedule.refine=false"], "raw, imported labels and truth have none"),
        (["terms.semantic.confidence=true", "stream.label_source=mine"], "raw, imported labels and truth have none"),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_settings("demo", "cns", None, overrides)
