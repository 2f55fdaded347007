"""The commands `labelgen export` and `labelgen import-labels`."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from cache_schemas.command_line import reports_errors

FORMAT_NAMES = ("nuscenes-lidarseg", "semantickitti", "scannet", "pointcept", "coco-panoptic")
"""The formats, as `labels_out.FORMATS` has them; this module is imported for `--help`."""

POINT_FORMAT_NAMES = FORMAT_NAMES[:-1]


@click.command(short_help="Write the labels of a cache in an official format.")
@click.argument("cache")
@click.option("--format", "file_format", required=True, type=click.Choice(FORMAT_NAMES), help="Format of the files.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder for the files.")
@click.option(
    "--labels",
    default="refined",
    show_default=True,
    type=click.Choice(["raw", "refined"]),
    help="Labels before the vote in masks, or after it.",
)
@click.option("--shards", "pattern", default="*", show_default=True, metavar="PATTERN", help="Only these shards.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there and were changed or made by others.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reports_errors("run the same command again: files that are written already stay")
def export(cache: str, file_format: str, out: Path, labels: str, pattern: str, overwrite: bool, as_json: bool) -> None:
    """Write the labels of a cache as files of another data set or tool.

    nuscenes-lidarseg, semantickitti and scannet have the ids of their own taxonomies; pointcept and coco-panoptic take
    any. docs/guides/export.md describes the files.

    \b
    Examples:
      labelgen export out/nuscenes.zarr --format nuscenes-lidarseg --out labels
      labelgen export out/kitti.zarr --format semantickitti --out labels --labels raw
      labelgen export out/demo.zarr --format coco-panoptic --out panoptic --shards 'scene-000*'

    \b
    Exit codes: 0 written, 1 stopped by an error.
    """
    from labelgen.export.labels_out import export_labels

    done = export_labels(
        cache,
        file_format,
        out,
        labels="raw" if labels == "raw" else "refined",
        pattern=pattern,
        overwrite=overwrite,
        track=_track,
    )
    click.echo(json.dumps(done.to_dict(), indent=2) if as_json else str(done))


@click.command("import-labels", short_help="Take corrected labels into a cache, as a source with a name.")
@click.argument("cache")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--format", "file_format", required=True, type=click.Choice(POINT_FORMAT_NAMES), help="Format of DIR.")
@click.option("--name", required=True, help="Name of the source.")
@click.option("--overwrite", is_flag=True, help="Replace the labels of a source of this name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reports_errors("run the same command again with --overwrite")
def import_labels(cache: str, folder: Path, file_format: str, name: str, overwrite: bool, as_json: bool) -> None:
    """Take the point labels in DIR into a cache, beside its own, as the source NAME.

    DIR has files as `labelgen export` writes them. The cache's own labels and its truth stay as they are.

    \b
    Examples:
      labelgen import-labels out/nuscenes.zarr labels --format nuscenes-lidarseg --name corrected
      labelgen inspect out/nuscenes.zarr --against-source corrected
      trainer fit out/nuscenes.zarr --out runs/corrected --set stream.label_source=corrected

    \b
    Exit codes: 0 stored, 1 stopped by an error.
    """
    from labelgen.export.labels_in import import_labels as store

    done = store(cache, folder, file_format, name, overwrite=overwrite, track=_track)
    click.echo(json.dumps(done.to_dict(), indent=2) if as_json else str(done))


def _track(keys: Iterable[str]) -> Iterable[str]:
    from tqdm import tqdm

    shown: Iterable[str] = tqdm(
        list(keys), desc="shards", unit="shard", delay=2, leave=False, disable=None, file=sys.stderr
    )
    return shown
