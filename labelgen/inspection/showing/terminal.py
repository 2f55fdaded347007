"""The audit as text: the verdict first, then what it rests on; `tables` has the tables."""

from collections.abc import Iterator, Sequence
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cache_schemas.command_line import WIDTH_OUTSIDE_TERMINALS
from cache_schemas.names import printable
from cache_schemas.plurals import counted
from labelgen.inspection.formatting import decimal, percent
from labelgen.inspection.judging.verdict import STALE
from labelgen.inspection.report import Report, Verdict
from labelgen.inspection.report_instances import InstanceReport
from labelgen.inspection.report_over_time import OverTimeReport
from labelgen.inspection.report_statistics import LabelStatistics
from labelgen.inspection.showing import tables
from labelgen.inspection.showing.groups import group_rows
from labelgen.inspection.showing.wording import UNTRAINED, describe_selection, describe_teachers

LISTED = 10
"""So many entries of a list are printed; --json has all."""

_HEADING_WIDTH = 10

_WELL = {
    "complete": "yes: all shards are sealed and no sample is left out",
    "whole": "yes, as far as it was read (documents, labels, masks, scores, pairs); `labelgen verify` reads every byte",
    "plausible": "yes: no shard is an outlier and no count is unlikely; the scores say how accurate the labels are",
}


def render_text(report: Report, width: int = WIDTH_OUTSIDE_TERMINALS, colours: bool = False) -> str:
    """Return a report as text of at most `width` columns; without colours it is plain, and the same everywhere."""
    console = Console(
        file=StringIO(),
        width=width,
        force_terminal=colours,
        color_system="standard" if colours else None,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        console.print(*_with_gaps(list(_sections(report))), sep="\n")
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _with_gaps(sections: Sequence[RenderableType]) -> Iterator[RenderableType]:
    for number, section in enumerate(sections):
        if number:
            yield ""
        yield section


def _sections(report: Report) -> Iterator[RenderableType]:
    yield _head(report)
    class_name = report.selection.class_name if report.selection else None
    if statistics := report.statistics:
        yield _overview(statistics, report.scoring.title)
        yield tables.clip_scores(statistics.scores)
        yield tables.mask_sizes(statistics.masks)
        if statistics.truth.masks:
            yield tables.segment_sizes(statistics.truth.masks)
        yield from tables.label_shares(statistics, class_name, report.scoring.title)
    if report.instances:
        yield _instances(report.instances)
    if report.over_time:
        yield _over_time(report.over_time)
    if report.outliers:
        yield tables.outliers(report.outliers)
    if diagnoses := [d for d in report.classes if class_name in (None, d.name)]:
        yield tables.diagnoses(diagnoses, report.scoring.title)
    if report.worst_samples:
        yield tables.worst_samples(report.worst_samples, report.scoring.title)
    if report.against:
        yield from tables.comparison(report.against, report.scoring.title)
    if not report.selection:
        yield tables.groups(group_rows(report))
        yield tables.stored_bytes(report.bytes)


def _head(report: Report) -> RenderableType:
    title = f"{report.cache}: {report.dataset}, split {report.split}, schema version {report.schema_version}"
    parts: list[RenderableType] = [Text(title, style="bold", overflow="fold")]
    if report.teachers.untrained:
        parts.insert(0, Text(f"UNTRAINED TEACHERS: {UNTRAINED}", style="bold red"))
    rows = _headed_rows()
    _add_verdict(rows, report.verdict)
    rows.add_row("teachers", describe_teachers(report.teachers))
    rows.add_row("preset", report.preset)
    rows.add_row("prompts", f"{report.prompts}; taxonomy {report.taxonomy}")
    shards, samples = report.shards, report.samples
    rows.add_row(
        "shards",
        f"{shards.sealed:,} sealed, {shards.unfinished:,} unfinished, {shards.quarantined:,} with no usable sample",
    )
    rows.add_row("samples", f"{samples.labelled:,} labelled, {samples.quarantined:,} quarantined")
    reasons = [f"{reason.sample} ({reason.stage}): {reason.reason}" for reason in samples.reasons]
    for line in _shortened(reasons):
        rows.add_row("", line)
    if shards.stale:
        rows.add_row(Text("STALE", style="yellow"), f"{counted(shards.stale, 'shard')} {STALE}")
    if report.selection:
        what = describe_selection(report.selection)
        rows.add_row(Text("ONLY", style="yellow"), f"{what}: all numbers below are of these samples")
    return Group(*parts, rows)


def _headed_rows() -> Table:
    """Return an empty table of two columns: a heading, and text that wraps beside it."""
    rows = Table.grid()
    rows.add_column(width=_HEADING_WIDTH, no_wrap=True)
    rows.add_column(overflow="fold")
    return rows


def _add_verdict(rows: Table, verdict: Verdict) -> None:
    answers = {"complete": verdict.complete, "whole": verdict.whole, "plausible": verdict.plausible}
    for question, against in answers.items():
        if not against:
            rows.add_row(question, Text(_WELL[question], style="green"))
            continue
        answer, colour = ("LOOK", "yellow") if question == "plausible" else ("NO", "red")
        for number, reason in enumerate(_shortened([f"{answer}: {reason}" for reason in against])):
            rows.add_row("" if number else question, Text(reason, style=colour))


def _shortened(lines: Sequence[str]) -> list[str]:
    more = len(lines) - LISTED
    return [*map(printable, lines[:LISTED]), *([f"... and {more} more, see --json"] if more > 0 else [])]


def _instances(found: InstanceReport) -> RenderableType:
    rows = _headed_rows()
    rows.add_row(
        "instances",
        f"{found.instances:,}, {found.seen:,} seen by a camera; points with a label: "
        f"{percent(found.points_labelled_by_pixels)} by pixels, {percent(found.points_labelled)} with instances",
    )
    if truth := found.truth:
        steps = ", ".join(f"t = {t}: {percent(share)}" for t, share in truth.right_by_steps.items())
        rows.add_row("", f"{percent(truth.one_class)} of their points have the true class of their instance")
        rows.add_row("", f"instances right after affinity, of {truth.judged:,}: {steps}")
        rows.add_row(
            "",
            f"instances right by the most frequent label of their pixels: {percent(truth.right_by_majority_raw)} raw, "
            f"{percent(truth.right_by_majority_refined)} refined",
        )
        rows.add_row(
            "",
            f"mIoU of points: {percent(truth.point_miou_by_pixels)} by pixels, "
            f"{percent(truth.point_miou_by_instances)} with instances",
        )
    return rows


def _over_time(found: OverTimeReport) -> RenderableType:
    rows = _headed_rows()
    rows.add_row("over time", "voted labels of each keyframe -> labels on which keyframes agree")
    for unit, labels in found.labels.by_unit:
        labelled, miou, accuracy = (
            f"{percent(kind.voted)} -> {percent(kind.over_time)}"
            for kind in (labels.labelled, labels.miou, labels.accuracy)
        )
        if labels.miou.voted is None and labels.miou.over_time is None:
            rows.add_row("", f"{unit}: {labelled} have a label")
            continue
        rows.add_row("", f"{unit}: {labelled} have a label, mIoU {miou}, accuracy {accuracy}")
        miou, accuracy = (
            f"{percent(kind.voted)} -> {percent(kind.over_time)}"
            for kind in (labels.common_miou, labels.common_accuracy)
        )
        rows.add_row("", f"{unit} with a label of both kinds: mIoU {miou}, accuracy {accuracy}")
    return rows


def _overview(statistics: LabelStatistics, scoring: str) -> RenderableType:
    scores, points, masks, labels = statistics.scores, statistics.points, statistics.masks, statistics.labels
    rows = _headed_rows()
    rows.add_row(
        "scores",
        f"mean entropy {decimal(scores.entropy.mean)} of 1, mean lead of the best class "
        f"{percent(scores.margin.mean)}, over {scores.patches:,} patches",
    )
    by_cameras = ", ".join(f"{count:,} by {cameras}" for cameras, count in points.by_cameras.items())
    rows.add_row(
        "points",
        f"{points.total:,}, {percent(points.seen_share)} seen by a camera ({by_cameras} cameras), "
        f"{points.pairs:,} pairs of a pixel and a point, {points.hidden_pairs:,} of them hidden"
        if points.total
        else "none",
    )
    rows.add_row(
        "masks",
        f"{decimal(masks.per_image.mean, 1)} an image ({masks.per_image.min} to {masks.per_image.max}), covering "
        f"{percent(masks.covered_share)} of the pixels",
    )
    rows.add_row(
        "agreement",
        f"the vote changed {percent(labels.image.changed)} of the pixels and {percent(labels.point.changed)} of the "
        f"points; cameras disagree on {percent(points.camera_disagreement)} of the points that two or more see; 2D and "
        f"3D labels agree on {percent(points.pair_agreement)} of the pairs",
    )
    for unit, truth in statistics.truth.by_unit:
        if truth is None:
            rows.add_row("truth", f"none for {unit}")
            continue
        raw, voted = truth.raw, truth.refined
        rows.add_row(
            "truth",
            f"{unit}: mIoU {percent(raw.miou)} -> {percent(voted.miou)}, accuracy {percent(raw.accuracy)} -> "
            f"{percent(voted.accuracy)} (raw -> voted); {percent(truth.share)} of all {unit} have truth, and "
            f"{truth.truth - sum(voted.unlabelled.values()):,} of these {truth.truth:,} have a label",
        )
    if any(truth for _, truth in statistics.truth.by_unit):
        rows.add_row("scored", f"by {scoring}")
    return rows
