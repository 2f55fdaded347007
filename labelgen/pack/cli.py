"""The command `labelgen pack`."""

import sys
from pathlib import Path

import click

from cache_schemas.command_line import reports_errors


@click.command(short_help="Pack a cache into one file that is read in place.")
@click.argument("cache")
@click.argument("file", type=click.Path(path_type=Path))
@reports_errors("nothing was written; run the same command again")
def pack(cache: str, file: Path) -> None:
    """Pack CACHE into one FILE, which can be copied as it is and read in place.

    FILE is a zip without compression. `inspect`, `query`, `compare-labels`, `export`, `verify` and `trainer` read it
    where they read a cache, and Zarr opens it as a ZipStore. Nothing changes it; `unzip` makes it a folder again.

    The cache must be complete and sound: all of FILE is checked before it gets its name. A card, if there is one, must
    describe the present content.

    \b
    Examples:
      labelgen pack out/nuscenes.zarr out/nuscenes.zarr.zip
      trainer fit out/nuscenes.zarr.zip --out runs/cns
      unzip -d out/again.zarr out/nuscenes.zarr.zip

    \b
    Exit codes: 0 packed, 1 the cache is incomplete or damaged, or FILE exists or cannot be written.
    """
    from tqdm import tqdm

    from cache_schemas.pack import pack as pack_cache

    bars: dict[str, tqdm[None]] = {}

    def show(step: str, done: int, total: int) -> None:
        if step not in bars:
            unit = {"unit": "B", "unit_scale": True} if step == "packing" else {"unit": "shard"}
            bars[step] = tqdm(desc=step, total=total, delay=2, leave=False, disable=None, file=sys.stderr, **unit)
        bars[step].update(done - bars[step].n)

    try:
        size = pack_cache(cache, file, show)
    finally:
        for bar in bars.values():
            bar.close()
    click.echo(f"{file}: packed, {size:,} bytes")
