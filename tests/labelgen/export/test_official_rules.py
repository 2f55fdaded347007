"""Scores equal those of the official evaluators, recomputed from exported files by plain loops.

`make parity` compares with the evaluators themselves.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.taxonomy import load_taxonomy
from tests.made_labels import read_points, write_label_cache

FORMATS = {"nuscenes16": "nuscenes-lidarseg", "semantickitti19": "semantickitti", "scannet20": "scannet"}
FILES = {
    "nuscenes16": ("lidarseg/val/{}_lidarseg.bin", np.uint8),
    "semantickitti19": ("sequences/08/predictions/{}.label", np.uint32),
    "scannet20": ("{}.txt", None),
}
IDS = {
    "nuscenes16": list(range(1, 17)),
    "semantickitti19": [10, 11, 15, 18, 20, 30, 31, 32, 40, 44, 48, 49, 50, 51, 70, 71, 72, 80, 81],
    "scannet20": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39],
}


def read_file(folder: Path, taxonomy: str, token: str) -> list[int]:
    pattern, dtype = FILES[taxonomy]
    file = folder / pattern.format(token[-6:] if taxonomy == "semantickitti19" else token)
    return [int(line) for line in file.read_text().split()] if dtype is None else np.fromfile(file, dtype).tolist()


def recompute(pairs: list[tuple[int, int]], ids: list[int], misses: bool) -> list[float]:
    """Return the IoU of each id over (truth, prediction) pairs: truth of no id is ignored, NaN without either."""
    found = []
    for own in ids:
        right = wrong = missed = 0
        for truth, predicted in pairs:
            if truth not in ids or (predicted not in ids and not misses):
                continue
            right += truth == own == predicted
            wrong += predicted == own != truth
            missed += truth == own != predicted
        found.append(right / (right + wrong + missed) if right + wrong + missed else math.nan)
    return found


@pytest.mark.parametrize("taxonomy", list(FORMATS))
@pytest.mark.parametrize("absent_classes", [0, 2])
@pytest.mark.parametrize("rule", ["ignore leave", "miss leave", "miss zero"])
def test_exported_labels_score_as_the_cache_does(
    command, tmp_path: Path, taxonomy: str, absent_classes: int, rule: str
) -> None:
    unlabelled, absent = rule.split()
    occurring = len(load_taxonomy(taxonomy).names) - absent_classes
    cache = write_label_cache(str(tmp_path / "c.zarr"), taxonomy, points=150, classes=occurring)
    command("export", cache, "--format", FORMATS[taxonomy], "--out", tmp_path / "out")
    pairs = []
    for token, truth in read_points(cache, "truth", "point").items():
        official = [0 if label == 255 else IDS[taxonomy][label] for label in truth.tolist()]
        pairs += list(zip(official, read_file(tmp_path / "out", taxonomy, token), strict=True))
    expected = recompute(pairs, IDS[taxonomy], misses=unlabelled == "miss")
    if absent == "zero":
        expected = [0.0 if math.isnan(iou) else iou for iou in expected]
    known = [iou for iou in expected if not math.isnan(iou)]
    arguments = ("--unlabelled", unlabelled, "--absent", absent, "--json")
    found = json.loads(command("inspect", cache, *arguments).stdout)["truth"]["point"]["refined"]
    for iou, reference in zip(found["iou"].values(), expected, strict=True):
        assert (iou is None and math.isnan(reference)) or abs(iou - reference) < 1e-9
    assert abs(found["miou"] - sum(known) / len(known)) < 1e-9
    counted = [pair for pair in pairs if pair[0] and (pair[1] or unlabelled == "miss")]
    assert found["scored"] == len(counted)
    assert abs(found["accuracy"] - sum(t == p for t, p in counted) / len(counted)) < 1e-9
