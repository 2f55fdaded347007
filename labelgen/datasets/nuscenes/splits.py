"""The scenes of each nuScenes split."""

from functools import cache
from importlib import resources

import yaml

ALL = "all"


@cache
def _numbers() -> dict[str, frozenset[int]]:
    text = (resources.files("labelgen.datasets.nuscenes") / "splits.yaml").read_text(encoding="utf-8")
    splits = {name: frozenset(_expand(runs)) for name, runs in yaml.safe_load(text).items()}
    return {**splits, "parametrize": splits["train"] - splits["verify"]}


def _expand(runs: str) -> list[int]:
    """Return the numbers in text such as "1-2 4-11 222"."""
    numbers: list[int] = []
    for run in runs.split():
        first, _, last = run.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def split_names() -> list[str]:
    """Return the names of all splits."""
    return sorted(_numbers())


def split_scenes(split: str) -> frozenset[str]:
    """Return the scene names of an official split, or of `parametrize` or `verify`, the two parts of `train`."""
    return frozenset(f"scene-{number:04d}" for number in _numbers()[split])
