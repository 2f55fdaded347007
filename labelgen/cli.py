"""The `labelgen` command; each subcommand is imported when it is used."""

import json
import sys
from pathlib import Path

import click

from cache_schemas.command_line import CONTEXT, FAILED, LazyGroup, fail, reports_errors
from cache_schemas.plurals import counted

COMMANDS = {
    "plan": "pipelines.cli:plan",
    "run": "pipelines.cli:run",
    "reprompt": "pipelines.reprompt.cli:reprompt",
    "replay": "pipelines.replay.cli:replay",
    "inspect": "labelgen.inspection.cli:inspect",
    "card": "labelgen.card.cli:card",
    "pack": "labelgen.pack.cli:pack",
    "query": "labelgen.query.cli:query",
    "compare-labels": "labelgen.comparison.cli:compare_labels",
    "export": "labelgen.export.cli:export",
    "import-labels": "labelgen.export.cli:import_labels",
}
"""Commands whose code lives elsewhere."""

EXTENSIONS = "labelgen.commands"
"""Entry point group of commands that other packages add."""


@click.group(cls=LazyGroup, commands_at=COMMANDS, extensions=EXTENSIONS, context_settings=CONTEXT)
@click.version_option(package_name="labelgen")
def main() -> None:
    """Make pseudo labels for images and lidar points from CLIP and SAM, once, and store them in a Zarr cache.

    \b
    Examples:
      labelgen run --dataset nuscenes --data /data/nuscenes --cache out/nuscenes.zarr --split train
      labelgen check mine/samples.jsonl
      labelgen inspect out/nuscenes.zarr
      labelgen verify out/nuscenes.zarr
      labelgen weights fetch sam-vit-h
    """


@main.command(short_help="Read every byte and list every problem.")
@click.argument("cache")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: {problems: [..], removed: [..]}.")
@click.option("--repair", "drop", is_flag=True, help="Remove what is bad; the next run computes it again.")
@reports_errors("run the same command again")
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
                fail(f"{cache}: cannot remove what is bad ({error}); fix the permissions, then repair again")
    if as_json:
        found = {"problems": [problem.to_dict() for problem in problems], "removed": removed}
        click.echo(json.dumps(found, indent=2))
    elif drop and problems:
        click.echo(
            f"{cache}: removed {len(removed)} groups and files; run the same `labelgen run` again to recompute them"
        )
    elif problems:
        click.echo(
            f"{cache}: {counted(len(problems), 'problem')}; `labelgen verify {cache} --repair` removes what is bad"
        )
    else:
        click.echo(f"{cache}: sound, {counted(len(opened.shard_keys()), 'shard')}")
    sys.exit(FAILED if problems and not drop else 0)


@main.command(short_help="Check a list of your own samples, and draw the first one.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--picture",
    default="check.png",
    show_default=True,
    type=click.Path(path_type=Path),
    metavar="PNG",
    help="Where to draw the points of the first sample over its pictures.",
)
@reports_errors("run the same command again")
def check(file: Path, picture: Path) -> None:
    """Check a list of your own samples: FILE is a JSON Lines file, or a folder with samples.jsonl.

    Reads the list, the classes and the prompts, looks for every file, reads the first sample, and draws its points over
    its pictures, near ones red and far ones blue. docs/guides/your-own-data.md describes the list.

    \b
    Examples:
      labelgen check mine/samples.jsonl
      labelgen check mine --picture out/check.png

    \b
    Exit codes: 0 no problem (there may be warnings), 1 there are problems, 2 wrong usage.
    """
    from PIL import Image

    from cache_schemas.names import printable
    from labelgen.datasets.files.check import check_list, shortened

    found = check_list(file)
    for line in (*found.lines, *(f"warning: {warning}" for warning in found.warnings)):
        click.echo(shortened(printable(line)))
    if found.picture is not None:
        try:
            Image.fromarray(found.picture).save(picture, "png")
        except OSError as error:
            fail(f"{picture}: cannot be written ({error.strerror}); choose another file with --picture")
        click.echo(f"wrote {picture}: the points of the first sample, near ones red, far ones blue")
    for problem in found.problems:
        click.echo(f"error: {shortened(printable(problem))}", err=True)
    sys.exit(FAILED if found.problems else 0)


@main.command(short_help="Rewrite the documents of a cache of an older format.")
@click.argument("cache")
@reports_errors("run the same command again")
def migrate(cache: str) -> None:
    """Bring a cache of format 1 to the present format.

    Only documents are rewritten, in place; no group is computed again. `labelgen run` does the same before it extends a
    cache. A migration that was stopped is continued by the same command.

    \b
    Example:
      labelgen migrate out/nuscenes.zarr
    """
    from cache_schemas.lock import run_lock
    from cache_schemas.migrate import migrate as migrate_cache
    from cache_schemas.store import Cache

    Cache.open(cache)
    with run_lock(cache):
        opened, _ = Cache.open(cache, "a")
        changed = migrate_cache(opened)
    done = f"migrated, {len(opened.shard_keys())} shards" if changed else "is of the present format"
    click.echo(f"{cache}: {done}")


@main.command(short_help="Join caches of different scenes into a new one.")
@click.argument("caches", nargs=-1, required=True)
@click.option("--out", required=True, help="The new cache: a folder, or a URL such as s3://...")
@reports_errors("run the same command again to continue")
def merge(caches: tuple[str, ...], out: str) -> None:
    """Join CACHES, made by the same teachers with the same prompts and training size, into a new one.

    Nothing is computed. Files are copied, or get a second name where both caches are on one disk.

    \b
    Example:
      labelgen merge out/train.zarr out/val.zarr --out out/both.zarr
    """
    from cache_schemas.lock import run_lock
    from cache_schemas.merge import merge as merge_caches
    from cache_schemas.store import Cache

    for cache in caches:
        Cache.open(cache)
    with run_lock(out):
        shards = merge_caches(caches, out)
    click.echo(f"{out}: {counted(shards, 'shard')} of {counted(len(caches), 'cache')}")


@main.group()
def weights() -> None:
    """List or fetch teacher weights.

    Official files are downloaded into the folder named by LABELGEN_WEIGHTS (default: ~/.cache/labelgen/weights).
    """


@weights.command("list")
def list_weights() -> None:
    """List the registered weights and whether the files are present."""
    from labelgen.weights import known_weights, weights_folder

    click.echo(f"folder: {weights_folder()}")
    for name, entry in known_weights().items():
        here = "here  " if entry.path.is_file() else "absent"
        click.echo(f"{name:<14} {here}  {entry.meaning}\n{'':<14} {entry.origin}\n{'':<14} sha256 {entry.sha256}")


@weights.command("fetch", short_help="Download weights and check them.")
@click.argument("name")
@reports_errors("run the same command again to resume the download")
def fetch_weights(name: str) -> None:
    """Download the weights called NAME and check their SHA-256; an interrupted download is resumed.

    \b
    Example:
      labelgen weights fetch sam-vit-b
    """
    from tqdm import tqdm

    from labelgen.weights import fetch

    bar: tqdm[None] | None = None

    def show(done: int, total: int | None) -> None:
        nonlocal bar
        if bar is None:  # created late, so that an early error is not printed into a bar
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
