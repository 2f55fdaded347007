"""The `labelgen` command: the front door to label runs, inspection, verification and weights."""

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click

FAILED = 1
QUARANTINED = 3
INTERRUPTED = 130


def _reports_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print errors that a user can act on as one line, and exit with 1."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from cache_schemas.errors import CacheError
        from labelgen.errors import LabelgenError

        try:
            return command(*args, **kwargs)
        except (CacheError, LabelgenError) as error:
            _fail(str(error))
        except KeyboardInterrupt:
            click.echo("interrupted; what is sealed stays, and the same command goes on from there", err=True)
            sys.exit(INTERRUPTED)

    return wrapped


def _fail(message: str) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(FAILED)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="labelgen")
def main() -> None:
    """Pseudo labels for images and lidar points from CLIP and SAM, computed once, into a Zarr cache.

    \b
    Examples:
      labelgen run --dataset nuscenes --data /data/nuscenes --cache out/nuscenes.zarr --split train
      labelgen inspect out/nuscenes.zarr
      labelgen verify out/nuscenes.zarr
      labelgen weights fetch sam-vit-h
    """


@main.command()
@click.option("--dataset", required=True, help="Which adapter reads the data: nuscenes.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the raw dataset.")
@click.option("--cache", required=True, help="Where the cache is or shall be: a folder, or a URL such as s3://...")
@click.option("--split", help="Which scenes: an official split, parametrize, verify, or all (the default).")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings in place of the dataset's.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One setting; may be repeated.")
@click.option("--teachers", help="Teacher preset: paper (the default), or untrained to try things without weights.")
@click.option("--ray-address", help="A running Ray cluster (default: RAY_ADDRESS, else a local one).")
@click.option("--shards", default="*", show_default=True, metavar="PATTERN", help="Only shards whose key matches.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N shards.")
@click.option("--retry-quarantined", is_flag=True, help="Try samples again that earlier runs left out.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@_reports_errors
def run(
    dataset: str,
    data: Path,
    cache: str,
    split: str | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
    teachers: str | None,
    ray_address: str | None,
    shards: str,
    limit: int | None,
    retry_quarantined: bool,
    as_json: bool,
) -> None:
    """Compute what is missing or changed in a cache of pseudo labels.

    Run it again after an interruption, a repaired file or a changed setting: only what is due is done.

    \b
    Examples:
      labelgen run --dataset nuscenes --data /data/nuscenes --cache out/n.zarr --split parametrize
      labelgen run --dataset nuscenes --data /data/nuscenes --cache out/n.zarr --set prompts=nuscenes-paper
      labelgen run --dataset nuscenes --data /data/nuscenes --cache out/try.zarr --teachers untrained --limit 2

    \b
    Exit codes: 0 all samples labelled, 1 stopped by an error, 2 wrong usage,
    3 finished but some samples are quarantined, 130 interrupted.
    """
    from pipelines.config import load_config
    from pipelines.run import RunRequest, generate_labels

    config = load_config(dataset, file=config_file, teachers=teachers, split=split, overrides=overrides)
    request = RunRequest(config, data, cache, shards, limit, ray_address, retry_quarantined)
    summary = generate_labels(request, say=lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps(summary.to_dict(), indent=2))
    else:
        click.echo(summary.render())
    sys.exit(QUARANTINED if summary.samples_quarantined else 0)


@main.command()
@click.argument("cache")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; docs/inspect.md lists its keys.")
@click.option("--pictures", type=click.Path(path_type=Path), metavar="DIR", help="Also draw samples into DIR.")
@click.option("--samples", default=4, show_default=True, type=click.IntRange(1), help="How many samples to draw.")
@_reports_errors
def inspect(cache: str, as_json: bool, pictures: Path | None, samples: int) -> None:
    """Say what is in a cache: shards, teachers, class shares, coverage, masks, agreement with truth.

    \b
    Examples:
      labelgen inspect out/nuscenes.zarr
      labelgen inspect out/nuscenes.zarr --pictures out/pictures --samples 10
      labelgen inspect out/nuscenes.zarr --json | jq .truth.point.refined.miou
    """
    from cache_schemas.store import Cache
    from labelgen.inspection import inspect_cache
    from labelgen.report import render

    found = inspect_cache(cache)
    click.echo(json.dumps(found, indent=2) if as_json else render(found))
    if pictures:
        from labelgen.pictures import write_pictures

        for file in write_pictures(*Cache.open(cache), pictures, samples):
            click.echo(f"drew {file}", err=True)


@main.command()
@click.argument("cache")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: {problems: [{kind, path, message}]}.")
@_reports_errors
def verify(cache: str, as_json: bool) -> None:
    """Read every byte of a cache and list every problem with its path; exit code 1 if there is any.

    \b
    Example:
      labelgen verify out/nuscenes.zarr
    """
    from cache_schemas.store import Cache
    from cache_schemas.validate import problems_as_json, validate

    problems = []
    for problem in validate(*Cache.open(cache)):
        problems.append(problem)
        if not as_json:
            click.echo(f"{problem.path}: {problem.kind}: {problem.message}")
    click.echo(
        problems_as_json(problems)
        if as_json
        else f"{cache}: {len(problems)} problems"
        if problems
        else f"{cache}: sound"
    )
    sys.exit(FAILED if problems else 0)


@main.group()
def weights() -> None:
    """List or fetch the official teacher weights.

    Files go to the folder named by LABELGEN_WEIGHTS (default: ~/.cache/labelgen/weights).
    """


@weights.command("list")
def list_weights() -> None:
    """List the registered weights and whether they are here."""
    from labelgen.weights import REGISTRY, weights_folder

    click.echo(f"folder: {weights_folder()}")
    for name, entry in REGISTRY.items():
        here = "here  " if (weights_folder() / entry.file_name).is_file() else "absent"
        click.echo(f"{name:<14} {here}  {entry.meaning}\n{'':<14} {entry.url}\n{'':<14} sha256 {entry.sha256}")


@weights.command("fetch")
@click.argument("name")
@_reports_errors
def fetch_weights(name: str) -> None:
    """Download weights by NAME, check their SHA-256, and resume where an earlier download stopped.

    \b
    Example:
      labelgen weights fetch sam-vit-b
    """
    from tqdm import tqdm

    from labelgen.weights import fetch

    with tqdm(desc=name, unit="B", unit_scale=True, unit_divisor=1024, mininterval=1) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        path = fetch(name, show)
    click.echo(f"{name}: {path}")


if __name__ == "__main__":
    main()
