"""Time and memory of loading nuScenes tables of v1.0-trainval's size, made up by this script.

    python benchmarks/nuscenes_tables.py [--scenes 850] [--out DIR]

Writes 2.6 million sample_data and ego_pose rows (about 2 GB) in the official format, then lists the scenes in a
fresh process, and prints seconds, peak memory, and the time of plain `json` on the same two tables.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT")
RADARS = ("RADAR_FRONT", "RADAR_FRONT_LEFT", "RADAR_FRONT_RIGHT", "RADAR_BACK_LEFT", "RADAR_BACK_RIGHT")
READINGS_PER_SCENE = {"LIDAR_TOP": 390, **dict.fromkeys(CAMERAS, 235), **dict.fromkeys(RADARS, 252)}
KEYFRAMES_PER_SCENE = 40
LOG = "n015-2018-07-18-11-07-57+0800"
POSE = {
    "timestamp": 1531883530449377,
    "rotation": [0.5720320396729045, -0.0016977771610471074, 0.011798001930183783, -0.8201446642457809],
    "translation": [411.3039349319818, 1180.8903791765097, 0.0],
}


def token(*parts: object) -> str:
    """Return a 32-digit token like the official ones, from what it stands for."""
    return f"{hash(parts) & (2**128 - 1):032x}"[-32:].rjust(32, "0")


def write_tables(folder: Path, scenes: int) -> int:
    """Write the tables of `scenes` scenes into `folder`; returns the number of sample_data rows."""
    from labelgen.datasets.nuscenes.splits import split_scenes

    folder.mkdir(parents=True)
    names = sorted(split_scenes("train") | split_scenes("val"))[:scenes]
    rows = 0
    with (folder / "sample_data.json").open("w") as data, (folder / "ego_pose.json").open("w") as poses:
        for scene in range(len(names)):
            for reading in readings(scene):
                separator = "[\n" if rows == 0 else ",\n"
                data.write(separator + json.dumps(reading, indent=0))
                poses.write(separator + json.dumps({"token": reading["token"], **POSE}, indent=0))
                rows += 1
        data.write("\n]")
        poses.write("\n]")
    dump(folder, "scene", [{"token": token("scene", name), "name": name} for name in names])
    dump(folder, "sample", [sample for scene, name in enumerate(names) for sample in samples(scene, name)])
    dump(folder, "sensor", [{"token": token("sensor", channel), "channel": channel} for channel in READINGS_PER_SCENE])
    dump(folder, "calibrated_sensor", [calibration(s, c) for s in range(len(names)) for c in READINGS_PER_SCENE])
    return rows


def samples(scene: int, name: str) -> list[dict]:
    """Return the rows of sample.json of one scene."""
    return [
        {
            "token": token("sample", scene, keyframe),
            "timestamp": scene * 10**8 + keyframe,
            "prev": "",
            "next": "",
            "scene_token": token("scene", name),
        }
        for keyframe in range(KEYFRAMES_PER_SCENE)
    ]


def readings(scene: int) -> Iterator[dict]:
    """Yield the rows of sample_data.json of one scene."""
    for channel, count in READINGS_PER_SCENE.items():
        camera = channel.startswith("CAM")
        for number in range(count):
            keyframe = number < KEYFRAMES_PER_SCENE
            key = token("data", scene, channel, number)
            yield {
                "token": key,
                "sample_token": token("sample", scene, number % KEYFRAMES_PER_SCENE),
                "ego_pose_token": key,
                "calibrated_sensor_token": token("calibration", scene, channel),
                "timestamp": 1531883530449377 + number,
                "fileformat": "jpg" if camera else "pcd",
                "is_key_frame": keyframe,
                "height": 900 if camera else 0,
                "width": 1600 if camera else 0,
                "filename": f"{'samples' if keyframe else 'sweeps'}/{channel}/{LOG}__{channel}__{key[:16]}",
                "prev": key,
                "next": key,
            }


def calibration(scene: int, channel: str) -> dict:
    """Return one row of calibrated_sensor.json."""
    matrix = [[1266.4, 0.0, 816.2], [0.0, 1266.4, 491.5], [0.0, 0.0, 1.0]]
    return {
        "token": token("calibration", scene, channel),
        "sensor_token": token("sensor", channel),
        "rotation": [1.0, 0.0, 0.0, 0.0],
        "translation": [1.0, 0.0, 1.5],
        "camera_intrinsic": matrix if channel.startswith("CAM") else [],
    }


def dump(folder: Path, table: str, rows: list[dict]) -> None:
    """Write one small table."""
    (folder / f"{table}.json").write_text(json.dumps(rows, indent=0))


def load(data: Path) -> None:
    """List the scenes and print what it took; runs in a process of its own."""
    start = time.perf_counter()
    from labelgen.datasets.nuscenes.adapter import NuScenes

    scenes = NuScenes(data).scenes("all", None)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    samples = sum(len(scene.samples) for scene in scenes)
    print(f"labelgen: {len(scenes)} scenes, {samples:,} samples in {seconds:.1f} s, peak {peak:.2f} GiB")


def load_plain(folder: Path) -> None:
    """Parse the two big tables with the standard library, the obvious alternative."""
    start = time.perf_counter()
    tables = [json.loads((folder / f"{name}.json").read_bytes()) for name in ("sample_data", "ego_pose")]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"json.loads of sample_data and ego_pose alone: {len(tables[0]):,} rows, "
        f"{time.perf_counter() - start:.1f} s, peak {peak:.2f} GiB"
    )


def main() -> None:
    """Make the tables, then time each way in a fresh process pinned to one core."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=850)
    parser.add_argument("--out", type=Path, help="keep the tables here (default: a temporary folder)")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--load-plain", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        return load(args.load)
    if args.load_plain:
        return load_plain(args.load_plain)
    with tempfile.TemporaryDirectory() as scratch:
        data = args.out or Path(scratch)
        folder = data / "v1.0-trainval"
        if not folder.exists():
            print(f"made {write_tables(folder, args.scenes):,} sample_data rows", flush=True)
        for flag, target in (("--load", data), ("--load-plain", folder)):
            subprocess.run(["taskset", "-c", "0", sys.executable, __file__, flag, str(target)], check=True)


if __name__ == "__main__":
    main()
