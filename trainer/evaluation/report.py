"""The report of an evaluation, as a JSON-ready object and as a table for people."""

import io
from collections.abc import Iterator, Mapping
from typing import NotRequired, TypedDict

from cache_schemas.plurals import counted
from cache_schemas.scoring import Absent, Scores, ScoringRule, Unlabelled, json_number

COLUMNS = {
    "image": "2D network",
    "point": "3D network",
    "point_seen": "3D, seen",
    "fused_2d": "fused 2D, seen",
    "ensemble": "ensemble",
    "ensemble_seen": "ensemble, seen",
}
"""The titles of the networks' scores."""


class ScoreReport(TypedDict):
    """Scores over the elements with truth; `scored` is their number. Null: there is nothing to score."""

    miou: float | None
    accuracy: float | None
    scored: int
    iou: dict[str, float | None]


class ZeroShotScores(TypedDict):
    """Mean IoU of seen and of unseen classes, and the harmonic mean of both. Null: there is nothing to score."""

    seen: float | None
    unseen: float | None
    harmonic_mean: float | None


class ZeroShotReport(TypedDict):
    """The classes whose truth was used in training, and by network (a key of `COLUMNS`) the scores."""

    seen_classes: list[str]
    scores: dict[str, ZeroShotScores]


class EvaluationReport(TypedDict):
    """What `trainer evaluate --json` prints; docs/guides/train.md explains each key."""

    run: str
    checkpoint: str
    cache: str
    scenes: str
    samples: int
    samples_without_truth: int
    refined_predictions: bool
    test_time_augmentation: bool
    truth_in_training: list[str]
    shared_classes: list[str] | None
    unlabelled: Unlabelled
    absent: Absent
    image: NotRequired[ScoreReport]
    point: NotRequired[ScoreReport]
    point_seen: NotRequired[ScoreReport]
    fused_2d: NotRequired[ScoreReport]
    ensemble: NotRequired[ScoreReport]
    ensemble_seen: NotRequired[ScoreReport]
    agreement: NotRequired[ScoreReport]
    labels: dict[str, dict[str, ScoreReport]]
    zero_shot: NotRequired[ZeroShotReport]


def score_report(scores: Scores, names: tuple[str, ...]) -> ScoreReport:
    """Return scores as a JSON-ready object, with the IoU of each class by name."""
    return ScoreReport(
        miou=json_number(scores.miou),
        accuracy=json_number(scores.accuracy),
        scored=scores.scored,
        iou={name: json_number(value) for name, value in zip(names, scores.iou, strict=True)},
    )


def network_scores(report: EvaluationReport) -> dict[str, ScoreReport]:
    """Return the scores of what a report scores beside the cached labels, by the keys of `COLUMNS`."""
    known = {
        "image": report.get("image"),
        "point": report.get("point"),
        "point_seen": report.get("point_seen"),
        "fused_2d": report.get("fused_2d"),
        "ensemble": report.get("ensemble"),
        "ensemble_seen": report.get("ensemble_seen"),
    }
    return {name: scores for name, scores in known.items() if scores is not None}


def render(report: EvaluationReport, width: int) -> str:
    """Return the scores as a table for people, in percent, at most `width` columns wide."""
    from rich.console import Console
    from rich.table import Table

    columns = _columns(report)
    rule = ScoringRule(report["unlabelled"], report["absent"])
    table = Table(
        title=f"{counted(report['samples'], 'sample')} of {report['scenes']} scenes, "
        f"checkpoint {report['checkpoint']}; percent; scored by {rule.name}",
        title_justify="left",
        box=None,
    )
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    table.add_row("mIoU", *(_percent(scores["miou"]) for scores in columns.values()))
    table.add_row("accuracy", *(_percent(scores["accuracy"]) for scores in columns.values()))
    for name in next(iter(columns.values()))["iou"]:
        table.add_row(name, *(_percent(scores["iou"][name]) for scores in columns.values()))
    text = io.StringIO()
    console = Console(file=text, width=width, highlight=False, markup=False)
    console.print(table)
    console.print("\n" + "\n".join(_notes(report)), soft_wrap=True)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _notes(report: EvaluationReport) -> Iterator[str]:
    """Yield the sentences below the table."""
    if truth := report["truth_in_training"]:
        yield f"Truth of these classes supervised the training (classes.seen): {', '.join(truth)}."
    if "zero_shot" in report:
        yield f"Seen classes: {', '.join(report['zero_shot']['seen_classes'])}."
        for name, scores in report["zero_shot"]["scores"].items():
            yield (
                f"{COLUMNS[name]}: mIoU of seen classes {_percent(scores['seen'])} %, of unseen classes "
                f"{_percent(scores['unseen'])} %, harmonic mean {_percent(scores['harmonic_mean'])} %."
            )
    if "agreement" in report:
        agreement = report["agreement"]
        yield (
            f"The networks agree at {_percent(agreement['accuracy'])} % of the pairs; "
            f"IoU between them {_percent(agreement['miou'])} %."
        )
    yield "IoU is over elements with truth."
    if shared := report["shared_classes"]:
        yield (
            f"Scored are the {counted(len(shared), 'class')} that run and truth share by name; the networks' "
            "prediction is the highest score among these, a cached label of another class is wrong."
        )
    if report["test_time_augmentation"]:
        yield (
            "Test-time augmentation: scores are the mean over 4 turns of the cloud about z, each also mirrored in y, "
            "and over each picture and its mirror image."
        )
    if "3D, seen" in _columns(report) or "raw point" in _columns(report):
        yield "'seen': points that at least one camera sees; the cached labels have only these."
    if "ensemble" in report:
        yield (
            "'fused 2D': the mean of the CLIP features of a point's views. 'ensemble': at each point that or the 3D "
            "network, whichever has the higher cosine with a class; unseen points take the 3D network's class."
        )
    if left_out := report["samples_without_truth"]:
        yield f"Left out: {counted(left_out, 'sample')} without truth."


def _columns(report: EvaluationReport) -> Mapping[str, ScoreReport]:
    columns = {COLUMNS[name]: scores for name, scores in network_scores(report).items()}
    for kind, labels in report["labels"].items():
        word = {"refined": "voted"}.get(kind, kind)
        columns |= {f"{word} {modality.split('_')[0]}": scores for modality, scores in labels.items()}
    return columns


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
