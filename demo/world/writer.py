"""Make a demo world: scenes of rendered streets in the official nuScenes layout, with truth."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from demo.world.record import Order, record_scene
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
) -> None:
    """Write the first scenes of the world of `seed` into the folder `out`.

    The same seed gives the same bytes, whatever `workers` is and however many scenes follow.

    Args:
        out: an empty or new folder; gets samples/, lidarseg/, maps/, v1.0-mini/, image_truth/, image_instances/.
        seed: of the world, 0 or more.
        scenes: how many.
        keyframes: of each scene, half a second apart.
        difficulty: 0 for typical streets, 1 for odd colours, bad light and clutter.
        progress: called with scenes done and scenes in all, at the start and after each.
        workers: processes that scenes are spread over.
        size: height and width of the pictures.

    Raises:
        ValueError: if a number is out of range.
    """
    if scenes < 1 or keyframes < 1 or seed < 0:
        raise ValueError(f"seed {seed}, scenes {scenes}, keyframes {keyframes}: too small")
    world, (height_px, width_px) = f"demo-{seed}-{difficulty:g}", size
    orders = [
        Order(out, world, name, index, scene_seed(seed, index), difficulty, keyframes, width_px, height_px)
        for index, name in enumerate(scene_names(seed, scenes))
    ]
    recorded: dict[int, Tables] = {}
    if progress:
        progress(0, scenes)
    for index, rows in _recorded(orders, workers):
        recorded[index] = rows
        if progress:
            progress(len(recorded), scenes)
    _write_world_tables(out, world, [recorded[index] for index in sorted(recorded)])


def _write_world_tables(out: Path, world: str, recorded: list[Tables]) -> None:
    """Write the tables of all scenes, and the map that they need."""
    tables = fixed_tables(world)
    for scene in recorded:
        for name, rows in scene.items():
            tables[name] += rows
    tables["map"].append(map_row(world, tables["log"]))
    (out / MAP_FILE).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(out / MAP_FILE)
    write_tables(tables, out / VERSION)


def scene_seed(seed: int, index: int) -> int:
    """Return the seed of a world's scene: 2**30 or more, so that seeds below are free for scenes to train on."""
    return (1 << 30) + int(np.random.default_rng([seed, index, 9]).integers(1 << 30))


def scene_names(seed: int, scenes: int) -> tuple[str, ...]:
    """Return names scene-9000 to scene-9999, which no official split has; the seed says which is first."""
    start = int(np.random.default_rng([seed, 8]).integers(1000))
    if scenes > 1000:
        raise ValueError(f"{scenes} scenes, but there are names for 1000")
    return tuple(f"scene-9{(start + index) % 1000:03d}" for index in range(scenes))


def _recorded(orders: list[Order], workers: int) -> Iterator[tuple[int, Tables]]:
    """Record all scenes, in this process or in several; yield index and rows as they are done."""
    if workers <= 1 or len(orders) == 1:
        for index, order in enumerate(orders):
            yield index, record_scene(order)
        return
    with ProcessPoolExecutor(min(workers, len(orders)), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(record_scene, order): index for index, order in enumerate(orders)}
        for future in as_completed(futures):
            yield futures[future], future.result()
