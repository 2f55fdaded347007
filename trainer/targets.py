"""The training targets of both networks at a step: CLIP's labels, or the networks' own predictions (eq 5 and 6).

Predictions are voted within SAM's masks (eq 4). Labels of one modality become targets of the other at the pairs of a
point and a pixel (eq 2).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cache_schemas.taxonomy import IGNORE
from trainer.data.batch import Batch
from trainer.method_settings import Source
from trainer.schedule import TargetSources
from trainer.vote import refine_pixels, vote_in_masks


@dataclass(frozen=True)
class Predictions:
    """Class ids that the networks predict, without gradient: `pixels` (B, H, W) u8 and `points` (P,) u8.

    None: there is no such network.
    """

    pixels: Tensor | None
    points: Tensor | None


@dataclass(frozen=True)
class Targets:
    """Class ids that the networks shall learn, 255: none. `pixels` (B, H, W) u8 or None, `points` (P,) u8 or None.

    `pixel_confidence` (B, H, W) and `point_confidence` (P,), u8, are 255 times the confidence of cached labels. None:
    all targets are equally sure, as predictions are, or the batch has no confidence.
    """

    pixels: Tensor | None
    points: Tensor | None
    pixel_confidence: Tensor | None = None
    point_confidence: Tensor | None = None


def make_targets(sources: TargetSources, batch: Batch, predictions: Predictions, classes: int, refine: bool) -> Targets:
    """Return the targets of both networks. `refine`: vote predictions first (eq 4)."""
    pixels = pixel_target(sources.image, batch, predictions, classes, refine) if sources.image else None
    points = point_target(sources.cloud, batch, predictions, classes, refine) if sources.cloud else None
    return Targets(pixels, points, *_confidence(sources, batch))


def pixel_target(source: Source, batch: Batch, predictions: Predictions, classes: int, refine: bool) -> Tensor:
    """Return the target (B, H, W) u8 of the 2D network; 255 where there is none. `refine`: vote predictions first."""
    match source:
        case Source.CLIP_2D:
            return batch.pixel_labels
        case Source.OWN_2D:
            return _refined_pixels(batch, predictions, classes, refine)
        case Source.CLIP_3D:
            labels = batch.point_labels[batch.pair_point]
        case Source.OWN_3D:
            labels = _point_predictions_at_pairs(batch, predictions, classes, refine)
    return _move_to_pixels(labels, batch)


def point_target(source: Source, batch: Batch, predictions: Predictions, classes: int, refine: bool) -> Tensor:
    """Return the target (P,) u8 of the 3D network; 255 where there is none. `refine`: vote predictions first."""
    match source:
        case Source.CLIP_3D:
            return batch.point_labels
        case Source.OWN_3D:
            labels = _point_predictions_at_pairs(batch, predictions, classes, refine)
        case Source.CLIP_2D:
            labels = _pixels_at_pairs(batch.pixel_labels, batch)
        case Source.OWN_2D:
            labels = _pixels_at_pairs(_refined_pixels(batch, predictions, classes, refine), batch)
    return _move_to_points(labels, batch)


def _confidence(sources: TargetSources, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
    """Return 255 times the confidence of the targets of pixels and of points; it moves at the pairs as labels do."""
    pixels, points = batch.pixel_confidence, batch.point_confidence
    if pixels is None or points is None:
        return None, None
    of_pixels = of_points = None
    if sources.image is Source.CLIP_2D:
        of_pixels = pixels
    elif sources.image is Source.CLIP_3D:
        of_pixels = _move_to_pixels(points[batch.pair_point], batch)
    if sources.cloud is Source.CLIP_3D:
        of_points = points
    elif sources.cloud is Source.CLIP_2D:
        of_points = _move_to_points(_pixels_at_pairs(pixels, batch), batch)
    return of_pixels, of_points


def _move_to_pixels(values: Tensor, batch: Batch) -> Tensor:
    """Return the values (N,) u8 of pairs at their pixels (B, H, W); 255 where there is no pair."""
    moved = torch.full_like(batch.pixel_labels, IGNORE)
    first = batch.first_pair_of_pixel
    moved[batch.pair_image[first], batch.pair_row[first], batch.pair_col[first]] = values[first]
    return moved


def _move_to_points(values: Tensor, batch: Batch) -> Tensor:
    """Return the values (N,) u8 of pairs at their points (P,); 255 where there is no pair."""
    moved = torch.full_like(batch.point_labels, IGNORE)
    first = batch.first_pair_of_point
    moved[batch.pair_point[first]] = values[first]
    return moved


def _refined_pixels(batch: Batch, predictions: Predictions, classes: int, refine: bool) -> Tensor:
    assert predictions.pixels is not None, "settings refuse sources of absent networks"
    if not refine:
        return predictions.pixels
    return refine_pixels(predictions.pixels, batch.mask_ids, batch.mask_count, classes)


def _point_predictions_at_pairs(batch: Batch, predictions: Predictions, classes: int, refine: bool) -> Tensor:
    assert predictions.points is not None, "settings refuse sources of absent networks"
    labels = predictions.points[batch.pair_point]
    return _vote_at_pairs(labels, batch, classes) if refine else labels


def _vote_at_pairs(labels: Tensor, batch: Batch, classes: int) -> Tensor:
    """Return labels (N,) of pairs after the vote by the pairs in the mask of their pixel (eq 3 and 4)."""
    return vote_in_masks(
        labels,
        _pixels_at_pairs(batch.mask_ids, batch),
        batch.pair_image,
        image_count=len(batch.mask_ids),
        mask_count=batch.mask_count,
        classes=classes,
    )


def _pixels_at_pairs(values: Tensor, batch: Batch) -> Tensor:
    """Return the values (N,) of images (B, H, W) at the pixels of the pairs."""
    return values[batch.pair_image, batch.pair_row, batch.pair_col]
