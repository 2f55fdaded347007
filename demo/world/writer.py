"""Write a demo world: scenes of rendered streets in the official nuScenes layout, with truth."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from demo.world.record import MAX_SWEEPS, SceneJob, record_scene
from demo.world.sensors import HEIGHT_PX, WIDTH_PX
from demo.world.tables import MAP_FILE, VERSION, Tables, fixed_tables, map_row, write_tables


def make_world(
    out: Path,
    seed: int,
    scenes: int,
    keyframes: int = 1,
    difficulty: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
    size: tuple[int, int] = (HEIGHT_PX, WIDTH_PX),
    sweeps: int = 0,
) -> None:
    """Write the first scenes of the world of `seed` into the folder `out`.

    The same seed gives the same bytes; neither `workers` nor the number of scenes changes a scene.

    Args:
        out: an empty or new folder; gets samples/, lidarseg/, maps/, v1.0-mini/, image_truth/, image_instances/.
        seed: seed of the world, 0 or more.
        scenes: number of scenes.
        keyframes: keyframes of each scene, half a second apart.
        difficulty: 0 for typical streets, 1 for unusual colours, bad light and clutter.
        progress: called with the scenes done and the total, at the start and after each scene.
        workers: number of processes.
        size: height and width of the pictures.
        sweeps: lidar sweeps before each keyframe, 50 ms apart, at most 9; without truth, in sweeps/.

    Raises:
        ValueError: if a number is out of range.
    """
    if scenes < 1 or keyframes < 1 or seed < 0:
        raise ValueError(f"seed {seed}, scenes {scenes}, keyframes {keyframes}: too small")
    if not 0 <= sweeps <= MAX_SWEEPS:
        raise ValueError(f"{sweeps} sweeps, but there is room for 0 to {MAX_SWEEPS} between keyframes")
    world, (height_px, width_px) = f"demo-{seed}-{difficulty:g}", size
    jobs = [
        SceneJob(out, world, name, index, scene_seed(seed, index), difficulty, keyframes, sweeps, width_px, height_px)
        for index, name in enumerate(scene_names(seed, scenes))
    ]
    recorded: dict[int, Tables] = {}
    if progress:
        progress(0, scenes)
    for index, rows in _recorded(jobs, workers):
        recorded[index] = rows
        if progress:
            progress(len(recorded), scenes)
    _write_world_tables(out, world, [recorded[index] for index in sorted(recorded)])


def _write_world_tables(out: Path, world: str, recorded: list[Tables]) -> None:
    """Write the tables of all scenes, and the map file that they refer to."""
    tables = fixed_tables(world)
    for scene in recorded:
        for name, rows in scene.items():
            tables[name] += rows
    tables["map"].append(map_row(world, tables["log"]))
    (out / MAP_FILE).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(out / MAP_FILE)
    write_tables(tables, out / VERSION)


def scene_seed(seed: int, index: int) -> int:
    """Return the seed of a world's scene: 2**30 or more, because training scenes have lower seeds."""
    return (1 << 30) + int(np.random.default_rng([seed, index, 9]).integers(1 << 30))


def scene_names(seed: int, scenes: int) -> tuple[str, ...]:
    """Return names from scene-9000 to scene-9999, which are in no official split; the first depends on the seed."""
    start = int(np.random.default_rng([seed, 8]).integers(1000))
    if scenes > 1000:
        raise ValueError(f"{scenes} scenes, but there are names for only 1000")
    return tuple(f"scene-9{(start + index) % 1000:03d}" for index in range(scenes))


def _recorded(jobs: list[SceneJob], workers: int) -> Iterator[tuple[int, Tables]]:
    """Record all scenes, in this process or in several; yield index and rows of each finished scene."""
    if workers <= 1 or len(jobs) == 1:
        for index, job in enumerate(jobs):
            yield index, record_scene(job)
        return
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(record_scene, job): index for index, job in enumerate(jobs)}
        for future in as_completed(futures):
            yield futures[future], future.result()
