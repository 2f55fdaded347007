"""Class weights: compared with label counts of the whole cache, and None for exponent 0."""

import numpy as np
import pytest

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from trainer.data.class_weights import MIN_FREQUENCY, class_weights
from trainer.data.stream import CacheStream
from trainer.data.training_caches import TrainingCache

ARRAYS = ["labels/image", "labels/image_raw", "labels/point", "labels/point_raw"]


@pytest.mark.parametrize("refined", [True, False])
@pytest.mark.parametrize("element", ["image", "point"])
def test_weights_follow_the_frequencies_of_the_labels_that_are_trained_on(
    toy: str, refined: bool, element: str
) -> None:
    stream, cache = CacheStream(toy, ARRAYS), Cache(toy)
    classes = len(stream.manifest.taxonomy.classes)
    name = element if refined else f"{element}_raw"
    labels = np.concatenate([cache.read(GroupPath(key, "labels"), name)[name].ravel() for key in cache.shard_keys()])
    share = np.array([(labels == i).sum() for i in range(classes)]) / (labels < classes).sum()
    arrays = ("labels/image", "labels/point") if refined else ("labels/image_raw", "labels/point_raw")
    found = class_weights([TrainingCache(stream, stream.samples)], [1], arrays, classes, 0.5)
    weights = (found.pixels if element == "image" else found.points).double().numpy()
    for one in range(classes):
        ratio = (max(share[0], MIN_FREQUENCY) / max(share[one], MIN_FREQUENCY)) ** 0.5
        assert weights[one] / weights[0] == pytest.approx(ratio, rel=1e-5)
    assert (weights * share).sum() == pytest.approx(1, rel=1e-5)


def test_no_exponent_gives_no_weights(toy: str) -> None:
    stream = CacheStream(toy, ARRAYS)
    caches = [TrainingCache(stream, stream.samples)]
    assert class_weights(caches, [1], ("labels/image", "labels/point"), 3, 0.0) is None
