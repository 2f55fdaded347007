"""The SAM teacher against the stock mask generator, and mask ids, cropping and int8 against loops."""

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam
from segment_anything.utils.amg import remove_small_regions as stock_small_regions

from cache_schemas.errors import ConfigError
from labelgen.settings import SamSettings
from labelgen.teachers.sam import mask_measures, mask_suppression
from labelgen.teachers.sam.box_bounds import bound_boxes, cut_gaps
from labelgen.teachers.sam.compilation import compiled
from labelgen.teachers.sam.mask_painting import Masks, paint_ids
from labelgen.teachers.sam.network import build_sam
from labelgen.teachers.sam.preprocessing import resize_for_sam
from labelgen.teachers.sam.prompt_decoder import PromptDecoder
from labelgen.teachers.sam.quantisation import quantise
from labelgen.teachers.sam.resampling import nearest_pixels
from labelgen.teachers.sam.small_regions import remove_small_regions
from labelgen.teachers.sam.teacher import SamTeacher
from pipelines.demo.layout import make_scene
from pipelines.demo.render import render_view
from pipelines.demo.sensors import make_cameras

Refused = Callable[..., AbstractContextManager[None]]
TeacherOf = Callable[..., SamTeacher]

POINTS = {"points_per_side": 2, "points_per_batch": 3}
EVERY_MASK = {"pred_iou_thresh": -100.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Run on one thread: on a busy machine threads that wait for each other cost twenty times the work itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def picture(seed: int) -> np.ndarray:
    """Return a picture of soft coloured blobs, 90 x 160."""
    blobs = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), np.uint8)
    return np.asarray(Image.fromarray(blobs).resize((160, 90), Image.Resampling.BICUBIC))


# A network whose masks are many and differ, and thresholds that each leave some out


@pytest.fixture(scope="module")
def network() -> Sam:
    """The first untrained SAM for which there are such thresholds."""
    for seed in range(30):
        model = build_sam(SamSettings(architecture="tiny", weights=f"untrained:{seed}")).eval()
        enliven(model)
        records = stock_records(model, picture(0), EVERY_MASK)
        if len({str(record["bbox"]) for record in records}) < 3:
            continue
        counts = [len(left) for left in sifted(records, dividing(records))]
        if len(records) > counts[0] > counts[1] > counts[2] >= 3:
            return model
    raise AssertionError("no seed gives masks that differ enough; enliven the network more")


def enliven(model: Sam) -> None:
    """Make decoder masks smooth and different: an untrained decoder gives the same noise for every prompt."""
    decoder = model.mask_decoder
    with torch.no_grad():
        for index in (0, 3):
            weight = decoder.output_upscaling[index].weight
            weight.copy_(8 * weight.mean(dim=(2, 3), keepdim=True).expand_as(weight))
        for head in decoder.output_hypernetworks_mlps:
            for layer in head.layers:
                layer.weight.mul_(6)
        for layer in decoder.iou_prediction_head.layers:
            layer.weight.mul_(2)
        for parameter in decoder.transformer.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)


def stock_records(model: Sam, image: np.ndarray, thresholds: dict[str, float]) -> list[dict]:
    records: list[dict] = SamAutomaticMaskGenerator(model, **POINTS, **thresholds).generate(image)
    return records


def dividing(records: list[dict]) -> dict[str, float]:
    """Return thresholds that part the records: each lies halfway between two values that occur."""

    def between(values: list[float], share: float) -> float:
        distinct = sorted(set(values))
        place = max(1, int(share * len(distinct)))
        return (distinct[place - 1] + distinct[place]) / 2 if len(distinct) > 1 else distinct[0]

    iou = between([record["predicted_iou"] for record in records], 0.2)
    scores = [r["stability_score"] for r in records if r["predicted_iou"] > iou and r["stability_score"] >= 0]
    stability = between(scores, 0.2)
    stable = sifted(records, {**EVERY_MASK, "pred_iou_thresh": iou, "stability_score_thresh": stability})[1]
    boxes = [box_iou(a["segmentation"], b["segmentation"]) for a, b in itertools.combinations(stable, 2)]
    return {
        "pred_iou_thresh": iou,
        "stability_score_thresh": stability,
        "box_nms_thresh": between([*boxes, 0.0], 0.8),
    }


def sifted(records: list[dict], thresholds: dict[str, float]) -> tuple[list[dict], list[dict], list[dict]]:
    """Return what each of the three thresholds leaves of all masks, which come in falling order of predicted IoU."""
    sure = [record for record in records if record["predicted_iou"] > thresholds["pred_iou_thresh"]]
    stable = [record for record in sure if record["stability_score"] >= thresholds["stability_score_thresh"]]
    kept: list[dict] = []
    for record in stable:
        overlaps = [box_iou(record["segmentation"], other["segmentation"]) for other in kept]
        if all(overlap <= thresholds["box_nms_thresh"] for overlap in overlaps):
            kept.append(record)
    return sure, stable, kept


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of the boxes around two masks, from their first to their last row and column."""
    (top, left, bottom, right), (top_b, left_b, bottom_b, right_b) = (
        (*np.argwhere(mask).min(axis=0), *np.argwhere(mask).max(axis=0)) if mask.any() else (0, 0, 0, 0)
        for mask in (a, b)
    )
    height, width = min(bottom, bottom_b) - max(top, top_b), min(right, right_b) - max(left, left_b)
    shared = max(height, 0) * max(width, 0)
    return float(shared / max((bottom - top) * (right - left) + (bottom_b - top_b) * (right_b - left_b) - shared, 1))


@pytest.fixture(scope="module")
def every_record(network: Sam) -> list[dict]:
    """All masks of picture 0, by the stock generator without thresholds."""
    return stock_records(network, picture(0), EVERY_MASK)


@pytest.fixture(scope="module")
def thresholds(every_record: list[dict]) -> dict[str, float]:
    """Thresholds that each leave out some of the masks of picture 0."""
    return dividing(every_record)


@pytest.fixture(scope="module")
def teacher_of(network: Sam, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SamTeacher]:
    """Return a function that makes a teacher of the network under the given settings."""
    path = tmp_path_factory.mktemp("sam") / "lively.pth"
    torch.save(network.state_dict(), path)

    def make(**changes: object) -> SamTeacher:
        return SamTeacher(SamSettings(architecture="tiny", weights=str(path), **{**POINTS, **changes}))

    return make


@pytest.fixture(scope="module")
def teacher(teacher_of: TeacherOf, thresholds: dict[str, float]) -> SamTeacher:
    """A teacher under the thresholds that leave masks out."""
    return teacher_of(**thresholds)


# Proposals


@torch.inference_mode()
def propose(teacher: SamTeacher, *images: np.ndarray) -> list[Masks]:
    """Return the automatic masks of images of one size at that size."""
    embeddings = teacher.embed(teacher.upload([resize_for_sam(image, "tiny") for image in images]))
    return teacher.propose(embeddings, images[0].shape[:2], images[0].shape[:2])


def assert_same_masks(found: Masks, expected: list[dict]) -> None:
    """Check masks, areas, scores and order; rounding may move an edge pixel in a hundred thousand.

    A stability score counts pixels above two further thresholds, where processors round a few to other sides.
    """
    assert len(found.inside) == len(expected)
    differing = found.inside.numpy() != np.array([record["segmentation"] for record in expected])
    assert differing.mean() <= 1e-5
    for values, name, rtol in (
        (found.predicted_iou, "predicted_iou", 1e-4),
        (found.area, "area", 1e-4),
        (found.stability, "stability_score", 1e-3),
    ):
        np.testing.assert_allclose(values, [record[name] for record in expected], rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("at_once, measured", [((64, 4096), 64), ((5, 77), 1)])
@pytest.mark.parametrize("kind", ["every mask", "some masks", "another stability offset"])
def test_proposals_are_the_stock_generators_masks_in_its_order_with_its_scores(
    network: Sam,
    teacher_of: TeacherOf,
    every_record: list[dict],
    thresholds: dict[str, float],
    kind: str,
    at_once: tuple[int, int],
    measured: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(mask_measures.AT_ONCE, "cpu", at_once)
    monkeypatch.setitem(mask_suppression.MEASURED_AT_ONCE, "cpu", measured)
    chosen = {
        "every mask": EVERY_MASK,
        "some masks": thresholds,
        "another stability offset": {**thresholds, "stability_score_offset": 0.25},
    }[kind]
    expected = every_record if kind == "every mask" else stock_records(network, picture(0), chosen)
    assert len(expected) >= 3
    teacher = teacher_of(**chosen)
    assert_same_masks(propose(teacher, picture(0))[0], expected)


def test_of_many_masks_that_repeat_a_few_half_go_unmeasured_and_none_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = {"points_per_side": 10, "pred_iou_thresh": 0.3, "stability_score_thresh": 0.3}
    teacher = SamTeacher(SamSettings(architecture="demo", weights="demo-sam", **chosen))
    street = render_view(make_scene(7, 0.0), make_cameras(7, 400, 225)[0], 0.5).rgb
    expected = SamAutomaticMaskGenerator(teacher.model, **chosen).generate(street)
    sizes: dict[str, list[int]] = {"bound_boxes": [], "measure": []}
    for name, seen in sizes.items():
        work = getattr(mask_suppression, name)
        monkeypatch.setattr(
            mask_suppression,
            name,
            lambda logits, *rest, work=work, seen=seen: seen.append(len(logits)) or work(logits, *rest),
        )
    with torch.inference_mode():
        embeddings = teacher.embed(teacher.upload([resize_for_sam(street, "demo")]))
        (found,) = teacher.propose(embeddings, street.shape[:2], street.shape[:2])
    assert_same_masks(found, expected)
    assert 3 <= len(expected) <= sum(sizes["measure"]) < sum(sizes["bound_boxes"]) / 2


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    low=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    middle=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    native=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    threshold=st.floats(-1, 1),
)
def test_a_box_lies_between_its_bounds(
    seed: int, low: tuple[int, int], middle: tuple[int, int], native: tuple[int, int], threshold: float
) -> None:
    """Two interpolations, the first cut off as SAM's padding is, so that some decoder pixels show in no native one."""

    def interpolation(to: int, length: int) -> torch.Tensor:
        resized = torch.nn.functional.interpolate(torch.eye(length)[None, None], (to, length), mode="bilinear")
        return resized[0, 0]

    rows, cols = (
        interpolation(whole, -(-2 * side // 3)) @ interpolation(side, n)[: -(-2 * side // 3)]
        for whole, side, n in zip(native, middle, low, strict=True)
    )
    logits = torch.randn(6, *low, generator=torch.Generator().manual_seed(seed))
    inner, outer = bound_boxes(logits, cut_gaps(rows), cut_gaps(cols), threshold)
    for mask, within, around in zip(rows @ logits @ cols.T > threshold, inner.tolist(), outer.tolist(), strict=True):
        if not mask.any():
            assert within == [np.inf, np.inf, -np.inf, -np.inf]
            continue
        (top, left), (bottom, right) = (bound.tolist() for bound in (mask.nonzero().amin(0), mask.nonzero().amax(0)))
        box = [left, top, right, bottom]
        assert all(out <= edge <= true for out, edge, true in zip(around[:2], box[:2], within[:2], strict=True))
        assert all(out >= edge >= true for out, edge, true in zip(around[2:], box[2:], within[2:], strict=True))


@pytest.mark.parametrize("points_per_batch", [3, 8, 100])
def test_pictures_that_share_a_batch_get_their_own_masks(
    network: Sam, teacher_of: TeacherOf, thresholds: dict[str, float], points_per_batch: int
) -> None:
    # A picture has 4 points: batches of less than one picture, of two, of all three.
    pictures = [picture(seed) for seed in (0, 1, 2)]
    found = propose(teacher_of(**thresholds, points_per_batch=points_per_batch), *pictures)
    assert len({len(masks.inside) for masks in found}) > 1
    for masks, image in zip(found, pictures, strict=True):
        assert_same_masks(masks, stock_records(network, image, thresholds))


@torch.inference_mode()
def test_compiling_changes_no_mask(network: Sam) -> None:
    """Of the upscaling alone, for any number of prompts: to compile all that `sam.compile` does takes two minutes."""

    def fuse(work: Callable[..., Any], dynamic: bool | None = None) -> Callable[..., Any]:
        return compiled(work, dynamic) if dynamic else work

    points = torch.rand(7, 2, generator=torch.manual_seed(0)) * 500
    embeddings = torch.randn(1, 256, 64, 64, generator=torch.manual_seed(1))
    plain, fused = PromptDecoder(network, rows=36), PromptDecoder(network, rows=36, fuse=fuse)
    answers = plain.answer(embeddings, points)
    for wanted in (torch.tensor([0, 2, 2, 6]), torch.arange(7)):
        expected = plain.masks(answers, wanted, wanted % 3)
        largest = (fused.masks(answers, wanted, wanted % 3) - expected).abs().max() / expected.abs().max()
        assert expected.std() > 0
        assert largest < 1e-5


def test_compiling_without_a_compiler_is_one_error(
    teacher_of: TeacherOf, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with refused(ConfigError, "sam.compile=true", "'no-such-compiler'", "install one, name it in CXX, or say false"):
        teacher_of(compile=True)


def test_bf16_moves_few_pixels() -> None:
    # Small, as most CPUs emulate bf16; every mask kept, as one at a threshold may fall to either side.
    trained = SamSettings(architecture="demo", weights="demo-sam", points_per_side=4, **EVERY_MASK)
    image = picture(0)
    stock = SamAutomaticMaskGenerator(build_sam(trained).eval(), points_per_side=4, **EVERY_MASK).generate(image)
    teacher = SamTeacher(trained, precision=torch.bfloat16)
    with torch.inference_mode():
        embeddings = teacher.embed(teacher.upload([resize_for_sam(image, "demo")]))
        (found,) = teacher.propose(embeddings, image.shape[:2], image.shape[:2])
    assert len(found.inside) == len(stock) == 3 * 4 * 4
    differing = found.inside.numpy()[:, None] != np.array([record["segmentation"] for record in stock])
    assert differing.mean(axis=(2, 3)).min(axis=0).mean() < 0.01


def test_each_threshold_leaves_out_what_it_should(
    teacher: SamTeacher, every_record: list[dict], thresholds: dict[str, float]
) -> None:
    sure, stable, kept = sifted(every_record, thresholds)
    assert 3 * 2 * 2 == len(every_record) > len(sure) > len(stable) > len(kept) >= 3
    assert_same_masks(propose(teacher, picture(0))[0], kept)


@pytest.mark.parametrize("least", [40, 400, 5000])
def test_small_regions_are_removed_as_the_stock_generator_does(
    network: Sam, teacher_of: TeacherOf, thresholds: dict[str, float], least: int
) -> None:
    # Masks whose boxes differ hardly: after the removal some repeat others.
    chosen = {**EVERY_MASK, "box_nms_thresh": 0.99, "stability_score_offset": 0.25, "min_mask_region_area": least}
    untouched = stock_records(network, picture(0), {**chosen, "min_mask_region_area": 0})
    expected = stock_records(network, picture(0), chosen)
    assert [r["area"] for r in expected] != [r["area"] for r in untouched]
    assert_same_masks(propose(teacher_of(**chosen), picture(0))[0], expected)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), side=st.integers(2, 24), fill=st.floats(0.02, 0.98), least=st.integers(1, 300))
def test_any_mask_is_tidied_in_its_box_as_the_stock_function_does_it_in_the_whole(
    seed: int, side: int, fill: float, least: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((side, 20), bool)
    top, left = rng.integers(0, side), rng.integers(0, 20)
    part = mask[top : rng.integers(top, side) + 1, left : rng.integers(left, 20) + 1]
    part[...] = rng.random(part.shape) < fill
    if not mask.any():
        return
    (rows, cols) = np.nonzero(mask)
    box = torch.tensor([cols.min(), rows.min(), cols.max(), rows.max()]).float()
    logits = torch.from_numpy(np.where(mask, 1.0, -1.0)).float()
    found = remove_small_regions(logits, box, torch.eye(side), torch.eye(20), least)
    filled, with_holes = stock_small_regions(mask, least, "holes")
    islands = np.sort(np.bincount(ndimage.label(filled, np.ones((3, 3)))[0].ravel())[1:])
    assume(len(islands) < 2 or islands[-1] >= least or islands[-1] > islands[-2])  # which of two equal ones is chance
    expected, with_islands = stock_small_regions(filled, least, "islands")
    np.testing.assert_array_equal(found.inside, expected)
    assert found.changed == (with_holes or with_islands)


@pytest.mark.parametrize("name, value", [("pred_iou_thresh", 1000.0), ("stability_score_thresh", 1.5)])
def test_thresholds_that_leave_no_mask_give_pictures_without_masks(
    teacher_of: TeacherOf, name: str, value: float
) -> None:
    teacher = teacher_of(**{**EVERY_MASK, name: value})
    result = teacher.run([resize_for_sam(picture(0), "tiny")], (9, 16))
    assert result.mask_ids.tolist() == np.zeros((1, 9, 16)).tolist()
    assert result.features.any()


def test_embeddings_are_those_that_the_stock_predictor_computes_one_by_one(teacher: SamTeacher) -> None:
    images = [picture(0), picture(1)]
    found = teacher.embed(teacher.upload([resize_for_sam(image, "tiny") for image in images]))
    assert found.shape == (2, 256, 64, 64)
    predictor = SamPredictor(teacher.model)
    for index, image in enumerate(images):
        predictor.set_image(image)
        np.testing.assert_allclose(found[index].numpy(), predictor.get_image_embedding()[0].numpy(), atol=1e-4)


def test_a_run_paints_each_picture_by_itself_and_keeps_its_features(teacher_of: TeacherOf) -> None:
    images, size = [picture(0), picture(1)], (56, 104)
    teacher = teacher_of(**EVERY_MASK)
    pictures = [resize_for_sam(image, "tiny") for image in images]
    result = teacher.run(pictures, size)
    assert (result.mask_ids.shape, result.mask_ids.dtype) == ((2, *size), np.uint16)
    assert (result.features.shape, result.features.dtype) == ((2, 36, 64, 256), np.int8)
    assert result.features_scale is not None
    assert (result.features_scale.shape, result.features_scale.dtype) == ((2, 256), np.float32)
    embeddings = teacher.embed(teacher.upload(pictures))
    for index, image in enumerate(images):
        masks = list(propose(teacher, image)[0].inside.numpy())
        np.testing.assert_array_equal(result.mask_ids[index], painted(masks, size))
        assert len(np.unique(result.mask_ids[index])) >= 3
    assert (result.mask_ids[0] != result.mask_ids[1]).any()
    valid = embeddings[:, :, :36, :64].permute(0, 2, 3, 1).numpy()
    restored = result.features * result.features_scale[:, None, None]
    steps = np.broadcast_to(result.features_scale[:, None, None], valid.shape)
    assert (np.abs(restored - valid) <= 0.5 * steps + 1e-4).all()


def test_float16_features_are_the_embedding_without_a_scale(teacher_of: TeacherOf) -> None:
    teacher = teacher_of(features="float16", points_per_side=1)
    image = resize_for_sam(picture(2), "tiny")
    result = teacher.run([image], (45, 80))
    assert result.features_scale is None
    assert (result.features.shape, result.features.dtype) == ((1, 36, 64, 256), np.float16)
    valid = teacher.embed(teacher.upload([image]))[:, :, :36, :64].permute(0, 2, 3, 1).numpy()
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
    teacher: SamTeacher, native: tuple[int, int], valid: tuple[int, int]
) -> None:
    # The longer side becomes 1024 pixels, or 64 positions of 16 pixels; a position that the picture touches counts.
    embeddings = torch.arange(2 * 3 * 64 * 64, dtype=torch.float32).reshape(2, 3, 64, 64)
    found = teacher.valid_part(embeddings, resize_for_sam(np.zeros((*native, 3), np.uint8), "tiny").pixels.shape[:2])
    assert found.shape == (2, *valid, 3)
    for batch, row, col, channel in ((0, 0, 0, 0), (1, valid[0] - 1, valid[1] - 1, 2), (0, 5, 7, 1)):
        assert found[batch, row, col, channel] == embeddings[batch, channel, row, col]


# Painting ids


def block(size: tuple[int, int], rows: slice, cols: slice) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[rows, cols] = True
    return mask


def painted_by_us(masks: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Paint native masks at another size."""
    inside = np.array([nearest_pixels(mask, size) for mask in masks], bool).reshape(-1, *size)
    return paint_ids(torch.from_numpy(inside), torch.tensor([mask.sum() for mask in masks])).numpy()


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
    assert painted_by_us([large, small], (3, 4)).tolist() == expected
    assert painted_by_us([small, large], (3, 4)).tolist() == expected


def test_masks_of_equal_area_keep_the_order_they_came_in() -> None:
    left = block((1, 4), slice(0, 1), slice(0, 2))
    middle = block((1, 4), slice(0, 1), slice(1, 3))
    right = block((1, 4), slice(0, 1), slice(2, 4))
    assert painted_by_us([left, middle, right], (1, 4)).tolist() == [[1, 2, 3, 3]]
    assert painted_by_us([right, middle, left], (1, 4)).tolist() == [[3, 3, 2, 1]]


def test_areas_count_at_native_size_not_at_the_painted_one() -> None:
    # Both masks fill the one painted pixel of the left half; the wide one is larger where it was found.
    wide = block((4, 8), slice(0, 4), slice(0, 4))
    narrow = block((4, 8), slice(1, 3), slice(1, 3))
    assert painted_by_us([narrow, wide], (1, 2)).tolist() == [[2, 0]]


def test_downsampling_takes_the_native_pixel_under_each_centre() -> None:
    # From 6 to 3 columns the centres 0.5, 1.5, 2.5 lie at native 1, 3, 5; from 5 to 2 at 1.25 and 3.75.
    assert nearest_pixels(np.arange(6)[None], (1, 3)).tolist() == [[1, 3, 5]]
    assert nearest_pixels(np.arange(5)[None], (1, 2)).tolist() == [[1, 3]]
    assert nearest_pixels(np.arange(6).reshape(3, 2), (1, 2)).tolist() == [[2, 3]]
    only_odd = np.array([[False, True, False, True, False, False]])
    assert painted_by_us([only_odd], (1, 3)).tolist() == [[1, 1, 0]]


def test_upsampling_repeats_pixels() -> None:
    assert nearest_pixels(np.array([[7, 9]]), (2, 4)).tolist() == [[7, 7, 9, 9], [7, 7, 9, 9]]


def test_no_masks_leave_every_pixel_at_0() -> None:
    assert painted_by_us([], (2, 3)).tolist() == [[0, 0, 0], [0, 0, 0]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 7), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_ids_equal_a_pixel_by_pixel_painter(seed: int, masks: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    chosen = [rng.random((5, 7)) < rng.choice([0.1, 0.4, 0.5, 0.9]) for _ in range(masks)]
    np.testing.assert_array_equal(painted_by_us(chosen, size), painted(chosen, size))


# int8 features


def quantised_by_us(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    quantised, scale = quantise(torch.from_numpy(features))
    return quantised.numpy(), scale.numpy()


def test_int8_by_hand() -> None:
    features = np.zeros((1, 1, 2, 3), np.float32)
    features[0, 0, :, 0] = (254, -100)
    features[0, 0, :, 1] = (-1.27, 0.636)
    quantised, scale = quantised_by_us(features)
    assert scale == pytest.approx(np.array([[2, 0.01, 0]]))
    assert quantised[0, 0].T.tolist() == [[127, -50], [-127, 64], [0, 0]]


def test_int8_features_point_where_the_embedding_does() -> None:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(2, 36, 64, 256)) * rng.uniform(0.01, 5, 256)).astype(np.float32)
    quantised, scale = quantised_by_us(features)
    assert (quantised.dtype, scale.dtype) == (np.int8, np.float32)
    restored = (quantised * scale[:, None, None]).astype(np.float64)
    cosine = (restored * features).sum(axis=-1) / (
        np.linalg.norm(restored, axis=-1) * np.linalg.norm(features, axis=-1)
    )
    assert 1 - cosine.min() < 1e-4


def test_channels_of_zeros_stay_zeros() -> None:
    features = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    features[..., 2] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantised, scale = quantised_by_us(features)
    assert scale[0, 2] == 0 and (np.delete(scale[0], 2) > 0).all()
    assert (quantised[..., 2] == 0).all()
    assert np.isfinite(quantised * scale[:, None, None]).all()


def test_each_picture_has_its_own_scale() -> None:
    features = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    quantised, scale = quantised_by_us(np.concatenate([features, 10 * features]))
    np.testing.assert_allclose(scale[1], 10 * scale[0], rtol=1e-6)
    np.testing.assert_array_equal(quantised[0], quantised[1])
