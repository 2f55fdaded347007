"""Weights of classes: hand-computed from label counts, and none where none are asked for."""

import numpy as np
import pytest

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from trainer.balance import RAREST, class_weights
from trainer.stream import CacheStream

ARRAYS = ["labels/image", "labels/image_raw"]


@pytest.mark.parametrize("refined", [True, False])
def test_weights_follow_the_frequencies_of_the_labels_that_are_trained_on(toy: str, refined: bool) -> None:
    stream, cache = CacheStream(toy, ARRAYS), Cache(toy)
    classes = len(stream.manifest.taxonomy.classes)
    name = "image" if refined else "image_raw"
    labels = np.concatenate([cache.read(GroupPath(key, "labels"), name)[name].ravel() for key in cache.shard_keys()])
    share = np.array([(labels == i).sum() for i in range(classes)]) / (labels < classes).sum()
    weights = class_weights(stream, stream.samples, classes, 0.5, refined).double().numpy()
    for one in range(classes):
        ratio = (max(share[0], RAREST) / max(share[one], RAREST)) ** 0.5
        assert weights[one] / weights[0] == pytest.approx(ratio, rel=1e-5)
    assert (weights * share).sum() == pytest.approx(1, rel=1e-5)


def test_no_exponent_gives_no_weights(toy: str) -> None:
    stream = CacheStream(toy, ARRAYS)
    assert class_weights(stream, stream.samples, 3, 0.0, True) is None
