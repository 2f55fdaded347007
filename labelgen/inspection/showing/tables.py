"""The tables of the audit's text, made with rich."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.filesize import decimal as file_size
from rich.table import Column, Table

from cache_schemas.documents import TeacherIdentity
from cache_schemas.names import printable
from labelgen.inspection.formatting import decimal, percent, share_or_decimal
from labelgen.inspection.report import ClassChange, ClassDiagnosis, Comparison, Outlier, SampleMeasures, ShardChange
from labelgen.inspection.report_statistics import ClipScores, LabelStatistics, MaskAgreement, MaskCounts
from labelgen.inspection.showing.groups import GroupRow
from labelgen.inspection.showing.wording import describe_errors, size_range

LISTED_ROWS = 20
"""So many rows of a long table are printed; --json has all."""

_LISTED_SAMPLES = 5
_LISTED_MOVES = 3
_HISTOGRAM_ROWS = 10
_BAR_WIDTH = 20


def _table(title: str, *columns: Column | str) -> Table:
    """Return an empty table."""
    return Table(
        *columns,
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def _text(header: str) -> Column:
    """Return a column of text, which is wrapped where the table would not fit; nothing of it is cut off."""
    return Column(header, overflow="fold")


def _number(header: str) -> Column:
    """Return a column of numbers, aligned to the right and not wrapped."""
    return Column(header, justify="right", no_wrap=True)


def _bars() -> Column:
    return Column("", width=_BAR_WIDTH)


def _bar(count: int, largest: int) -> Bar:
    return Bar(size=max(largest, 1), begin=0, end=count, width=_BAR_WIDTH)


def _note_omitted(table: Table, omitted: int) -> Table:
    """Say below a table how many rows were left out."""
    if omitted > 0:
        table.caption, table.caption_justify, table.caption_style = f"... and {omitted} more, see --json", "left", ""
    return table


def _arrow(before: float | None, after: float | None) -> str:
    return f"{percent(before)} -> {percent(after)}"


def clip_scores(scores: ClipScores) -> RenderableType:
    """Show how entropy and lead of the best class are distributed over patches."""
    table = _table("CLIP scores by value", "value", _number("entropy"), _bars(), _number("lead"), _bars())
    entropy, lead = _sum_bins(scores.entropy.histogram), _sum_bins(scores.margin.histogram)
    for row, (of_entropy, of_lead) in enumerate(zip(entropy, lead, strict=True)):
        table.add_row(
            f"{row / _HISTOGRAM_ROWS:.1f} to {(row + 1) / _HISTOGRAM_ROWS:.1f}",
            percent(of_entropy / max(1, scores.patches)),
            _bar(of_entropy, max(entropy)),
            percent(of_lead / max(1, scores.patches)),
            _bar(of_lead, max(lead)),
        )
    return table


def _sum_bins(histogram: Sequence[int]) -> list[int]:
    """Sum the bins of a histogram to `_HISTOGRAM_ROWS` bins."""
    step = len(histogram) // _HISTOGRAM_ROWS
    return [sum(histogram[row * step : (row + 1) * step]) for row in range(_HISTOGRAM_ROWS)]


def mask_sizes(masks: MaskCounts) -> RenderableType:
    """Show how many masks there are by size."""
    table = _table("masks by share of the picture", _number("share"), _number("masks"), _bars())
    largest = max(part.masks for part in masks.by_share)
    for part in masks.by_share:
        table.add_row(size_range(part.lower, part.upper), f"{part.masks:,}", _bar(part.masks, largest))
    return table


def segment_sizes(masks: MaskAgreement) -> RenderableType:
    """Show how well masks cover true segments, by size."""
    numbers = map(_number, ("share of the picture", "segments", "mean best IoU", "recall at IoU 0.5"))
    table = _table("masks against true segments", *numbers)
    upper = 1.0
    for part in masks.by_share:
        scores = percent(part.mean_best_iou), percent(part.recall_at_half)
        table.add_row(size_range(part.lower, upper), f"{part.segments:,}", *scores)
        upper = part.lower
    table.add_row("all", f"{masks.segments:,}", percent(masks.mean_best_iou), percent(masks.recall_at_half))
    return table


def label_shares(statistics: LabelStatistics, class_name: str | None, scoring: str) -> Iterator[RenderableType]:
    """Show the share of each class before and after the vote, and its IoU and recall where there is truth."""
    for (unit, labels), (_, truth) in zip(statistics.labels.by_unit, statistics.truth.by_unit, strict=True):
        columns = [f"share of {unit}", *(["IoU", "recall"] if truth else [])]
        title = f"labels of {unit}, raw -> voted" + (f"; scored by {scoring}" if truth else "")
        table = _table(title, _text("class"), *map(_number, columns))
        raw_total, voted_total = (sum(counts.values()) or 1 for counts in (labels.raw, labels.refined))
        for name in labels.raw:
            if class_name not in (None, name):
                continue
            cells = [_arrow(labels.raw[name] / raw_total, labels.refined[name] / voted_total)]
            if truth and name in truth.raw.iou:
                cells.append(_arrow(truth.raw.iou[name], truth.refined.iou[name]))
                cells.append(_arrow(truth.raw.class_accuracy[name], truth.refined.class_accuracy[name]))
            table.add_row(name, *cells)
        yield table


def outliers(found: Sequence[Outlier]) -> RenderableType:
    """Show shards that are far from the median of all shards."""
    numbers = map(_number, ("value", "median", "deviations"))
    table = _table("shards that are outliers", _text("shard"), _text("measure"), *numbers)
    for outlier in found[:LISTED_ROWS]:
        values = (share_or_decimal(value, outlier.is_share) for value in (outlier.value, outlier.usual))
        table.add_row(printable(outlier.shard), outlier.title, *values, decimal(outlier.deviations, 1))
    return _note_omitted(table, len(found) - LISTED_ROWS)


def diagnoses(found: Sequence[ClassDiagnosis], scoring: str) -> RenderableType:
    """Show what is wrong with each class, why, and where."""
    columns = _text("class"), _number("IoU"), _text("why"), _text("where most errors are")
    table = _table(f"classes, lowest IoU first, raw -> voted; scored by {scoring}", *columns)
    for entry in found[:LISTED_ROWS]:
        where = describe_errors(entry.shards[0]) if entry.shards else ""
        table.add_row(entry.name, _arrow(entry.raw_iou, entry.voted_iou), entry.reason, where)
    return _note_omitted(table, len(found) - LISTED_ROWS)


def worst_samples(samples: Sequence[SampleMeasures], scoring: str) -> RenderableType:
    """Show the samples to look at."""
    numbers = map(_number, ("pixels\nright", "points\nright", "masks an\nimage", "vote\nchanged", "cameras\ndisagree"))
    scored = any(sample.measures[f"{unit}_accuracy"] is not None for sample in samples for unit in ("pixel", "point"))
    title = "samples to look at, worst first" + (f"; scored by {scoring}" if scored else "")
    table = _table(title, _text("sample"), _text("shard"), *numbers)
    for sample in samples[:_LISTED_SAMPLES]:
        measures = sample.measures
        table.add_row(
            sample.sample,
            printable(sample.shard),
            percent(measures["pixel_accuracy"]),
            percent(measures["point_accuracy"]),
            decimal(measures["masks_per_image"], 1),
            percent(measures["changed"]),
            percent(measures["camera_disagreement"]),
        )
    return _note_omitted(table, len(samples) - _LISTED_SAMPLES)


def comparison(against: Comparison, scoring: str) -> Iterator[RenderableType]:
    """Show what differs in another cache."""
    title = f"compared with {against.cache}, there -> here"
    settings = _table(title, _text("setting"), _text("there"), _text("here"))
    for name, values in against.settings.items():
        settings.add_row(name, _setting(values.there), _setting(values.here))
    yield settings if against.settings else Group(title, "  made with the same settings")
    by_pixels, by_points = (f"; scored by {scoring}" if scores else "" for _, scores in against.scores.by_unit)
    yield _label_changes(against, by_pixels or by_points)
    pixels = {name: change.image for name, change in against.classes.items()}
    yield _class_changes(f"labels of pixels, there -> here{by_pixels}", "share of pixels", pixels)
    points = {name: change.point for name, change in against.classes.items()}
    yield _class_changes(f"labels of points, there -> here{by_points}", "share of points", points)
    if changed := [shard for shard in against.by_shard if shard.image or shard.point]:
        yield _changed_shards(changed)
    reasons = Counter(shard.reason for shard in against.by_shard if shard.reason)
    yield Group(
        *(f"shards that cannot be compared label by label: {n}, {reason}" for reason, n in reasons.items()),
        f"shards only here: {len(against.only_here)}, only there: {len(against.only_there)}",
    )


def _setting(value: str | TeacherIdentity | None) -> str:
    return f"{value.architecture} ({value.weights})" if isinstance(value, TeacherIdentity) else f"{value or '-':.40}"


def _label_changes(against: Comparison, scored: str) -> RenderableType:
    columns = _text("labels of"), _number("voted mIoU"), _number("changed"), _text("largest changes")
    table = _table(f"labels, there -> here{scored}", *columns)
    for (unit, moved), (_, scores) in zip(against.moved.by_unit, against.scores.by_unit, strict=True):
        moves = moved.moves[:_LISTED_MOVES] if moved else ()
        table.add_row(
            unit,
            _arrow(scores.refined.miou.there, scores.refined.miou.here) if scores else "-",
            percent(moved.share) if moved else "-",
            ", ".join(f"{move.before} -> {move.after} {move.count:,}" for move in moves) or "none",
        )
    return table


def _class_changes(title: str, share: str, changes: Mapping[str, ClassChange]) -> RenderableType:
    table = _table(title, _text("class"), _number(share), _number("IoU"))
    for name, change in changes.items():
        table.add_row(name, _arrow(change.share.there, change.share.here), _arrow(change.iou.there, change.iou.here))
    return table


def _changed_shards(changed: Sequence[ShardChange]) -> RenderableType:
    table = _table("shards with most changes", _text("shard"), _number("pixels changed"), _number("points changed"))
    for shard in changed[:LISTED_ROWS]:
        table.add_row(printable(shard.shard), percent(shard.image), percent(shard.point))
    return _note_omitted(table, len(changed) - LISTED_ROWS)


def groups(rows: Sequence[GroupRow]) -> RenderableType:
    """Show what each group holds, and in how many shards it is sealed."""
    table = _table("groups", _text("group"), _text("what it holds"), _number("shards"), _number("size"))
    for row in rows:
        shards = "-" if row.sealed is None else f"{row.sealed:,}"
        table.add_row(row.name, row.description, shards, file_size(row.stored_bytes))
    return table


def stored_bytes(sizes: Mapping[str, int]) -> RenderableType:
    """Show how much disk each array takes."""
    table = _table("bytes on disk", _text("array"), _number("size"))
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        table.add_row(name, file_size(size))
    table.add_row("all", file_size(sum(sizes.values())))
    return table
