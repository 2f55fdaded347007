"""Confusion matrices of predictions and of cached labels against truth, sample by sample."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cache_schemas.scoring import confusion_with_unlabelled
from cache_schemas.taxonomy import IGNORE
from trainer.data.stream import SampleArrays
from trainer.evaluation.predictor import SamplePrediction


def sample_confusions(
    arrays: SampleArrays, prediction: SamplePrediction, classes: int
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield the confusion matrices (C, C+1) of a sample by name: predictions and labels against truth, and agreement.

    `point` and `ensemble` count all points with truth; `point_seen`, `ensemble_seen` and `fused_2d` those that also
    have a cached label, hence that a camera sees. Names of networks, labels and truth that are not there are left out.
    """
    pixels, points = prediction.image, prediction.point
    if "truth/point" in arrays:
        truth = arrays["truth/point"]
        if points is not None:
            seen = np.where(arrays["labels/point"] == IGNORE, IGNORE, truth).astype(np.uint8)
            yield "point", confusion_with_unlabelled(truth, points, classes)
            yield "point_seen", confusion_with_unlabelled(seen, points, classes)
            if prediction.ensemble is not None and prediction.fused_2d is not None:
                yield "fused_2d", confusion_with_unlabelled(seen, prediction.fused_2d, classes)
                yield "ensemble", confusion_with_unlabelled(truth, prediction.ensemble, classes)
                yield "ensemble_seen", confusion_with_unlabelled(seen, prediction.ensemble, classes)
        yield "raw/point_seen", confusion_with_unlabelled(truth, arrays["labels/point_raw"], classes)
        yield "refined/point_seen", confusion_with_unlabelled(truth, arrays["labels/point"], classes)
    if "truth/image" in arrays:
        image_truth = arrays["truth/image"]
        if pixels is not None:
            yield "image", confusion_with_unlabelled(image_truth, pixels, classes)
        yield "raw/image", confusion_with_unlabelled(image_truth, arrays["labels/image_raw"], classes)
        yield "refined/image", confusion_with_unlabelled(image_truth, arrays["labels/image"], classes)
    if pixels is not None and points is not None:
        pixel = pixels[arrays["pairs/image"], arrays["pairs/row"], arrays["pairs/col"]]
        yield "agreement", confusion_with_unlabelled(pixel, points[arrays["pairs/point"]], classes)
