"""Order samples so that those come first that a person should look at."""

from collections.abc import Sequence

import numpy as np

from labelgen.inspection.counting.measures import MEASURES, Measurements
from labelgen.inspection.judging.outliers import robust_deviations


def rank_worst_first(samples: Sequence[Measurements], class_id: int | None = None) -> list[Measurements]:
    """Return the samples, worst first.

    With truth the order is by the share of right labels, or with a class by its number of wrong pixels. Without truth
    it is by the largest robust deviation of a measure.
    """
    if not samples:
        return []
    errors = np.array([s.errors.sum() if class_id is None else s.errors[class_id] for s in samples])
    accuracy = np.array([sample.accuracy for sample in samples])
    if class_id is not None and errors.any():
        keys = -errors
    elif np.isfinite(accuracy).any():
        keys = np.where(np.isfinite(accuracy), accuracy, np.inf)
    else:
        columns = zip(MEASURES.values(), np.stack([sample.values for sample in samples]).T, strict=True)
        keys = -np.max([np.abs(robust_deviations(values, measure)[1]) for measure, values in columns], axis=0)
    order = sorted(range(len(samples)), key=lambda i: (keys[i], samples[i].shard, i))
    return [samples[i] for i in order]
