"""The command `labelgen compare-labels`."""

import json

import click

from cache_schemas.command_line import reports_errors, text_width


@click.command(short_help="Compare the labels of several caches of the same data.")
@click.argument("caches", nargs=-1, required=True)
@click.option(
    "--labels",
    "groups",
    type=click.Choice(["labels", "time"]),
    multiple=True,
    default=("labels",),
    show_default=True,
    help="labels: those of each keyframe alone; time: those on which keyframes agree. May be repeated: a row for each.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the IoU of classes and confidences.")
@reports_errors("run the same command again")
def compare_labels(caches: tuple[str, ...], groups: tuple[str, ...], as_json: bool) -> None:
    """Score the labels of CACHES, made of the same data, against truth: one row for each cache and group of labels.

    Each cache is scored on all its labels, and on the pixels and points that have a label in all of them. The
    calibration error tells how far confidence is from accuracy, where it is stored (--set labels.confidence=true).
    Work is seconds of all stages that the labels are made from; it is known if the last run of the cache did them all.

    \b
    Examples:
      labelgen compare-labels out/counts.zarr out/mean.zarr
      labelgen compare-labels out/demo.zarr --labels labels --labels time
    """
    from labelgen.comparison.counting import compare
    from labelgen.comparison.table import render

    found = compare(caches, groups)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else render(found, text_width()))
