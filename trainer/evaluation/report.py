"""The report of an evaluation, as a JSON-ready object and as a table for people."""

import io
from collections.abc import Mapping
from typing import NotRequired, TypedDict

from cache_schemas.scoring import Absent, Scores, ScoringRule, Unlabelled, json_number


class ScoreReport(TypedDict):
    """Scores over the elements with truth; `scored` is their number. Null: there is nothing to score."""

    miou: float | None
    accuracy: float | None
    scored: int
    iou: dict[str, float | None]


class EvaluationReport(TypedDict):
    """What `trainer evaluate --json` prints; docs/guides/train.md explains each key."""

    run: str
    checkpoint: str
    cache: str
    scenes: str
    samples: int
    samples_without_truth: int
    refined_predictions: bool
    unlabelled: Unlabelled
    absent: Absent
    image: NotRequired[ScoreReport]
    point: ScoreReport
    point_seen: ScoreReport
    agreement: ScoreReport
    labels: dict[str, dict[str, ScoreReport]]


def score_report(scores: Scores, names: tuple[str, ...]) -> ScoreReport:
    """Return scores as a JSON-ready object, with the IoU of each class by name."""
    return ScoreReport(
        miou=json_number(scores.miou),
        accuracy=json_number(scores.accuracy),
        scored=scores.scored,
        iou={name: json_number(value) for name, value in zip(names, scores.iou, strict=True)},
    )


def render(report: EvaluationReport, width: int) -> str:
    """Return the scores as a table for people, in percent, at most `width` columns wide."""
    from rich.console import Console
    from rich.table import Table

    columns = _columns(report)
    table = Table(
        title=f"{report['samples']} samples of {report['scenes']} scenes, checkpoint {report['checkpoint']}; percent; "
        f"scored by {ScoringRule(report['unlabelled'], report['absent']).name}",
        title_justify="left",
        box=None,
    )
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    table.add_row("mIoU", *(_percent(scores["miou"]) for scores in columns.values()))
    table.add_row("accuracy", *(_percent(scores["accuracy"]) for scores in columns.values()))
    for name in report["point"]["iou"]:
        table.add_row(name, *(_percent(scores["iou"][name]) for scores in columns.values()))
    agreement, left_out = report["agreement"], report["samples_without_truth"]
    text = io.StringIO()
    console = Console(file=text, width=width, highlight=False, markup=False)
    console.print(table)
    console.print(
        f"\nThe networks agree at {_percent(agreement['accuracy'])} % of the pairs; "
        f"IoU between them {_percent(agreement['miou'])} %.\n"
        "IoU is over elements with truth.\n"
        "'seen': points that at least one camera sees; the cached labels have only these.",
        soft_wrap=True,
    )
    if left_out:
        console.print(f"Left out: {left_out} samples without truth.")
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _columns(report: EvaluationReport) -> Mapping[str, ScoreReport]:
    columns = {"2D network": report["image"]} if "image" in report else {}
    columns |= {"3D network": report["point"], "3D, seen": report["point_seen"]}
    for kind, labels in report["labels"].items():
        word = {"refined": "voted"}.get(kind, kind)
        columns |= {f"{word} {modality.split('_')[0]}": scores for modality, scores in labels.items()}
    return columns


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
