"""The commands `labelgen run` and `labelgen plan`."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from cache_schemas.command_line import reports_errors, say, text_width
from labelgen.datasets import dataset_names
from pipelines.stop import HOW_TO_RESUME, stops_like_ctrl_c

QUARANTINED = 3
"""Exit code of a run that finished, but left some samples without labels."""


class _Part(click.ParamType[tuple[int, int]]):
    """One of several equal parts of the shards, such as 3/8."""

    name = "K/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return the number of the part, from 1, and how many there are."""
        if isinstance(value, tuple):
            return value
        number, _, parts = str(value).partition("/")
        if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
            self.fail(f"{value!r} is no part: give one such as 3/8, from 1/8 to 8/8", param, ctx)
        return int(number), int(parts)


@click.command(short_help="Compute what is missing or changed in a cache.")
@click.option("--dataset", required=True, help=f"Data set: {', '.join(dataset_names())}; files means your own.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the raw data set.")
@click.option("--cache", required=True, help="The cache, new or existing: a folder, or a URL such as s3://...")
@click.option("--split", help="Scenes: an official split, or all (the default).")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Settings file to use instead of the data set's."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One setting; may be repeated.")
@click.option(
    "--preset",
    help="How CLIP reads pictures and how masks vote: paper or better. The default is the data set's: better for demo, "
    "paper for all others.",
)
@click.option(
    "--teachers",
    help="Teacher preset: paper, demo, or untrained (random weights, to try a run).",
)
@click.option("--ray-address", help="A running Ray cluster (default: RAY_ADDRESS, else a local one).")
@click.option(
    "--shards",
    default="*",
    show_default=True,
    metavar="PATTERN",
    help="Only shards whose key matches, such as 'scene-00*'.",
)
@click.option(
    "--part",
    type=_Part(),
    default=(1, 1),
    metavar="K/N",
    help="Part K of N of the shards, for array jobs: each part into a cache of its own, joined by `labelgen merge`.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N shards.")
@click.option("--retry-quarantined", is_flag=True, help="Retry samples that earlier runs quarantined.")
@click.option("--only-complete", is_flag=True, help="Leave out samples whose files are missing, however many.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@stops_like_ctrl_c()  # while the code loads, too
@reports_errors(HOW_TO_RESUME)
@stops_like_ctrl_c()
def run(
    dataset: str,
    data: Path,
    cache: str,
    split: str | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
    preset: str | None,
    teachers: str | None,
    ray_address: str | None,
    shards: str,
    part: tuple[int, int],
    limit: int | None,
    retry_quarantined: bool,
    only_complete: bool,
    as_json: bool,
) -> None:
    """Compute what is missing or changed in a cache of pseudo labels.

    After an interruption, a repaired file or a changed setting, run it again: it computes only what is missing or
    out of date.

    \b
    Examples:
      labelgen run --dataset nuscenes --data /data/nuscenes --cache out/n.zarr --split parametrize
      labelgen run --dataset nuscenes --data /data/nuscenes --cache out/n.zarr --set prompts=nuscenes-paper
      labelgen run --dataset nuscenes --data /data/nuscenes --cache out/n.zarr --preset better
      labelgen run --dataset nuscenes --data /data/nuscenes --cache out/try.zarr --teachers untrained --limit 2

    \b
    Exit codes: 0 all samples labelled, 1 stopped by an error, 2 wrong usage,
    3 finished but some samples are quarantined, 130 stopped by Ctrl-C or SIGTERM.
    """
    from pipelines.config import load_config
    from pipelines.run import RunRequest, generate_labels

    config = load_config(dataset, file=config_file, preset=preset, teachers=teachers, split=split, overrides=overrides)
    request = RunRequest(config, data, cache, shards, part, limit, ray_address, retry_quarantined, only_complete)
    summary = generate_labels(request, say=say)
    if as_json:
        click.echo(json.dumps(summary.to_dict(), indent=2))
    else:
        click.echo(summary.render(text_width()))
    sys.exit(QUARANTINED if summary.samples_quarantined else 0)


_CHOOSES_WORK = {
    *("dataset", "data", "cache", "split", "config_file", "overrides", "preset", "teachers"),
    *("shards", "part", "limit", "retry_quarantined", "only_complete", "as_json"),
}
PLAN_OPTIONS = [option for option in run.params if option.name in _CHOOSES_WORK]
"""The options of `labelgen run` that decide what there is to do."""


@click.command(short_help="Forecast the work, the hours and the bytes of a run.", params=PLAN_OPTIONS)
@reports_errors("nothing was written")
def plan(
    dataset: str,
    data: Path,
    cache: str,
    split: str | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
    preset: str | None,
    teachers: str | None,
    shards: str,
    part: tuple[int, int],
    limit: int | None,
    retry_quarantined: bool,
    only_complete: bool,
    as_json: bool,
) -> None:
    """Say what `labelgen run` with the same options would do: shards, groups, pictures, hours, GPU hours and bytes.

    Nothing is written, and no cluster is started. Times are those of the last run on this cache, for a cluster like
    its own. What no run has measured is "unknown".

    \b
    Examples:
      labelgen plan --dataset nuscenes --data /data/nuscenes --cache out/n.zarr --split train
      labelgen plan --dataset nuscenes --data /data/nuscenes --cache out/n.zarr --set prompts=nuscenes-paper --json

    \b
    Exit codes: 0 planned, 1 the run could not start, 2 wrong usage.
    """
    from pipelines.config import load_config
    from pipelines.forecast import forecast
    from pipelines.run import RunRequest

    config = load_config(dataset, file=config_file, preset=preset, teachers=teachers, split=split, overrides=overrides)
    found = forecast(
        RunRequest(
            config,
            data,
            cache,
            shards,
            part,
            limit,
            retry_quarantined=retry_quarantined,
            only_complete=only_complete,
        )
    )
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else found.render(text_width()))
