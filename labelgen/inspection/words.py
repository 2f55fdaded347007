"""The words and figures that every report of the audit uses."""

from collections.abc import Mapping
from typing import Any


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share as a percentage, a dash where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f}%"


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with thousands set apart, a dash where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def oddity_words(entry: Mapping[str, Any]) -> str:
    """Say in words by what a shard stands out."""
    form = percent if entry["is_share"] else number
    return f"{entry['title']}: {form(entry['value'])}, where {form(entry['usual'])} is usual"


def sample_words(entry: Mapping[str, Any]) -> str:
    """Say in words how good or odd a sample is."""
    measures = entry["measures"]
    right = {"pixel_accuracy": "of its pixels right", "point_accuracy": "of its points right"}
    words = [f"{percent(measures[name])} {said}" for name, said in right.items() if measures[name] is not None]
    words += [
        f"{number(measures['masks_per_image'], 1)} masks an image",
        f"the vote changed {percent(measures['changed'])}",
        f"cameras disagree on {percent(measures['camera_disagreement'])}",
    ]
    return ", ".join(words)
