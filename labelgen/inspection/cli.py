"""The command `labelgen inspect`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache_schemas.command_line import FAILED, fail, reports_errors

if TYPE_CHECKING:
    from cache_schemas.scoring import Absent, Unlabelled


@click.command(short_help="Report what a cache holds and how good it is.")
@click.argument("cache")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object; docs/reference/inspect-json.md lists its keys."
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Also write one self-contained page.")
@click.option("--pictures", type=click.Path(path_type=Path), metavar="DIR", help="Also draw pictures into DIR.")
@click.option("--rerun", "recording", type=click.Path(path_type=Path), metavar="FILE.rrd", help="Also record in 3D.")
@click.option("--show", default=4, show_default=True, type=click.IntRange(0), help="Samples to draw, worst first.")
@click.option("--sample", "samples", multiple=True, metavar="TOKEN", help="Only this sample; may be repeated.")
@click.option("--class", "class_name", metavar="NAME", help="Only samples where this class occurs.")
@click.option("--worst", type=click.IntRange(1), metavar="N", help="Only the N worst samples.")
@click.option("--against", metavar="CACHE", help="Also list the differences from this other cache.")
@click.option(
    "--against-source", "source", metavar="NAME", help="Score labels by those imported as NAME, not by truth."
)
@click.option(
    "--unlabelled",
    default="ignore",
    show_default=True,
    type=click.Choice(["ignore", "miss"]),
    help="Points and pixels with truth and without a label are left out, or count as wrong.",
)
@click.option(
    "--absent",
    default="leave",
    show_default=True,
    type=click.Choice(["leave", "zero"]),
    help="Classes in neither truth nor labels leave the mean of IoU, or count as 0.",
)
@reports_errors("run the same command again")
def inspect(
    cache: str,
    as_json: bool,
    html: Path | None,
    pictures: Path | None,
    recording: Path | None,
    show: int,
    samples: tuple[str, ...],
    class_name: str | None,
    worst: int | None,
    against: str | None,
    source: str | None,
    unlabelled: "Unlabelled",
    absent: "Absent",
) -> None:
    """Report whether a cache is complete, whole and plausible, and which classes, shards and samples need a look.

    Samples are ranked by their share of wrong labels if there is truth, otherwise by how unusual they are.

    \b
    Examples:
      labelgen inspect out/nuscenes.zarr
      labelgen inspect out/nuscenes.zarr --html report.html --show 8
      labelgen inspect out/nuscenes.zarr --class bicycle --worst 20 --pictures out/pictures
      labelgen inspect out/new.zarr --against out/old.zarr
      labelgen inspect out/kitti.zarr --unlabelled miss --absent zero     # as SemanticKITTI scores
      labelgen inspect out/nuscenes.zarr --json | jq .truth.point.refined.miou

    \b
    Exit codes: 0 reported, 1 there is no cache, or it is not whole.
    """
    from tqdm.dask import TqdmCallback

    from cache_schemas.location import canonical
    from labelgen.inspection.command import draw_samples, make_report, report_as_json, report_as_text
    from labelgen.inspection.report import Scoring

    read = {canonical(place) for place in (cache, against) if place}
    if replaced := [file for file in (html, recording) if file and canonical(str(file)) in read]:
        fail(f"{replaced[0]}: is the cache that is read, and would be replaced; choose another file")
    scoring = Scoring(source=source, unlabelled=unlabelled, absent=absent)
    with TqdmCallback(desc="reading shards", unit="task", delay=2, leave=False, disable=None, file=sys.stderr):
        report = make_report(cache, samples, class_name, worst, against, scoring)
    click.echo(report_as_json(report) if as_json else report_as_text(report))
    try:
        for file in draw_samples(report, html, pictures, recording, show):
            click.echo(f"wrote {file}", err=True)
    except OSError as error:
        fail(f"{error.filename or html or pictures or recording}: cannot be written ({error.strerror}); choose another")
    for reason in report.verdict.whole:
        click.echo(f"error: {reason}", err=True)
    sys.exit(FAILED if report.verdict.whole else 0)
