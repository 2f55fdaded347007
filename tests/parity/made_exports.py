"""Make what `make parity` gives to the official evaluators: exported labels, truth in official files, and our scores.

    python tests/parity/made_exports.py OUT

For each taxonomy of `tests.made_labels`, `OUT/<taxonomy>/` has a cache with random labels, its export (`labels`), its
truth in the layout of the data set (`truth`), and what `labelgen inspect --json` says by each rule
(`ignore-leave.json`, `miss-zero.json`, ...).
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from cache_schemas.taxonomy import IGNORE
from tests.made_labels import CLOUDS, read_points, write_label_cache

FORMATS = {"nuscenes16": "nuscenes-lidarseg", "semantickitti19": "semantickitti", "scannet20": "scannet"}
RULES = (("ignore", "leave"), ("miss", "leave"), ("miss", "zero"))

FINE_NAMES = (
    "noise animal human.pedestrian.adult human.pedestrian.child human.pedestrian.construction_worker "
    "human.pedestrian.personal_mobility human.pedestrian.police_officer human.pedestrian.stroller "
    "human.pedestrian.wheelchair movable_object.barrier movable_object.debris movable_object.pushable_pullable "
    "movable_object.trafficcone static_object.bicycle_rack vehicle.bicycle vehicle.bus.bendy vehicle.bus.rigid "
    "vehicle.car vehicle.construction vehicle.emergency.ambulance vehicle.emergency.police vehicle.motorcycle "
    "vehicle.trailer vehicle.truck flat.driveable_surface flat.other flat.sidewalk flat.terrain static.manmade "
    "static.other static.vegetation vehicle.ego"
)
"""The 32 categories of lidarseg in the order of their indices."""

TABLES = (
    "attribute calibrated_sensor category ego_pose instance lidarseg log map sample sample_annotation sample_data "
    "scene sensor visibility"
)

FINE_OF_CLASS = (9, 14, 15, 17, 18, 21, 2, 12, 22, 23, 24, 25, 26, 27, 28, 30)
"""One of these for each class of nuscenes16; read as it, by the evaluation's own table."""

RAW_OF_CLASS = (252, 11, 15, 258, 13, 254, 253, 255, 60, 44, 48, 49, 50, 51, 70, 71, 72, 80, 81)
"""For each class of semantickitti19 a raw id that is read as it; where there are several, not the one we write."""

NYU40 = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)


def write_nuscenes_truth(truth: dict[str, np.ndarray], folder: Path) -> None:
    """Write lidarseg files, and the tables that the devkit needs to find them, in version v1.0-mini."""
    labels, tables = folder / "lidarseg/v1.0-mini", folder / "v1.0-mini"
    labels.mkdir(parents=True)
    tables.mkdir()
    table = np.zeros(256, np.uint8)
    table[: len(FINE_OF_CLASS)] = FINE_OF_CLASS
    rows: dict[str, list[dict]] = {name: [] for name in TABLES.split()}
    rows["category"] = [{"token": name, "name": name, "index": i} for i, name in enumerate(FINE_NAMES.split())]
    rows["map"] = [{"token": "map", "log_tokens": [], "filename": "map.png"}]
    (folder / "map.png").touch()  # the devkit looks whether it exists
    rows["sensor"] = [{"token": "lidar", "channel": "LIDAR_TOP", "modality": "lidar"}]
    rows["calibrated_sensor"] = [{"token": "top", "sensor_token": "lidar"}]
    for scene, tokens in CLOUDS["nuscenes16"].items():
        rows["scene"].append(
            {
                "token": f"{scene}-token",
                "name": scene,
                "nbr_samples": len(tokens),
                "first_sample_token": f"{tokens[0]}-sample",
                "last_sample_token": f"{tokens[-1]}-sample",
            }
        )
        for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
            file = f"lidarseg/v1.0-mini/{token}_lidarseg.bin"
            rows["sample"].append(
                {
                    "token": f"{token}-sample",
                    "scene_token": f"{scene}-token",
                    "next": following and f"{following}-sample",
                }
            )
            rows["sample_data"].append(
                {
                    "token": token,
                    "sample_token": f"{token}-sample",
                    "calibrated_sensor_token": "top",
                    "is_key_frame": True,
                }
            )
            rows["lidarseg"].append({"token": token, "sample_data_token": token, "filename": file})
            table[truth[token]].tofile(folder / file)
    for name, content in rows.items():
        (tables / f"{name}.json").write_text(json.dumps(content))


def write_semantickitti_truth(truth: dict[str, np.ndarray], folder: Path) -> None:
    """Write label files of sequence 08 with raw ids."""
    labels = folder / "sequences/08/labels"
    labels.mkdir(parents=True)
    for token, ids in truth.items():
        raw = [0 if label == IGNORE else RAW_OF_CLASS[label] for label in ids.tolist()]
        np.array(raw, "<u4").tofile(labels / f"{token[-6:]}.label")


def write_scannet_truth(truth: dict[str, np.ndarray], folder: Path) -> None:
    """Write a text file of nyu40 ids for each scan."""
    folder.mkdir()
    for token, ids in truth.items():
        nyu40 = [40 if label == IGNORE else NYU40[label] for label in ids.tolist()]
        (folder / f"{token}.txt").write_text("".join(f"{own}\n" for own in nyu40))


WRITERS = {
    "nuscenes16": write_nuscenes_truth,
    "semantickitti19": write_semantickitti_truth,
    "scannet20": write_scannet_truth,
}


def labelgen(*arguments: str) -> str:
    """Run `labelgen` of this environment, and return what it prints."""
    program = Path(sys.executable).with_name("labelgen")
    return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Make the folder anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    for taxonomy, file_format in FORMATS.items():
        folder = out / taxonomy
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        cache = write_label_cache(str(folder / "cache.zarr"), taxonomy, points=20_000, seed=7)
        print(labelgen("export", cache, "--format", file_format, "--out", str(folder / "labels")), end="")
        WRITERS[taxonomy](read_points(cache, "truth", "point"), folder / "truth")
        for unlabelled, absent in RULES:
            report = labelgen("inspect", cache, "--unlabelled", unlabelled, "--absent", absent, "--json")
            (folder / f"{unlabelled}-{absent}.json").write_text(report)


if __name__ == "__main__":
    main()
