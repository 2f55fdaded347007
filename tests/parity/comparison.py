"""Compare the scores of an official evaluator with ours."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

MOST = 1e-9
"""Scores agree if they differ by no more."""


def our_scores(report: Path) -> dict:
    """Return the scores of points after the vote in what `labelgen inspect --json` printed."""
    scores: dict = json.loads(report.read_text())["truth"]["point"]["refined"]
    return scores


def compare(name: str, ours: Mapping[str, float], theirs: Mapping[str, float]) -> None:
    """Print how far scores differ; exit with 1 if any differs by more than `MOST`, or only one side has it."""
    if ours.keys() != theirs.keys():
        sys.exit(f"{name}: only one side has a score for {', '.join(sorted(ours.keys() ^ theirs.keys()))}")
    errors = {own: abs(ours[own] - theirs[own]) for own in ours}
    worst = max(errors, key=lambda own: errors[own])
    print(f"{name}: {len(errors)} scores, largest difference {errors[worst]:.1e} ({worst})")
    if errors[worst] > MOST:
        sys.exit(f"{name}: {worst} is {theirs[worst]} there and {ours[worst]} here")
