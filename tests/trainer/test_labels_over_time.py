"""Training on the labels on which keyframes agree."""

import numpy as np
import pytest

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from tests.trainer.test_builder import batches
from trainer.data.sampler import Step
from trainer.errors import UnfitCacheError


def test_labels_of_points_and_pixels_are_those_over_time(own: str) -> None:
    with pytest.raises(UnfitCacheError, match=r"time: not sealed; make it with .*time.enabled=true"):
        batches(own, "stream.label_source=time")
    cache = Cache(own, "a")
    for key, record in cache.shard_records(list(cache.shard_keys())).items():
        voted = cache.read(GroupPath(key, "labels"))
        made = {
            "point": ((voted["point"] + 1) % 3).astype(np.uint8),
            "point_confidence": np.zeros_like(voted["point"]),
            "image": ((voted["image"] + 1) % 3).astype(np.uint8),
        }
        cache.write_group(GroupPath(key, "time"), made, Provenance("f-time", samples=record.samples))
    over_time, _ = batches(own, "stream.label_source=time", "augment.images=false")
    voted, _ = batches(own, "augment.images=false")
    both = over_time[Step(0, 0, (1,))], voted[Step(0, 0, (1,))]
    for name in ("point_labels", "pixel_labels"):
        changed, before = (getattr(batch, name).numpy() for batch in both)
        np.testing.assert_array_equal(changed, ((before + 1) % 3).astype(np.uint8))
