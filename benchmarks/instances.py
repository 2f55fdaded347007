"""What instances of points cost by step, and how well they fit true instances.

python -m benchmarks.instances --caches out/demo.zarr            # seconds a keyframe of a cache with instances
python -m benchmarks.instances                                   # recall in demo worlds, of other ways too
python -m benchmarks.instances --semantickitti <folder>          # and in labelled scans of SemanticKITTI
python -m benchmarks.instances --sweeps 1                        # recall if earlier sweeps are clustered too
python -m benchmarks.instances --affinity out/demo.zarr          # what the affinity compares
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.taxonomy import IGNORE, load_taxonomy
from demo.world.layout import make_scene
from demo.world.lidar import scan
from demo.world.sensors import ego_from_lidar
from demo.world.writer import scene_seed
from labelgen.geometry import Pairs
from labelgen.instances.affinity import affinity, class_probabilities, classify, propagate
from labelgen.instances.clustering import cluster_points, is_ground
from labelgen.instances.point_labels import label_points
from labelgen.instances.regions import PairedPixels, RegionScores, score_regions
from labelgen.visibility import visible_in_superpixels, visible_pairs

STEPS = tuple(range(1, 8))
WORLDS, SCENES, KEYFRAME_S, DIFFICULTY = (0, 1, 2), 5, 0.5, 0.5
MIN_POINTS, SENSOR_HEIGHT_M, KITTI_HEIGHT_M = 20, 1.84, 1.73
THINGS = (
    *("barrier", "bicycle", "bus", "car", "construction_vehicle", "motorcycle", "pedestrian", "traffic_cone"),
    *("trailer", "truck"),
)


class StopWatch:
    """Seconds of CPU time by step."""

    def __init__(self) -> None:
        """Start with no steps."""
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def time(self, step: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """Return what the work returns."""
        start = time.process_time()
        result = work(*arguments)
        self.seconds[step].append(time.process_time() - start)
        return result


READ = {
    "points": (),
    "pairs": (),
    "instances": (),
    "images": ("rgb",),
    "clip": ("logits",),
    "sam": ("mask_ids",),
    "labels": ("point",),
}

Groups = dict[str, dict[str, NDArray[Any]]]


def measure_cost(url: str) -> None:
    """Print the median seconds a keyframe by step, over the shards of a cache of one keyframe a shard.

    The last line is the affinity of all keyframes at once, as in a shard of so many, divided by their number.
    """
    cache, _ = Cache.open(url)
    watch, points, scored, extents = StopWatch(), 0, [], []
    for key in cache.shard_keys():
        groups = {name: cache.read(GroupPath(key, name), *arrays) for name, arrays in READ.items()}
        if len(groups["points"]["offsets"]) != 2:
            raise SystemExit(f"{url}: shards of one keyframe are measured, and {key} has more")
        scored.append(time_steps(watch, groups))
        extents.append(groups["instances"]["extent"])
        points += len(groups["labels"]["point"])
    count = len(scored)
    print(f"{url}: {count} keyframes of {points / count:,.0f} points, median seconds of CPU time a keyframe")
    medians = {step: statistics.median(found) for step, found in watch.seconds.items()}
    for step, seconds in medians.items():
        print(f"{step:40} {seconds:7.4f}")
    print(f"{'all without SLIC':40} {sum(s for step, s in medians.items() if step != 'SLIC'):7.4f}")
    scores, pixels = np.concatenate([r.scores for r in scored]), np.concatenate([r.pixels for r in scored])
    watch.time("together", classify, scores, pixels, np.concatenate(extents), 2, IGNORE)
    shared = f"affinity of all {len(scores):,} instances at once"
    print(f"{shared:40} {watch.seconds['together'][0] / count:7.4f}")


def time_steps(watch: StopWatch, groups: Groups) -> RegionScores:
    """Time the steps on one shard of one keyframe, and return the scores of its instances."""
    points, found, pairs = groups["points"], groups["instances"], groups["pairs"]
    low = watch.time("ground (Patchwork++)", is_ground, points["xyz"], points.get("intensity"), SENSOR_HEIGHT_M)
    watch.time("clustering (HDBSCAN)", cluster_points, points["xyz"][~low], MIN_POINTS)
    seen = visible_pairs(pairs)
    paired = PairedPixels(*(seen[name] for name in ("point", "image", "row", "col")))
    instance, count = found["point"].astype(np.int64), len(found["extent"])
    logits, masks = groups["clip"]["logits"], groups["sam"]["mask_ids"]
    step = "regions and their scores (CLIPInstance)"
    regions: RegionScores = watch.time(step, score_regions, instance, count, paired, logits, masks)
    classes = watch.time("affinity, t = 2", classify, regions.scores, regions.pixels, found["extent"], 2, IGNORE)
    things = np.ones(logits.shape[1], bool)
    watch.time("labels of points", label_points, instance, classes, groups["labels"]["point"], things)
    all_pairs = Pairs(*(pairs[name] for name in ("point", "image", "row", "col", "depth")))
    watch.time("SLIC", visible_in_superpixels, list(groups["images"]["rgb"]), all_pairs, 4800, 0.2)
    return regions


@dataclass(frozen=True)
class Scan:
    """A scan with its truth: points (P, 3), intensity (P,) 0..1, class and true instance (P,), -1 for none to find."""

    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    instance: NDArray[np.int64]
    sensor_height_m: float


def demo_scans() -> Iterator[Scan]:
    """Yield scans of the demo worlds; their true instances are things, such as cars."""
    names = load_taxonomy("nuscenes16").names
    things = [names.index(name) for name in THINGS]
    for seed in (scene_seed(world, index) for world in WORLDS for index in range(SCENES)):
        sweep = scan(make_scene(seed, DIFFICULTY), KEYFRAME_S)
        instance = np.where(np.isin(sweep.class_ids, things), sweep.instance_ids.astype(np.int64), -1)
        intensity = sweep.points[:, 3] / 255
        yield Scan(sweep.points[:, :3].copy(), intensity, sweep.class_ids.astype(np.int64), instance, SENSOR_HEIGHT_M)


def kitti_scans(folder: Path) -> Iterator[Scan]:
    """Yield the labelled scans of a SemanticKITTI folder: raw classes, and instances where their number is not 0."""
    for file in sorted(folder.glob("sequences/*/labels/*.label")):
        labels = np.fromfile(file, "<u4")
        points = np.fromfile(file.parents[1] / "velodyne" / f"{file.stem}.bin", "<f4").reshape(-1, 4)
        classes, number = (labels & 0xFFFF).astype(np.int64), (labels >> 16).astype(np.int64)
        instance = np.where(number > 0, labels.astype(np.int64), -1)
        yield Scan(points[:, :3].copy(), points[:, 3].copy(), classes, instance, KITTI_HEIGHT_M)


Clusterer = Callable[[NDArray[np.float32]], NDArray[np.intp]]
"""Returns the cluster of each point, (P,) from 0, -1 for none."""


def thinned(voxel_m: float, smallest: int) -> Clusterer:
    """Return a way that clusters the means of the points in voxels; `smallest` is in voxels."""

    def cluster(xyz: NDArray[np.float32]) -> NDArray[np.intp]:
        keys = np.floor(xyz / voxel_m).astype(np.int64)
        voxel, points = np.unique(keys, axis=0, return_inverse=True, return_counts=True)[1:]
        means = np.stack([np.bincount(voxel, axis) for axis in xyz.T], axis=1) / points[:, None]
        found = cluster_points(means.astype(np.float32), smallest)[voxel]
        enough = np.bincount(found + 1) >= MIN_POINTS
        return np.where(enough[found + 1], found, -1)

    return cluster


WAYS: dict[str, Clusterer] = {
    "HDBSCAN of all points, as built": lambda xyz: cluster_points(xyz, MIN_POINTS),
    "HDBSCAN of voxels of 0.1 m": thinned(0.1, 20),
    "HDBSCAN of voxels of 0.2 m": thinned(0.2, 8),
    "HDBSCAN of voxels of 0.3 m": thinned(0.3, 8),
}


def measure_recall(name: str, scans: Sequence[Scan]) -> None:
    """Print recall of true instances at IoU 0.5, the share of points in the main class of their instance, and time."""
    wanted = sum(count_wanted(one.instance) for one in scans)
    print(f"{name}: {len(scans)} scans of {np.mean([len(s.xyz) for s in scans]):,.0f} points, {wanted} true instances")
    print(f"{'way':34} recall  one class  instances  seconds a scan")
    ground = [is_ground(s.xyz, s.intensity, s.sensor_height_m) for s in scans]
    for way, cluster in WAYS.items():
        watch, recalled, instances, main, inside = StopWatch(), 0, 0, 0, 0
        for one, is_low in zip(scans, ground, strict=True):
            found = np.full(len(one.xyz), -1)
            found[~is_low] = watch.time(way, cluster, one.xyz[~is_low])
            recalled += count_recalled(one.instance, found)
            instances += int(found.max()) + 1
            votes = np.zeros((found.max() + 1, one.class_ids.max() + 1), np.int64)
            np.add.at(votes, (found[found >= 0], one.class_ids[found >= 0]), 1)
            main, inside = main + votes.max(axis=1).sum(), inside + votes.sum()
        seconds = statistics.median(watch.seconds[way])
        print(f"{way:34} {100 * recalled / wanted:6.1f} {100 * main / inside:10.1f} {instances:10,} {seconds:15.2f}")


def measure_sweeps(count: int) -> None:
    """Print recall in demo worlds if the points of `count` sweeps before, 50 ms apart, are clustered together."""
    scans, watch, recalled, wanted = list(demo_scans()), StopWatch(), 0, 0
    seeds = [scene_seed(world, index) for world in WORLDS for index in range(SCENES)]
    for one, seed in zip(scans, seeds, strict=True):
        scene, times = make_scene(seed, DIFFICULTY), [KEYFRAME_S - 0.05 * lag for lag in range(1, count + 1)]
        scene_from_lidar = [scene.scene_from_ego(time) @ ego_from_lidar(seed) for time in (KEYFRAME_S, *times)]
        low = is_ground(one.xyz, one.intensity, one.sensor_height_m)
        parts = [one.xyz[~low]]
        for time_s, pose in zip(times, scene_from_lidar[1:], strict=True):
            sweep = scan(scene, time_s).points
            key_from_sweep = np.linalg.inv(scene_from_lidar[0]) @ pose
            above = sweep[~is_ground(sweep[:, :3].copy(), sweep[:, 3] / 255, one.sensor_height_m), :3]
            parts.append((above @ key_from_sweep[:3, :3].T + key_from_sweep[:3, 3]).astype(np.float32))
        clusters = watch.time("", cluster_points, np.concatenate(parts), MIN_POINTS * (1 + count))
        found = np.full(len(one.xyz), -1)
        found[~low] = clusters[: len(parts[0])]
        recalled += count_recalled(one.instance, found)
        wanted += count_wanted(one.instance)
    seconds = statistics.median(watch.seconds[""])
    print(f"{count} sweeps before: recall {100 * recalled / wanted:.1f} of {wanted}, {seconds:.2f} s a keyframe")


def measure_affinity(url: str) -> None:
    """Print the share of instances that are right after t steps, by what the affinity compares."""
    cache, manifest = Cache.open(url)
    classes, judged = len(manifest.taxonomy.classes), 0
    right: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(len(STEPS), np.int64))
    for key in cache.shard_keys():
        groups = {
            name: cache.read(GroupPath(key, name)) for name in ("instances", "instance_labels", "points", "truth")
        }
        found, labels, truth = groups["instances"], groups["instance_labels"], groups["truth"]["point"]
        first = np.repeat(found["offsets"][:-1], np.diff(groups["points"]["offsets"]))
        own = (found["point"] > 0) & (truth < classes)
        votes = np.zeros((len(found["extent"]), classes), np.int64)
        np.add.at(votes, ((found["point"] + first)[own] - 1, truth[own]), 1)
        seen = labels["pixels"] > 0
        known = votes.any(axis=1)[seen]
        scores, sides, true = labels["scores"][seen], found["extent"][seen], votes.argmax(axis=1)[seen]
        judged += int(known.sum())
        compared = {"scores and sizes, as built": (scores, sides), "scores": (scores, np.ones_like(sides))}
        compared["sizes"] = np.ones_like(scores), sides
        for name, of in compared.items():
            spread = [propagate(class_probabilities(scores), affinity(*of), t).argmax(axis=1) for t in STEPS]
            right[name] += [int((ids == true)[known].sum()) for ids in spread]
    print(f"{url}: {judged:,} instances; right after t = {', '.join(map(str, STEPS))} steps, in percent, if W compares")
    for name, counts in right.items():
        print(f"{name:28} {'  '.join(f'{100 * count / judged:.1f}' for count in counts)}")


def count_wanted(true: NDArray[np.int64]) -> int:
    """Count the true instances of enough points."""
    return int((np.unique(true[true >= 0], return_counts=True)[1] >= MIN_POINTS).sum())


def count_recalled(true: NDArray[np.int64], found: NDArray[np.intp]) -> int:
    """Count the true instances of enough points that a found one covers with an IoU above 0.5."""
    recalled = 0
    for number in np.unique(true[true >= 0]):
        own = true == number
        candidates = found[own & (found >= 0)]
        if own.sum() >= MIN_POINTS and len(candidates):
            best = np.bincount(candidates).argmax()
            shared = int((candidates == best).sum())
            recalled += shared > 0.5 * (own.sum() + (found == best).sum() - shared)
    return recalled


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--caches", nargs="*", default=[])
    parser.add_argument("--semantickitti", type=Path)
    parser.add_argument("--sweeps", type=int)
    parser.add_argument("--affinity", nargs="*", default=[])
    args = parser.parse_args()
    for url in args.caches:
        measure_cost(url)
    for url in args.affinity:
        measure_affinity(url)
    if args.sweeps:
        measure_sweeps(args.sweeps)
    if not (args.caches or args.affinity or args.sweeps):
        measure_recall("demo worlds 0, 1, 2", list(demo_scans()))
    if args.semantickitti:
        measure_recall("SemanticKITTI", list(kitti_scans(args.semantickitti)))


if __name__ == "__main__":
    main()
