"""How well the rules of `points.visibility` find hidden pairs, against exact ray casts of demo worlds.

python -m benchmarks.visibility                                   # table, time, and docs/results/visibility.png
python -m benchmarks.visibility --nuscenes <folder>               # and the share of hidden pairs in real keyframes
python -m benchmarks.visibility --caches none.zarr zbuffer.zarr   # scores of point labels under two rules
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cache_schemas.group_path import GroupPath
from cache_schemas.scoring import confusion_matrix, score
from cache_schemas.store import Cache
from cache_schemas.taxonomy import IGNORE
from demo.world.casting import cast, turned
from demo.world.layout import make_scene
from demo.world.lidar import scan
from demo.world.render import render_view
from demo.world.sensors import ego_from_lidar, make_cameras
from demo.world.writer import scene_seed
from labelgen import visibility
from labelgen.datasets.nuscenes.adapter import NuScenes
from labelgen.geometry import Pairs, invert_rigid, pair_points
from labelgen.pictures import read_image, resize
from labelgen.samples import Camera
from labelgen.visibility import visible_in_superpixels, visible_in_zbuffer

WORLDS, SCENES = (0, 1, 2), 5
SIZE = (224, 416)
KEYFRAME_S = 0.5
DIFFICULTY = 0.5
MIN_DEPTH_M = 1.0
HIDDEN_M, HIDDEN_SHARE = 0.3, 0.03
"""A pair is hidden if a surface lies in front of its point by more than this length and this share of its depth."""


@dataclass(frozen=True)
class Keyframe:
    """One keyframe of a demo world.

    Attributes:
        xyz: points (P, 3) in the lidar frame.
        cameras: its cameras.
        pictures: (224, 416, 3) of each camera.
        pairs: its N pairs.
        surface_m: (N,) depth of the first surface on the ray from the camera to the point, in metres.
        of_itself: (N,) whether this surface belongs to the same thing as the point, and that thing moves.
    """

    xyz: NDArray[np.float32]
    cameras: tuple[Camera, ...]
    pictures: tuple[NDArray[np.uint8], ...]
    pairs: Pairs
    surface_m: NDArray[np.float64]
    of_itself: NDArray[np.bool_]

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """Which pairs (N,) are hidden."""
        gap = self.pairs.depth - self.surface_m
        return gap > np.maximum(HIDDEN_M, HIDDEN_SHARE * self.pairs.depth)


def keyframes(seed: int, scenes: int) -> Iterator[Keyframe]:
    """Yield the first keyframe of the first scenes of the world of `seed`."""
    for index in range(scenes):
        yield make_keyframe(scene_seed(seed, index))


def make_keyframe(seed: int) -> Keyframe:
    """Return the first keyframe of the scene of `seed`."""
    scene = make_scene(seed, DIFFICULTY)
    sweep = scan(scene, KEYFRAME_S)
    xyz = sweep.points[:, :3]
    scene_from_lidar = scene.scene_from_ego(KEYFRAME_S) @ ego_from_lidar(seed)
    models = make_cameras(seed)
    times = [KEYFRAME_S + model.delay_us * 1e-6 for model in models]
    scene_from_cam = [scene.scene_from_ego(t) @ model.ego_from_cam for t, model in zip(times, models, strict=True)]
    cameras = tuple(
        Camera(m.channel, "", m.width_px, m.height_px, m.intrinsics, invert_rigid(pose) @ scene_from_lidar)
        for m, pose in zip(models, scene_from_cam, strict=True)
    )
    pictures = tuple(resize(render_view(scene, m, t).rgb, SIZE) for m, t in zip(models, times, strict=True))
    pairs = pair_points(xyz, cameras, SIZE, MIN_DEPTH_M)
    surface, of_itself = np.full(len(pairs.point), np.inf), np.zeros(len(pairs.point), bool)
    moves = np.array([thing.motion.moves for thing in scene.things])
    for number, (moment, pose) in enumerate(zip(times, scene_from_cam, strict=True)):
        own = np.flatnonzero(pairs.image == number)
        points = turned(xyz[pairs.point[own]], scene_from_lidar[:3, :3]) + scene_from_lidar[:3, 3].astype(np.float32)
        origins = np.tile(pose[:3, 3].astype(np.float32), (len(own), 1))
        hits = cast((scene.still, scene.moving(moment)), origins, points - origins)
        own = own[hits.ray]
        surface[own] = pairs.depth[own] * hits.distance
        of_itself[own] = (hits.thing == sweep.instance_ids[pairs.point[own]] - 1) & moves[hits.thing]
    return Keyframe(xyz, cameras, pictures, pairs, surface, of_itself)


Rule = Callable[[Keyframe], NDArray[np.bool_]]
"""Tells which pairs (N,) of a keyframe are visible."""


def patches(reach: tuple[float, float], margin_m: float) -> Rule:
    """Return the rule of labelgen with another reach of the patches and another margin."""

    def rule(keyframe: Keyframe) -> NDArray[np.bool_]:
        visibility.REACH = reach
        return visible_in_zbuffer(keyframe.xyz, keyframe.cameras, keyframe.pairs, (margin_m, margin_m / 10))

    return rule


def windows(rows: int, margin_m: float) -> Rule:
    """Return the plain rule: the least depth in a window of `rows` x 3 pixels around the point's pixel."""

    def rule(keyframe: Keyframe) -> NDArray[np.bool_]:
        pairs = keyframe.pairs
        row, col = pairs.row.astype(int) + rows, pairs.col.astype(int) + 1
        nearest = np.full((len(keyframe.cameras), SIZE[0] + 2 * rows, SIZE[1] + 2), np.inf)
        for down in range(-(rows // 2), rows // 2 + 1):
            for right in (-1, 0, 1):
                np.minimum.at(nearest, (pairs.image, row + down, col + right), pairs.depth)
        in_front = nearest[pairs.image, row, col]
        visible: NDArray[np.bool_] = pairs.depth - in_front <= np.maximum(margin_m, margin_m / 10 * pairs.depth)
        return visible

    return rule


def superpixels(number: int, margin_share: float) -> Rule:
    """Return the rule `slic`."""
    return lambda keyframe: visible_in_superpixels(keyframe.pictures, keyframe.pairs, number, margin_share)


@dataclass(frozen=True)
class Found:
    """What a rule finds in some worlds: means over the worlds of shares."""

    precision: float
    recall: float
    dropped: float

    def __str__(self) -> str:
        """Return percents."""
        return f"{100 * self.precision:9.1f} {100 * self.recall:7.1f} {100 * self.dropped:8.1f}"


def find_hidden(worlds: Sequence[Sequence[Keyframe]], rule: Rule, moved: bool = True) -> Found:
    """Compare a rule with the ray casts; without `moved`, things that moved in front of themselves do not count."""
    rows = []
    for world in worlds:
        called = [~rule(keyframe) for keyframe in world]
        counted = [np.ones(len(k.of_itself), bool) if moved else ~k.of_itself for k in world]
        hidden = np.concatenate([k.hidden[c] for k, c in zip(world, counted, strict=True)])
        found = np.concatenate([call[c] for call, c in zip(called, counted, strict=True)])
        both = (hidden & found).sum()
        rows.append((both / max(1, found.sum()), both / hidden.sum(), found.mean()))
    return Found(*np.mean(rows, axis=0).tolist())


CHOSEN, MARGIN_M = visibility.REACH, 0.5
MARGINS_M = (0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 5.0)
SCALES = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 1.75, 2.0)
SUPERPIXELS, SLIC_MARGIN = 4800, 0.2
SLIC_MARGINS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
HEIGHTS = (1, 3, 5, 7, 9, 11, 13, 15, 19)


def measure(worlds: Sequence[Sequence[Keyframe]]) -> None:
    """Print the table, and draw the curves into docs/results/visibility.png."""
    hidden = np.concatenate([k.hidden for world in worlds for k in world])
    itself = np.concatenate([k.hidden & k.of_itself for world in worlds for k in world])
    print(f"{len(hidden):,} pairs, {100 * hidden.mean():.1f} % hidden, {100 * itself.mean():.1f} % by their own thing")
    print(f"{'rule':44} precision  recall  dropped   (%, mean of {len(worlds)} worlds)")
    by_margin = {m: find_hidden(worlds, patches(CHOSEN, m)) for m in MARGINS_M}
    by_reach = {s: find_hidden(worlds, patches((CHOSEN[0] * s, CHOSEN[1] * s), MARGIN_M)) for s in SCALES}
    by_height = {rows: find_hidden(worlds, windows(rows, MARGIN_M)) for rows in HEIGHTS}
    by_share = {s: find_hidden(worlds, superpixels(SUPERPIXELS, s)) for s in SLIC_MARGINS}
    for rows, found in by_height.items():
        print(f"{f'windows of {rows} x 3 pixels':44} {found}")
    for scale, found in by_reach.items():
        print(f"{f'patches, reach x {scale:g}':44} {found}")
    for margin, found in by_margin.items():
        print(f"{f'patches, margin {margin:g} m and {10 * margin:g} %':44} {found}")
    for share, found in by_share.items():
        print(f"{f'slic, {SUPERPIXELS} superpixels, margin {100 * share:g} %':44} {found}")
    for number in (2400, 1200):
        found = find_hidden(worlds, superpixels(number, SLIC_MARGIN))
        print(f"{f'slic, {number} superpixels, margin {100 * SLIC_MARGIN:g} %':44} {found}")
    for number, world in zip(WORLDS, worlds, strict=True):
        print(f"{f'patches as set, world {number}':44} {find_hidden([world], patches(CHOSEN, MARGIN_M))}")
    print(f"{'patches as set, without moved things':44} {find_hidden(worlds, patches(CHOSEN, MARGIN_M), moved=False)}")
    curves = {
        "windows, 1 to 19 rows": ((200, 90, 30), list(by_height.values())),
        "patches, reach x 0.2 to 2": ((8, 64, 129), list(by_reach.values())),
        "patches, margin 0.1 to 5 m": ((90, 160, 90), list(by_margin.values())),
        "slic, margin 5 to 50 %": ((150, 60, 150), list(by_share.values())),
    }
    draw_curves(curves, by_reach[1.0], Path("docs/results/visibility.png"))


Colour = tuple[int, int, int]


def draw_curves(curves: dict[str, tuple[Colour, list[Found]]], chosen: Found, file: Path) -> None:
    """Draw precision (up) over recall (right) of each curve, the aim, and the chosen point."""
    side, edge = 440, 44
    picture = Image.new("RGB", (side + 2 * edge, side + 2 * edge), "white")
    draw = ImageDraw.Draw(picture)

    def place(recall: float, precision: float) -> tuple[float, float]:
        return edge + side * recall, edge + side * (1 - precision)

    for tenth in range(0, 11, 2):
        share = tenth / 10
        draw.line([place(share, 0), place(share, 1)], (225, 225, 225))
        draw.line([place(0, share), place(1, share)], (225, 225, 225))
        draw.text((place(share, 0)[0] - 8, edge + side + 6), f"{10 * tenth}", "black")
        draw.text((edge - 26, place(0, share)[1] - 6), f"{10 * tenth}", "black")
    draw.text((edge + side / 2 - 40, edge + side + 24), "recall, %", "black")
    draw.text((edge - 30, edge - 24), "precision, %", "black")
    for number, (name, (colour, points)) in enumerate(curves.items()):
        dots = [place(found.recall, found.precision) for found in points]
        draw.line(dots, colour, 2)
        for x, y in dots:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), colour)
        draw.text((edge + 16, edge + side - 96 + 16 * number), name, colour)
    x, y = place(chosen.recall, chosen.precision)
    draw.ellipse((x - 6, y - 6, x + 6, y + 6), outline="black", width=2)
    x, y = place(0.85, 0.8)
    draw.line([(x - 6, y - 6), (x + 6, y + 6)], "black", 2)
    draw.line([(x - 6, y + 6), (x + 6, y - 6)], "black", 2)
    draw.text((edge + 16, edge + side - 32), "circle: as set; cross: the aim", "black")
    picture.quantize(32).save(file, optimize=True)


def measure_time(keyframe: Keyframe) -> None:
    """Print the median CPU time of pairs and of visibility."""

    def milliseconds(work: Callable[[], object]) -> float:
        times = []
        for _ in range(15):
            start = time.process_time()
            work()
            times.append(1000 * (time.process_time() - start))
        return statistics.median(times)

    pairing = milliseconds(lambda: pair_points(keyframe.xyz, keyframe.cameras, SIZE, MIN_DEPTH_M))
    seeing = milliseconds(lambda: patches(CHOSEN, MARGIN_M)(keyframe))
    with_slic = milliseconds(lambda: superpixels(SUPERPIXELS, SLIC_MARGIN)(keyframe))
    print(
        f"{len(keyframe.xyz):,} points, {len(keyframe.pairs.point):,} pairs: pair_points {pairing:.1f} ms a keyframe, "
        f"patches {seeing:.1f} ms ({seeing / pairing:.1f} x), slic {with_slic:.0f} ms"
    )


def measure_nuscenes(folder: Path) -> None:
    """Print the share of pairs that three rules call hidden in each keyframe of a nuScenes folder."""
    adapter = NuScenes(folder)
    for sample in (sample for scene in adapter.scenes("all", None) for sample in scene.samples):
        xyz = adapter.read_cloud(sample).xyz
        pairs = pair_points(xyz, sample.cameras, SIZE, MIN_DEPTH_M)
        nothing = np.zeros(0)
        pictures = tuple(resize(read_image(adapter, camera), SIZE) for camera in sample.cameras)
        keyframe = Keyframe(xyz, sample.cameras, pictures, pairs, nothing, nothing.astype(bool))
        rules = windows(9, 0.5), patches(CHOSEN, MARGIN_M), superpixels(SUPERPIXELS, SLIC_MARGIN)
        shares = [100 * float((~rule(keyframe)).mean()) for rule in rules]
        print(
            f"{sample.token}: {len(pairs.point):,} pairs, windows of 9 x 3 {shares[0]:.1f} %, "
            f"patches {shares[1]:.1f} %, slic {shares[2]:.1f} %"
        )


def compare_caches(urls: tuple[str, str]) -> None:
    """Print the scores of the point labels of two caches of the same samples, on all points and on common ones."""
    columns: dict[str, list[NDArray[np.uint8]]] = {}
    for url in urls:
        cache, manifest = Cache.open(url)
        for key in cache.shard_keys():
            labels = cache.read(GroupPath(key, "labels"), "point_raw", "point")
            for name, ids in labels.items():
                columns.setdefault(f"{url} {name}", []).append(ids)
            if url == urls[0]:
                columns.setdefault("truth", []).append(cache.read(GroupPath(key, "truth"), "point")["point"])
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    truth, classes = joined.pop("truth"), len(manifest.taxonomy.classes)
    common = np.all([ids != IGNORE for ids in joined.values()], axis=0)
    print("labels: mIoU and accuracy of all labelled points, and of those labelled in both; share of points labelled")
    for name, ids in joined.items():
        all_points, both = (score(confusion_matrix(truth[c], ids[c], classes)) for c in (ids != IGNORE, common))
        print(
            f"{name}: {100 * all_points.miou:.2f} {100 * all_points.accuracy:.2f} of all, {100 * both.miou:.2f} "
            f"{100 * both.accuracy:.2f} of common, {100 * float((ids != IGNORE).mean()):.1f} % labelled"
        )


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nuscenes", type=Path)
    parser.add_argument("--caches", nargs=2)
    args = parser.parse_args()
    if args.caches:
        compare_caches(tuple(args.caches))
        return
    if args.nuscenes:
        measure_nuscenes(args.nuscenes)
        return
    worlds = [list(keyframes(seed, SCENES)) for seed in WORLDS]
    measure(worlds)
    measure_time(worlds[0][0])


if __name__ == "__main__":
    main()
