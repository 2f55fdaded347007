"""The commands `labelgen demo`."""

import os
import sys
from pathlib import Path

import click

from cache_schemas.command_line import INTERRUPTED, fail, reports_errors
from cache_schemas.plurals import counted


@click.group(short_help="Make the demo world.")
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
    "--sweeps",
    default=0,
    show_default=True,
    type=click.IntRange(0, 9),
    help="Lidar sweeps before each keyframe, 0.05 s apart (`labelgen run --set sweeps.count=N` stores them).",
)
@click.option(
    "--difficulty",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="How far colours, light and clutter depart from the scenes that the demo's teachers were trained on.",
)
@click.option("--workers", type=click.IntRange(1), help="Scenes rendered at once (default: one a core).")
@reports_errors("run the same command again")
def make_demo(
    out: Path, seed: int, scenes: int, keyframes: int, sweeps: int, difficulty: float, workers: int | None
) -> None:
    """Render street scenes: six cameras, a lidar, boxes, lidarseg, and the class and segment of every pixel.

    \b
    Examples:
      labelgen demo make --out out/streets --scenes 2
      labelgen run --dataset demo --data out/streets --cache out/streets.zarr
      labelgen inspect out/streets.zarr --pictures out/streets-pictures
    """
    from demo.world.writer import make_world

    if (out / "v1.0-mini").exists():
        fail(f"{out}: already holds a world; choose another folder, or remove this one")
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
                sweeps=sweeps,
            )
    except KeyboardInterrupt:
        click.echo(f"interrupted; run the same command again to render {out} from the start", err=True)
        sys.exit(INTERRUPTED)
    click.echo(f"{out}: {counted(scenes, 'scene')} of {counted(keyframes, 'keyframe')}")
