"""The SAM teacher against the stock mask generator, and mask ids, cropping and int8 against loops."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, SamPredictor

from labelgen.errors import ConfigError
from labelgen.settings import SamSettings
from labelgen.teachers.masks import MaskProposal, nearest_pixels, paint_ids
from labelgen.teachers.sam import SamTeacher, build_sam, quantise

Refused = Callable[..., AbstractContextManager[None]]
Lively = Callable[..., SamTeacher]

NATIVE = (90, 160)
EVERY_MASK = {"pred_iou_thresh": -100.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
SOME_MASKS = {"pred_iou_thresh": 0.65, "stability_score_thresh": 0.3, "box_nms_thresh": 0.95}


@pytest.fixture(scope="session")
def sam_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of a tiny SAM whose masks are many, differ, and come with scores that differ.

    An untrained decoder gives noise over the whole picture: here its upscaling is made smooth, its attention and its
    heads stronger, and an offset in one channel keeps masks from covering everything.
    """
    model = build_sam(SamSettings(architecture="tiny", weights="untrained:0"))
    decoder = model.mask_decoder
    with torch.no_grad():
        for index in (0, 3):
            weight = decoder.output_upscaling[index].weight
            weight.copy_(8 * weight.mean(dim=(2, 3), keepdim=True).expand_as(weight))
        decoder.output_upscaling[3].weight[:, 0] = 0
        decoder.output_upscaling[3].bias[0] = 1
        for head in decoder.output_hypernetworks_mlps:
            for layer in head.layers:
                layer.weight.mul_(6)
            head.layers[-1].weight[0] = 0
            head.layers[-1].bias[0] = -1
        for layer in decoder.iou_prediction_head.layers:
            layer.weight.mul_(2)
        for parameter in decoder.transformer.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    path = tmp_path_factory.mktemp("sam") / "lively.pth"
    torch.save(model.state_dict(), path)
    return str(path)


@pytest.fixture(scope="session")
def teacher_of(sam_weights: str) -> Lively:
    """Return a function that makes a teacher of the lively weights under the given settings."""

    def make(**changes: object) -> SamTeacher:
        chosen = {"points_per_side": 3, "points_per_batch": 4, **SOME_MASKS, **changes}
        return SamTeacher(SamSettings(architecture="tiny", weights=sam_weights, **chosen))

    return make


@pytest.fixture(scope="session")
def some_masks(teacher_of: Lively) -> SamTeacher:
    """A teacher whose three thresholds all leave something out."""
    return teacher_of()


def picture(seed: int, size: tuple[int, int] = NATIVE) -> np.ndarray:
    """Return a picture of soft coloured blobs."""
    blobs = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), np.uint8)
    return np.asarray(Image.fromarray(blobs).resize(size[::-1], Image.Resampling.BICUBIC))


@pytest.fixture(scope="session")
def stock_masks(sam_weights: str) -> Callable[..., list[dict]]:
    """Return a function that runs the stock generator, once for each picture and thresholds."""
    model = build_sam(SamSettings(architecture="tiny", weights=sam_weights)).eval()
    made: dict[str, list[dict]] = {}

    def run(seed: int, **thresholds: float) -> list[dict]:
        key = f"{seed} {thresholds}"
        if key not in made:
            generator = SamAutomaticMaskGenerator(model, points_per_side=3, points_per_batch=4, **thresholds)
            made[key] = generator.generate(picture(seed))
        return made[key]

    return run


# Proposals


@pytest.mark.parametrize(
    "thresholds",
    [EVERY_MASK, SOME_MASKS, {**SOME_MASKS, "stability_score_offset": 0.3}],
    ids=["every mask", "some masks", "another stability offset"],
)
def test_proposals_are_the_stock_generators_masks_in_its_order_with_its_scores(
    teacher_of: Lively, stock_masks: Callable[..., list[dict]], thresholds: dict[str, float]
) -> None:
    teacher, image = teacher_of(**thresholds), picture(0)
    expected = stock_masks(0, **thresholds)
    assert len(expected) >= 4
    found = teacher.propose(image, teacher.embed([image])[0])
    np.testing.assert_array_equal([proposal.inside for proposal in found], [r["segmentation"] for r in expected])
    np.testing.assert_array_equal(
        [proposal.predicted_iou for proposal in found], [r["predicted_iou"] for r in expected]
    )
    np.testing.assert_array_equal(
        [proposal.stability_score for proposal in found], [r["stability_score"] for r in expected]
    )


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of the boxes around two masks, from their first to their last row and column."""
    (top, left, bottom, right), (top_b, left_b, bottom_b, right_b) = (
        (*np.argwhere(mask).min(axis=0), *np.argwhere(mask).max(axis=0)) for mask in (a, b)
    )
    height, width = min(bottom, bottom_b) - max(top, top_b), min(right, right_b) - max(left, left_b)
    shared = max(height, 0) * max(width, 0)
    return shared / ((bottom - top) * (right - left) + (bottom_b - top_b) * (right_b - left_b) - shared)


def test_each_threshold_leaves_out_what_it_should(
    some_masks: SamTeacher, stock_masks: Callable[..., list[dict]]
) -> None:
    every = stock_masks(0, **EVERY_MASK)
    assert len(every) == 3 * 3 * 3
    sure = [record for record in every if record["predicted_iou"] > 0.65]
    stable = [record for record in sure if record["stability_score"] >= 0.3]
    kept: list[dict] = []
    for record in stable:  # in falling order of predicted IoU
        if all(box_iou(record["segmentation"], other["segmentation"]) <= 0.95 for other in kept):
            kept.append(record)
    assert len(every) > len(sure) > len(stable) > len(kept) >= 4
    image = picture(0)
    found = some_masks.propose(image, some_masks.embed([image])[0])
    np.testing.assert_array_equal([proposal.inside for proposal in found], [r["segmentation"] for r in kept])


def test_embeddings_are_those_that_the_stock_predictor_computes_one_by_one(some_masks: SamTeacher) -> None:
    images = [picture(0), picture(1)]
    found = some_masks.embed(images)
    assert found.shape == (2, 256, 64, 64)
    predictor = SamPredictor(some_masks.model)
    for index, image in enumerate(images):
        predictor.set_image(image)
        np.testing.assert_array_equal(found[index].numpy(), predictor.get_image_embedding()[0].numpy())


def test_a_run_paints_each_picture_by_itself_and_keeps_its_features(
    some_masks: SamTeacher, stock_masks: Callable[..., list[dict]]
) -> None:
    images, size = [picture(0), picture(1)], (56, 104)
    result = some_masks.run(images, size)
    assert (result.mask_ids.shape, result.mask_ids.dtype) == ((2, *size), np.uint16)
    assert (result.features.shape, result.features.dtype) == ((2, 36, 64, 256), np.int8)
    assert result.features_scale is not None
    assert (result.features_scale.shape, result.features_scale.dtype) == ((2, 256), np.float32)
    for index in range(2):
        masks = [record["segmentation"] for record in stock_masks(index, **SOME_MASKS)]
        assert len(masks) >= 3
        np.testing.assert_array_equal(result.mask_ids[index], painted(masks, size))
    assert (result.mask_ids[0] != result.mask_ids[1]).any()
    valid = some_masks.embed(images)[:, :, :36, :64].permute(0, 2, 3, 1).numpy()
    restored = result.features * result.features_scale[:, None, None]
    steps = np.broadcast_to(result.features_scale[:, None, None], valid.shape)
    assert (np.abs(restored - valid) <= 0.5 * steps + 1e-4).all()


def test_float16_features_are_the_embedding_without_a_scale(teacher_of: Lively) -> None:
    teacher = teacher_of(features="float16", points_per_side=1)
    image = picture(2)
    result = teacher.run([image], (45, 80))
    assert result.features_scale is None
    assert (result.features.shape, result.features.dtype) == ((1, 36, 64, 256), np.float16)
    valid = teacher.embed([image])[:, :, :36, :64].permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(result.features, valid, rtol=1e-3, atol=1e-4)


def test_an_unknown_architecture_lists_the_known_ones(refused: Refused) -> None:
    with refused(ConfigError, "'vit_z'", "vit_b, vit_l, vit_h, tiny"):
        SamTeacher(SamSettings(architecture="vit_z", weights="untrained:0"))


# The valid part of an embedding


@pytest.mark.parametrize(
    "native, valid",
    [
        *(((900, 1600), (36, 64)), ((1600, 900), (64, 36)), ((480, 480), (64, 64))),
        *(((968, 1296), (48, 64)), ((480, 640), (48, 64)), ((90, 160), (36, 64)), ((376, 1241), (20, 64))),
    ],
    ids=str,
)
def test_the_valid_part_is_where_the_picture_lies_in_sams_square(
    some_masks: SamTeacher, native: tuple[int, int], valid: tuple[int, int]
) -> None:
    # The longer side becomes 1024 pixels, or 64 positions of 16 pixels; a position that the picture touches counts.
    embeddings = torch.arange(2 * 3 * 64 * 64, dtype=torch.float32).reshape(2, 3, 64, 64)
    found = some_masks.valid_part(embeddings, native)
    assert found.shape == (2, *valid, 3)
    for batch, row, col, channel in ((0, 0, 0, 0), (1, valid[0] - 1, valid[1] - 1, 2), (0, 5, 7, 1)):
        assert found[batch, row, col, channel] == embeddings[batch, channel, row, col]


# Painting ids


def block(size: tuple[int, int], rows: slice, cols: slice) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[rows, cols] = True
    return mask


def proposals(*masks: np.ndarray) -> list[MaskProposal]:
    return [MaskProposal(mask, 1.0, 1.0) for mask in masks]


def painted(masks: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Paint pixel by pixel: of the masks at the native pixel under a centre, the last in painting order shows."""
    order = sorted(range(len(masks)), key=lambda index: (-int(masks[index].sum()), index))
    ids = np.zeros(size, np.uint16)
    for row in range(size[0]):
        for col in range(size[1]):
            for rank, index in enumerate(order, start=1):
                height, width = masks[index].shape
                if masks[index][int((row + 0.5) * height / size[0]), int((col + 0.5) * width / size[1])]:
                    ids[row, col] = rank
    return ids


def test_a_mask_inside_another_shows_whichever_came_first() -> None:
    large = block((3, 4), slice(0, 3), slice(0, 3))
    small = block((3, 4), slice(1, 2), slice(1, 3))
    expected = [[1, 1, 1, 0], [1, 2, 2, 0], [1, 1, 1, 0]]
    assert paint_ids(proposals(large, small), (3, 4)).tolist() == expected
    assert paint_ids(proposals(small, large), (3, 4)).tolist() == expected


def test_masks_of_equal_area_keep_the_order_they_came_in() -> None:
    left = block((1, 4), slice(0, 1), slice(0, 2))
    middle = block((1, 4), slice(0, 1), slice(1, 3))
    right = block((1, 4), slice(0, 1), slice(2, 4))
    assert paint_ids(proposals(left, middle, right), (1, 4)).tolist() == [[1, 2, 3, 3]]
    assert paint_ids(proposals(right, middle, left), (1, 4)).tolist() == [[3, 3, 2, 1]]


def test_areas_count_at_native_size_not_at_the_painted_one() -> None:
    # Both masks fill the one painted pixel of the left half; the wide one is larger where it was found.
    wide = block((4, 8), slice(0, 4), slice(0, 4))
    narrow = block((4, 8), slice(1, 3), slice(1, 3))
    assert paint_ids(proposals(narrow, wide), (1, 2)).tolist() == [[2, 0]]


def test_downsampling_takes_the_native_pixel_under_each_centre() -> None:
    # From 6 to 3 columns the centres 0.5, 1.5, 2.5 lie at native 1, 3, 5; from 5 to 2 at 1.25 and 3.75.
    assert nearest_pixels(np.arange(6)[None], (1, 3)).tolist() == [[1, 3, 5]]
    assert nearest_pixels(np.arange(5)[None], (1, 2)).tolist() == [[1, 3]]
    assert nearest_pixels(np.arange(6).reshape(3, 2), (1, 2)).tolist() == [[2, 3]]
    only_odd = np.array([[False, True, False, True, False, False]])
    assert paint_ids(proposals(only_odd), (1, 3)).tolist() == [[1, 1, 0]]


def test_upsampling_repeats_pixels() -> None:
    assert nearest_pixels(np.array([[7, 9]]), (2, 4)).tolist() == [[7, 7, 9, 9], [7, 7, 9, 9]]


def test_no_masks_leave_every_pixel_at_0() -> None:
    ids = paint_ids([], (2, 3))
    assert ids.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert ids.dtype == np.uint16


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 7), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_ids_equal_a_pixel_by_pixel_painter(seed: int, masks: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    chosen = [rng.random((5, 7)) < rng.choice([0.1, 0.4, 0.5, 0.9]) for _ in range(masks)]
    np.testing.assert_array_equal(paint_ids(proposals(*chosen), size), painted(chosen, size), strict=True)


# int8 features


def test_int8_by_hand() -> None:
    features = np.zeros((1, 1, 2, 3), np.float32)
    features[0, 0, :, 0] = (254, -100)
    features[0, 0, :, 1] = (-1.27, 0.636)
    quantised, scale = quantise(features)
    assert scale == pytest.approx(np.array([[2, 0.01, 0]]))
    assert quantised[0, 0].T.tolist() == [[127, -50], [-127, 64], [0, 0]]


def test_int8_features_point_where_the_embedding_does() -> None:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(2, 36, 64, 256)) * rng.uniform(0.01, 5, 256)).astype(np.float32)
    quantised, scale = quantise(features)
    assert (quantised.dtype, scale.dtype) == (np.int8, np.float32)
    restored = (quantised * scale[:, None, None]).astype(np.float64)
    cosine = (restored * features).sum(axis=-1) / (
        np.linalg.norm(restored, axis=-1) * np.linalg.norm(features, axis=-1)
    )
    assert 1 - cosine.min() < 1e-4


def test_channels_of_zeros_stay_zeros() -> None:
    features = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    features[..., 2] = 0
    quantised, scale = quantise(features)
    assert scale[0, 2] == 0 and (np.delete(scale[0], 2) > 0).all()
    assert (quantised[..., 2] == 0).all()
    assert np.isfinite(quantised * scale[:, None, None]).all()


def test_each_picture_has_its_own_scale() -> None:
    features = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    quantised, scale = quantise(np.concatenate([features, 10 * features]))
    np.testing.assert_allclose(scale[1], 10 * scale[0], rtol=1e-6)
    np.testing.assert_array_equal(quantised[0], quantised[1])
