"""Compare the arrays of a sample with those that are sealed, within what another processor may round differently."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache_schemas.layout import AnyArray, GroupSpec


@dataclass(frozen=True)
class Tolerance:
    """How much an array may differ: by up to `largest` in each element, or in at most this `share` of its elements."""

    largest: float = 0.0
    share: float = 0.0


EXACT = Tolerance()

TOLERANCES = {
    "text": {"embeddings": Tolerance(largest=1e-4)},
    "clip": {
        "logits": Tolerance(largest=0.004),
        "features": Tolerance(largest=0.004),
        "features_scale": Tolerance(largest=0.004 / 127),
    },
    "sam": {
        "mask_ids": Tolerance(share=0.005),
        "features": Tolerance(largest=0.127),
        "features_scale": Tolerance(largest=1e-3),
    },
}
"""Networks round differently with other batches, threads and processors. All other arrays must be equal."""

ONE_STEP = Tolerance(largest=1.0)
"""The tolerance of int8 features: they count steps of their scale, and may be rounded to the next one."""


@dataclass(frozen=True)
class ArrayComparison:
    """How an array differs from the sealed one: the elements that differ, and the largest difference.

    If the shapes or dtypes differ, `misfit` says how, and all elements count as different. `largest` is None in this
    case, and if an element is NaN on one side only.
    """

    elements: int
    differing: int
    largest: float | None
    within_tolerance: bool
    misfit: str = ""

    def __str__(self) -> str:
        """Return it as a part of a sentence."""
        if self.misfit:
            return self.misfit
        share = self.differing / self.elements if self.elements else 0.0
        by = "some are NaN on one side" if self.largest is None else f"by up to {self.largest:.6g}"
        return f"{self.differing:,} of {self.elements:,} elements differ ({share:.2%}), {by}"


def compare_arrays(
    group: str, spec: GroupSpec, sealed: Mapping[str, AnyArray], replayed: Mapping[str, AnyArray], alone: bool
) -> dict[str, ArrayComparison]:
    """Compare the arrays of a group, by name.

    `alone` says that the sample was replayed without the others of its shard. Optional arrays may then be on one side
    only, since a shard has some of them only if all of its samples do.
    """
    found = {}
    for name in dict.fromkeys((*sealed, *replayed)):
        if name in sealed and name in replayed:
            wanted = sealed[name]
            if name == "features" and "features_valid" in sealed:
                wanted = wanted[tuple(slice(0, length) for length in replayed[name].shape)]  # padded for other samples
            tolerance = ONE_STEP if wanted.dtype == np.int8 else TOLERANCES.get(group, {}).get(name, EXACT)
            found[name] = compare_array(wanted, replayed[name], tolerance)
        elif not (alone and spec.arrays[name].optional):
            where = "sealed" if name in sealed else "replayed"
            size = (sealed if name in sealed else replayed)[name].size
            found[name] = ArrayComparison(size, size, None, False, f"only {where}")
    return found


def compare_array(sealed: AnyArray, replayed: AnyArray, tolerance: Tolerance = EXACT) -> ArrayComparison:
    """Compare one array with the sealed one. NaN equals NaN."""
    if sealed.shape != replayed.shape or sealed.dtype != replayed.dtype:
        misfit = f"{replayed.dtype} {replayed.shape}, sealed as {sealed.dtype} {sealed.shape}"
        return ArrayComparison(replayed.size, replayed.size, None, False, misfit)
    wide = np.float64 if sealed.dtype.kind == "f" else np.int64
    left, right = sealed.astype(wide), replayed.astype(wide)
    differs: NDArray[np.bool_] = left != right
    if wide is np.float64:
        differs &= ~(np.isnan(left) & np.isnan(right))
    count = int(differs.sum())
    if not count:
        return ArrayComparison(sealed.size, 0, 0.0, True)
    largest = float(np.abs(left[differs] - right[differs]).max())
    within = largest <= tolerance.largest or count <= tolerance.share * sealed.size
    return ArrayComparison(sealed.size, count, None if np.isnan(largest) else largest, within)
