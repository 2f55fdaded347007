"""The `labelgen` command: the front door to label runs, inspection, verification and weights."""

import json
import os
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


@main.command(short_help="Compute what is missing or changed in a cache.")
@click.option("--dataset", required=True, help="Which adapter reads the data: nuscenes, demo.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the raw dataset.")
@click.option("--cache", required=True, help="Where the cache is or shall be: a folder, or a URL such as s3://...")
@click.option("--split", help="Which scenes: an official split, parametrize, verify, or all (the default).")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings in place of the dataset's.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One setting; may be repeated.")
@click.option(
    "--teachers",
    help="Teacher preset: paper (nuScenes), demo (the demo world), or untrained to try things without weights.",
)
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
    3 finished but some samples are quarantined, 130 stopped by Ctrl-C or SIGTERM.
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


@main.command(short_help="Say what is in a cache, and how good it is.")
@click.argument("cache")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; docs/reference/inspect-json.md lists its keys.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Also write one self-contained page.")
@click.option("--pictures", type=click.Path(path_type=Path), metavar="DIR", help="Also draw pictures into DIR.")
@click.option("--rerun", "recording", type=click.Path(path_type=Path), metavar="FILE.rrd", help="Also record in 3D.")
@click.option("--show", default=4, show_default=True, type=click.IntRange(0), help="Samples to draw, worst first.")
@click.option("--sample", "samples", multiple=True, metavar="TOKEN", help="Only this sample; may be repeated.")
@click.option("--class", "class_name", metavar="NAME", help="Only samples where this class occurs.")
@click.option("--worst", type=click.IntRange(1), metavar="N", help="Only the N worst samples.")
@click.option("--against", metavar="CACHE", help="Also say what differs in this other cache.")
@_reports_errors
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
) -> None:
    """Say what is in a cache: is it complete, whole, plausible; which classes, shards and samples to look at.

    Samples are ranked by their share of wrong labels where there is truth, else by how much they stand out.

    \b
    Examples:
      labelgen inspect out/nuscenes.zarr
      labelgen inspect out/nuscenes.zarr --html report.html --show 8
      labelgen inspect out/nuscenes.zarr --class bicycle --worst 20 --pictures out/pictures
      labelgen inspect out/new.zarr --against out/old.zarr
      labelgen inspect out/nuscenes.zarr --json | jq .truth.point.refined.miou

    \b
    Exit codes: 0 reported, 1 there is no cache, or it is not whole.
    """
    from tqdm.dask import TqdmCallback

    from labelgen.inspection.command import draw_samples, make_report, report_as_json, report_as_text

    with TqdmCallback(desc="reading shards", unit="task", delay=2, leave=False, disable=None, file=sys.stderr):
        report = make_report(cache, samples, class_name, worst, against)
    click.echo(report_as_json(report) if as_json else report_as_text(report))
    try:
        for file in draw_samples(report, html, pictures, recording, show):
            click.echo(f"wrote {file}", err=True)
    except OSError as error:
        _fail(f"{error.filename or html or pictures or recording}: cannot write there ({error.strerror}); give another")
    for reason in report.verdict.whole:
        click.echo(f"error: {reason}", err=True)
    sys.exit(FAILED if report.verdict.whole else 0)


@main.command(short_help="Read every byte and list every problem.")
@click.argument("cache")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: {problems: [..], removed: [..]}.")
@click.option("--repair", "drop", is_flag=True, help="Remove what is bad, so that the next run redoes just that.")
@_reports_errors
def verify(cache: str, as_json: bool, drop: bool) -> None:
    """Read every byte of a cache and list every problem with its path.

    \b
    Examples:
      labelgen verify out/nuscenes.zarr
      labelgen verify out/nuscenes.zarr --repair && labelgen run ...

    \b
    Exit codes: 0 sound, or repaired; 1 there are problems.
    """
    from contextlib import nullcontext

    from cache_schemas.lock import run_lock
    from cache_schemas.repair import repair
    from cache_schemas.store import Cache
    from cache_schemas.validate import validate

    Cache.open(cache)
    problems, removed = [], []
    with run_lock(cache) if drop else nullcontext():
        opened, manifest = Cache.open(cache, "a" if drop else "r")
        for problem in validate(opened, manifest):
            problems.append(problem)
            if not as_json:
                click.echo(str(problem))
        if drop:
            try:
                removed = repair(opened, problems)
            except OSError as error:
                _fail(f"{cache}: cannot remove what is bad ({error}); mend the permissions and repair again")
    if as_json:
        found = {"problems": [problem.to_dict() for problem in problems], "removed": removed}
        click.echo(json.dumps(found, indent=2))
    elif drop and problems:
        click.echo(f"{cache}: removed {len(removed)} groups and files; run the same `labelgen run` again to redo them")
    elif problems:
        click.echo(f"{cache}: {len(problems)} problems; `labelgen verify {cache} --repair` removes what is bad")
    else:
        click.echo(f"{cache}: sound, {len(opened.shard_keys())} shards")
    sys.exit(FAILED if problems and not drop else 0)


@main.group(short_help="Make the demo world.")
def demo() -> None:
    """Make the demo world: rendered street scenes with full truth, in the nuScenes layout."""


@demo.command("make", short_help="Render street scenes with full truth.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder to write; must not hold a world yet."
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="The same seed gives the same bytes."
)
@click.option("--scenes", default=40, show_default=True, type=click.IntRange(1, 1000), help="Number of street scenes.")
@click.option(
    "--keyframes", default=1, show_default=True, type=click.IntRange(1), help="Keyframes a scene, 0.5 s apart."
)
@click.option(
    "--difficulty",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="How far textures, light and clutter move away from what the demo's teachers saw.",
)
@click.option("--workers", type=click.IntRange(1), help="Scenes rendered at once (default: one a core).")
@_reports_errors
def make_demo(out: Path, seed: int, scenes: int, keyframes: int, difficulty: float, workers: int | None) -> None:
    """Render street scenes: six cameras, a lidar, boxes, lidarseg, and classes and segments of every pixel.

    \b
    Examples:
      labelgen demo make --out out/streets --scenes 2
      labelgen run --dataset demo --data out/streets --cache out/streets.zarr
      labelgen inspect out/streets.zarr --pictures out/streets-pictures
    """
    from pipelines.demo.world import make_world

    if (out / "v1.0-mini").exists():
        _fail(f"{out}: holds a world already; give another folder, or remove this one")
    try:
        with click.progressbar(length=scenes, label="rendering scenes", file=sys.stderr) as bar:
            make_world(
                out,
                seed,
                scenes,
                keyframes,
                difficulty,
                progress=lambda done, total: bar.update(done - bar.pos),
                workers=workers or os.cpu_count() or 1,
            )
    except KeyboardInterrupt:
        click.echo(f"interrupted; the same command renders {out} from the start", err=True)
        sys.exit(INTERRUPTED)
    click.echo(f"{out}: {scenes} scenes of {keyframes} keyframes")


@main.group()
def weights() -> None:
    """List or fetch teacher weights.

    Those of the demo come with the package. Official files go to the folder named by LABELGEN_WEIGHTS
    (default: ~/.cache/labelgen/weights).
    """


@weights.command("list")
def list_weights() -> None:
    """List the registered weights and whether they are here."""
    from labelgen.weights import REGISTRY, weights_folder

    click.echo(f"folder: {weights_folder()}")
    for name, entry in REGISTRY.items():
        here = "here  " if entry.path.is_file() else "absent"
        click.echo(f"{name:<14} {here}  {entry.meaning}\n{'':<14} {entry.origin}\n{'':<14} sha256 {entry.sha256}")


@weights.command("fetch", short_help="Download weights and check them.")
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

    bar: tqdm[None] | None = None

    def show(done: int, total: int | None) -> None:
        nonlocal bar
        if bar is None:  # not before there is something to show: errors come first
            bar = tqdm(
                desc=name, initial=done, total=total, unit="B", unit_scale=True, unit_divisor=1024, mininterval=1
            )
        bar.update(done - bar.n)

    try:
        path = fetch(name, show)
    finally:
        if bar is not None:
            bar.close()
    click.echo(f"{name}: {path}")


if __name__ == "__main__":
    main()
