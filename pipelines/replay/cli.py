"""The command `labelgen replay`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache_schemas.command_line import FAILED, reports_errors

if TYPE_CHECKING:
    from pipelines.replay.rerun import Replay

BAD_INPUT = 2
"""Exit code where nothing could be compared."""


@click.command(short_help="Make one sample again, and compare it with the cache.")
@click.argument("cache")
@click.argument("sample")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder where the raw data set is now.")
@click.option("--stage", metavar="NAME", help="Only this stage, such as sam (default: all that are sealed).")
@click.option("--teachers", help="Teacher preset, as in `labelgen run` (default: the teachers of the cache).")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="A setting other than the cache's; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reports_errors("nothing was written")
def replay(
    cache: str,
    sample: str,
    data: Path,
    stage: str | None,
    teachers: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make stages of one SAMPLE again, in this process and without Ray, and compare them with what CACHE has sealed.

    The settings are those of the cache. A stage reads the raw data and sealed groups, as in a run. Networks round
    differently on another processor, so their arrays have a tolerance; all others must be equal. Nothing is written.

    \b
    Examples:
      labelgen replay out/n.zarr ca9a282c9e77460f8360f564131a8af5 --data /data/nuscenes
      labelgen replay out/n.zarr ca9a282c9e77460f8360f564131a8af5 --data /data/nuscenes --stage sam --json
      labelgen replay out/n.zarr ca9a282c9e77460f8360f564131a8af5 --data /data/nuscenes --set sam.points_per_batch=64

    \b
    Exit codes: 0 equal within the tolerances, 1 a stage differs, 2 bad input.
    """
    from cache_schemas.errors import UserError
    from pipelines.replay.rerun import replay as rerun

    try:
        found = rerun(cache, sample, data, stage, teachers, overrides)
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(BAD_INPUT)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else "\n".join(_lines(found)))
    sys.exit(0 if found.within_tolerance else FAILED)


def _lines(found: "Replay") -> list[str]:
    """Return the comparison as text: a line for each stage, and one for each array that differs."""
    lines = [f"{found.cache}: sample {found.sample} of shard {found.shard}, replayed on {found.device}"]
    for name, stage in found.stages.items():
        state = "equal" if stage.equal else "equal within tolerance" if stage.within_tolerance else "DIFFERS"
        other = "; it was sealed under other settings" if stage.other_settings else ""
        lines.append(f"  {name:<15} {state}, {stage.seconds:.1f} s{other}")
        lines += [f"    {array}: {how}" for array, how in stage.arrays.items() if how.differing or how.misfit]
    return lines
