"""The scans of each official split of ScanNet v2."""

from functools import cache
from importlib import resources

ALL = "all"
SPLITS = ("train", "val", "test")


@cache
def split_scans(split: str) -> frozenset[str]:
    """Return the names of the scans of an official split.

    The lists are the files `Tasks/Benchmark/scannetv2_*.txt` of the ScanNet repository, byte for byte.
    """
    text = (resources.files("labelgen.datasets.scannet") / f"scannetv2_{split}.txt").read_text(encoding="utf-8")
    return frozenset(text.split())
