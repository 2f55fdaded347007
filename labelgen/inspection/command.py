"""What the command `labelgen inspect` calls: make the report, return it as text, draw samples."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from cache_schemas.command_line import text_width
from labelgen.inspection.audit import inspect_cache
from labelgen.inspection.counting.samples import SampleId
from labelgen.inspection.report import Report, Scoring, Selection
from labelgen.inspection.showing.terminal import render_text


def make_report(
    cache: str,
    samples: tuple[str, ...],
    class_name: str | None,
    worst: int | None,
    against: str | None,
    scoring: Scoring,
) -> Report:
    """Return the report of a cache, or of the selected samples of it.

    Raises:
        CacheError: if there is no readable cache at a URL, the selection names what is not in it, or the caches have
            different classes.
    """
    selected = bool(samples or class_name or worst)
    selection = Selection(samples=samples, class_name=class_name, worst=worst) if selected else None
    return inspect_cache(cache, selection, against, scoring)


def report_as_json(report: Report) -> str:
    """Return the report as one JSON object."""
    return json.dumps(report.to_dict(), indent=2)


def report_as_text(report: Report) -> str:
    """Return the report as text: as wide as the terminal and with colours, or plain and of fixed width for a pipe."""
    colours = sys.stdout.isatty() and Console().color_system is not None
    return render_text(report, width=text_width(), colours=colours)


def draw_samples(
    report: Report, page: Path | None, pictures: Path | None, recording: Path | None, number: int
) -> Iterator[Path]:
    """Draw the `number` worst samples, as far as files or folders for them are given; yields the files.

    Raises:
        CacheError: if a recording is wanted and rerun is not installed.
        OSError: if a file cannot be written.
    """
    ids = [SampleId(sample.shard, sample.sample) for sample in report.worst_samples[:number]]
    if page:
        from labelgen.inspection.showing.page import write_page

        yield write_page(report, ids, page)
    if pictures:
        from labelgen.inspection.showing.confusion_picture import write_confusions
        from labelgen.inspection.showing.sample_pictures import write_pictures

        yield from write_pictures(report.cache, ids, pictures, report.scoring.source)
        yield from write_confusions(report, pictures)
    if recording:
        from labelgen.inspection.showing.recording import write_recording

        yield write_recording(report.cache, ids, recording, report.scoring.source)
