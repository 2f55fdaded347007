"""Checks the values of a shard's arrays: offsets, pairs, points, class ids, mask ids, and floats."""

from collections.abc import Mapping

import numpy as np

from cache_schemas.layout import SOURCE_PREFIX, AnyArray
from cache_schemas.taxonomy import IGNORE, Taxonomy

Groups = Mapping[str, Mapping[str, AnyArray]]

FARTHEST_M = 1000.0
"""No sensor that records scenes measures so far. Numbers of a file that was read in a wrong shape often are larger."""


def impossible_values(taxonomy: Taxonomy, groups: Groups, counts: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    """Return the arrays of a shard with impossible values: a sentence by `<group>/<name>`.

    `groups` are the arrays of the shard's groups, by group and array name; a group may be missing. `counts` are the
    counts in the seals, by group name.
    """
    return {
        **_bad_offsets(groups),
        **_bad_pairs(groups),
        **_bad_points(groups),
        **_bad_ids(taxonomy, groups),
        **_bad_masks(groups, counts),
        **_bad_valid_parts(groups),
        **_bad_numbers(groups),
    }


def is_unit_norm(embeddings: AnyArray) -> bool:
    """Return whether each row of embeddings (C, D) has norm 1."""
    return bool(np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3))


def _bad_offsets(groups: Groups) -> dict[str, str]:
    counted_array = {"images": "rgb", "points": "xyz", "pairs": "point"}
    bad = {}
    for group, array in counted_array.items():
        if group in groups:
            offsets, total = groups[group]["offsets"], len(groups[group][array])
            if offsets[0] != 0 or offsets[-1] != total or np.any(np.diff(offsets) < 0):
                bad[f"{group}/offsets"] = f"offsets do not rise from 0 to {total}"
    return bad


def _bad_pairs(groups: Groups) -> dict[str, str]:
    """Check that each pair is of a point and an image of its own sample, and of a pixel in the image."""
    if not {"images", "points", "pairs"} <= set(groups) or _bad_offsets(groups):
        return {}
    pairs, (height, width) = groups["pairs"], groups["images"]["rgb"].shape[1:3]
    sample = np.repeat(np.arange(len(pairs["offsets"]) - 1), np.diff(pairs["offsets"]))
    low_high: dict[str, tuple[AnyArray | int, AnyArray | int]] = {
        "point": (groups["points"]["offsets"][sample], groups["points"]["offsets"][sample + 1]),
        "image": (groups["images"]["offsets"][sample], groups["images"]["offsets"][sample + 1]),
        "row": (0, height),
        "col": (0, width),
        **({"visible": (0, 2)} if "visible" in pairs else {}),
    }
    bad = {}
    for name, (low, high) in low_high.items():
        wrong = np.flatnonzero((pairs[name] < low) | (pairs[name] >= high))
        if wrong.size:
            bad[f"pairs/{name}"] = f"{wrong.size} values out of range, the first {pairs[name][wrong[0]]} at {wrong[0]}"
    return bad


def _bad_points(groups: Groups) -> dict[str, str]:
    """Check that points are where a sensor can measure them; what is not finite is left to `_bad_numbers`."""
    low_high = {"xyz": (-FARTHEST_M, FARTHEST_M, "metres"), "intensity": (0.0, 1.0, "of the strongest return")}
    bad = {}
    for name, (low, high, unit) in low_high.items():
        values = groups.get("points", {}).get(name, np.empty(0))
        if (wrong := np.argwhere(np.isfinite(values) & ((values < low) | (values > high)))).size:
            point = wrong[0, 0]
            bad[f"points/{name}"] = (
                f"point {point} has {values[tuple(wrong[0])]:g}, which no sensor measures ({low:g}..{high:g} {unit}), "
                f"as {len(np.unique(wrong[:, 0])):,} of {len(values):,} points; was the raw cloud in another shape?"
            )
    return bad


def _bad_ids(taxonomy: Taxonomy, groups: Groups) -> dict[str, str]:
    bad = {}
    for group in (name for name in groups if name in ("labels", "truth", "time") or name.startswith(SOURCE_PREFIX)):
        for name, ids in groups[group].items():
            if name == "segments" or name.endswith("_confidence"):  # these are no ids of classes
                continue
            wrong = ids[(ids >= len(taxonomy.classes)) & (ids != IGNORE)]
            if wrong.size:
                bad[f"{group}/{name}"] = f"id {wrong[0]} is neither a class of {taxonomy.name} nor {IGNORE}"
    return bad


def _bad_masks(groups: Groups, counts: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    masks = counts.get("sam", {}).get("masks")
    largest = int(groups["sam"]["mask_ids"].max(initial=0)) if "sam" in groups else 0
    if masks is None or largest <= masks:
        return {}
    return {"sam/mask_ids": f"mask id {largest}, but the seal says that an image has at most {masks} masks"}


def _bad_valid_parts(groups: Groups) -> dict[str, str]:
    """Check that the valid part of each embedding is not empty and not larger than its array."""
    valid = groups.get("sam", {}).get("features_valid")
    if valid is None or bool(((valid >= 1) & (valid <= groups["sam"]["features"].shape[1:3])).all()):
        return {}
    return {"sam/features_valid": "the valid part of an embedding is empty, or larger than the array"}


def _bad_numbers(groups: Groups) -> dict[str, str]:
    floats = {
        f"{group}/{name}": values
        for group, arrays in groups.items()
        for name, values in arrays.items()
        if values.dtype.kind == "f"
    }
    return {path: "not all values are finite" for path, values in floats.items() if not np.isfinite(values).all()}
