"""Automatic masks against the stock SamAutomaticMaskGenerator: equal masks, scores and order."""

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from demo.world.layout import make_scene
from demo.world.render import render_view
from demo.world.sensors import make_cameras
from labelgen.settings import SamSettings
from labelgen.teachers.sam import mask_measures, mask_suppression
from labelgen.teachers.sam.network import build_sam
from labelgen.teachers.sam.preprocessing import resize_for_sam
from labelgen.teachers.sam.teacher import SamTeacher
from tests.labelgen.teachers.sam_reference import (
    EVERY_MASK,
    MakeTeacher,
    assert_same_masks,
    filter_records,
    make_image,
    propose,
    stock_records,
)


@pytest.mark.parametrize("at_once, measured", [((64, 4096), 64), ((5, 77), 1)])
@pytest.mark.parametrize("kind", ["every mask", "some masks", "another stability offset"])
def test_proposals_are_the_stock_generators_masks_in_its_order_with_its_scores(
    network: Sam,
    make_teacher: MakeTeacher,
    every_record: list[dict],
    thresholds: dict[str, float],
    kind: str,
    at_once: tuple[int, int],
    measured: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(mask_measures.MASKS_AT_ONCE, "cpu", at_once[0])
    monkeypatch.setitem(mask_measures.CELLS_AT_ONCE, "cpu", at_once[1])
    monkeypatch.setitem(mask_suppression.MEASURED_AT_ONCE, "cpu", measured)
    chosen = {
        "every mask": EVERY_MASK,
        "some masks": thresholds,
        "another stability offset": {**thresholds, "stability_score_offset": 0.25},
    }[kind]
    expected = every_record if kind == "every mask" else stock_records(network, make_image(0), chosen)
    assert len(expected) >= 3
    teacher = make_teacher(**chosen)
    assert_same_masks(propose(teacher, make_image(0))[0], expected)


def test_each_threshold_drops_the_masks_below_it(
    teacher: SamTeacher, every_record: list[dict], thresholds: dict[str, float]
) -> None:
    sure, stable, kept = filter_records(every_record, thresholds)
    assert 3 * 2 * 2 == len(every_record) > len(sure) > len(stable) > len(kept) >= 3
    assert_same_masks(propose(teacher, make_image(0))[0], kept)


@pytest.mark.parametrize("points_per_batch", [3, 8, 100])
def test_images_that_share_a_batch_get_their_own_masks(
    network: Sam, make_teacher: MakeTeacher, thresholds: dict[str, float], points_per_batch: int
) -> None:
    # An image has 4 points: batches of less than one image, of two, of all three.
    images = [make_image(seed) for seed in (0, 1, 2)]
    found = propose(make_teacher(**thresholds, points_per_batch=points_per_batch), *images)
    assert len({len(masks.inside) for masks in found}) > 1
    for masks, image in zip(found, images, strict=True):
        assert_same_masks(masks, stock_records(network, image, thresholds))


@pytest.mark.parametrize("min_area_px", [40, 400, 5000])
def test_small_regions_are_removed_as_the_stock_generator_does(
    network: Sam, make_teacher: MakeTeacher, thresholds: dict[str, float], min_area_px: int
) -> None:
    # Masks whose boxes are nearly equal: after the removal some repeat others.
    chosen = {**EVERY_MASK, "box_nms_thresh": 0.99, "stability_score_offset": 0.25, "min_mask_region_area": min_area_px}
    untouched = stock_records(network, make_image(0), {**chosen, "min_mask_region_area": 0})
    expected = stock_records(network, make_image(0), chosen)
    assert [r["area"] for r in expected] != [r["area"] for r in untouched]
    assert_same_masks(propose(make_teacher(**chosen), make_image(0))[0], expected)


def test_the_second_suppression_takes_the_larger_threshold_as_the_stock_generator_does() -> None:
    chosen = {"points_per_side": 8, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    chosen |= {"box_nms_thresh": 0.3, "min_mask_region_area": 60}  # with 0.3 in the second suppression, two are lost
    teacher = SamTeacher(SamSettings(architecture="demo", weights="demo-sam", **chosen))
    street = render_view(make_scene(7, 0.0), make_cameras(7, 400, 225)[0], 0.5).rgb
    expected = SamAutomaticMaskGenerator(teacher.model, **chosen).generate(street)
    with torch.inference_mode():
        embeddings = teacher.embed(teacher.upload([resize_for_sam(street, "demo")]))
        (found,) = teacher.propose(embeddings, street.shape[:2], street.shape[:2])
    assert len(expected) > 3
    assert sorted(found.area.tolist()) == sorted(record["area"] for record in expected)


@pytest.mark.parametrize("name, value", [("pred_iou_thresh", 1000.0), ("stability_score_thresh", 1.5)])
def test_thresholds_that_leave_no_mask_give_images_without_masks(
    make_teacher: MakeTeacher, name: str, value: float
) -> None:
    teacher = make_teacher(**{**EVERY_MASK, name: value})
    result = teacher.run([resize_for_sam(make_image(0), "tiny")], (9, 16))
    assert result.mask_ids.tolist() == np.zeros((1, 9, 16)).tolist()
    assert result.features.any()


def test_less_than_half_of_many_near_copies_are_measured_and_no_mask_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = {"points_per_side": 10, "pred_iou_thresh": 0.3, "stability_score_thresh": 0.3}
    teacher = SamTeacher(SamSettings(architecture="demo", weights="demo-sam", **chosen))
    street = render_view(make_scene(7, 0.0), make_cameras(7, 400, 225)[0], 0.5).rgb
    expected = SamAutomaticMaskGenerator(teacher.model, **chosen).generate(street)
    sizes: dict[str, list[int]] = {"bound_boxes": [], "measure_masks": []}
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
    assert 3 <= len(expected) <= sum(sizes["measure_masks"]) < sum(sizes["bound_boxes"]) / 2


def test_bf16_moves_few_pixels() -> None:
    # A small grid, because most CPUs emulate bf16. No thresholds, because rounding may move a mask across one.
    trained = SamSettings(architecture="demo", weights="demo-sam", points_per_side=4, **EVERY_MASK)
    image = make_image(0)
    stock = SamAutomaticMaskGenerator(build_sam(trained).eval(), points_per_side=4, **EVERY_MASK).generate(image)
    teacher = SamTeacher(trained, precision=torch.bfloat16)
    with torch.inference_mode():
        embeddings = teacher.embed(teacher.upload([resize_for_sam(image, "demo")]))
        (found,) = teacher.propose(embeddings, image.shape[:2], image.shape[:2])
    assert len(found.inside) == len(stock) == 3 * 4 * 4
    differing = found.inside.numpy()[:, None] != np.array([record["segmentation"] for record in stock])
    assert differing.mean(axis=(2, 3)).min(axis=0).mean() < 0.01
