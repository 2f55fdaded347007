"""Make a tiny fake nuScenes in the official layout: all 13 tables, pictures, lidar clouds and, if asked, lidarseg.

Keyframes come every half second, each with a sweep before it that stands in the tables only, as after a download of
the keyframe archives. Rows are shuffled, for the official tables promise no order.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SCENES = {"scene-0061": 3, "scene-0103": 2}
WIDTH_PX, HEIGHT_PX = 160, 90
LIDAR_HEIGHT_M = 1.84
YAW_DEGREES = {
    "CAM_FRONT": 0,
    "CAM_FRONT_RIGHT": -55,
    "CAM_BACK_RIGHT": -110,
    "CAM_BACK": 180,
    "CAM_BACK_LEFT": 110,
    "CAM_FRONT_LEFT": 55,
}
CHANNELS = ("LIDAR_TOP", *YAW_DEGREES)
CATEGORIES = (
    *("noise", "animal"),
    *(f"human.pedestrian.{kind}" for kind in ("adult", "child", "construction_worker", "personal_mobility")),
    *(f"human.pedestrian.{kind}" for kind in ("police_officer", "stroller", "wheelchair")),
    *(f"movable_object.{kind}" for kind in ("barrier", "debris", "pushable_pullable", "trafficcone")),
    "static_object.bicycle_rack",
    *(f"vehicle.{kind}" for kind in ("bicycle", "bus.bendy", "bus.rigid", "car", "construction")),
    *(f"vehicle.{kind}" for kind in ("emergency.ambulance", "emergency.police", "motorcycle", "trailer", "truck")),
    *(f"flat.{kind}" for kind in ("driveable_surface", "other", "sidewalk", "terrain")),
    *("static.manmade", "static.other", "static.vegetation", "vehicle.ego"),
)
"""The 32 official category names; the lidarseg index of a category is its place here."""

_TABLES = (
    *("attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample"),
    *("sample_annotation", "sample_data", "scene", "sensor", "visibility"),
)
_FIRST_TIMESTAMP_US = 1_532_402_927_000_000
_SCENE_STEP_US = 100_000_000
_KEYFRAME_STEP_US = 500_000
_SWEEP_LEAD_US = 250_000

Row = dict[str, Any]


def make_nuscenes(
    folder: Path,
    scenes: Mapping[str, int] = SCENES,
    version: str = "v1.0-mini",
    lidarseg: bool = True,
    seed: int = 0,
) -> Path:
    """Write a dataset of `scenes` (name to number of keyframes) into `folder`; further versions may go beside it."""
    maker = _Maker(folder, version, lidarseg, seed)
    for name, keyframes in scenes.items():
        maker.add_scene(name, keyframes)
    maker.write_tables()
    return folder


class _Maker:
    def __init__(self, folder: Path, version: str, lidarseg: bool, seed: int) -> None:
        self.folder, self.version, self.lidarseg, self.seed = folder, version, lidarseg, seed
        self.rng = np.random.default_rng(seed)
        self.tables: dict[str, list[Row]] = {name: [] for name in (*_TABLES, *(["lidarseg"] if lidarseg else []))}
        for index, name in enumerate(CATEGORIES):
            row = {"token": self.token("category", name), "name": name, "description": ""}
            self.tables["category"].append(row | ({"index": index} if lidarseg else {}))
        for channel in CHANNELS:
            modality = "lidar" if channel == "LIDAR_TOP" else "camera"
            self.tables["sensor"].append({"token": self.token(channel), "channel": channel, "modality": modality})
        self.tables["attribute"].append({"token": self.token("moving"), "name": "vehicle.moving", "description": ""})
        self.tables["visibility"].append({"token": "4", "level": "v80-100", "description": ""})

    def token(self, *parts: object) -> str:
        return hashlib.md5("/".join(map(str, (self.seed, *parts))).encode()).hexdigest()

    def add_scene(self, name: str, keyframes: int) -> None:
        tokens = [self.token("sample", name, index) for index in range(keyframes)]
        log, instance = self.token("log", name), self.token("instance", name)
        self.tables["log"].append(
            {"token": log, "logfile": name, "vehicle": "n0", "date_captured": "2018-07-24", "location": "nowhere"}
        )
        self.tables["scene"].append(
            {
                **{"token": self.token("scene", name), "log_token": log, "nbr_samples": keyframes, "name": name},
                **{"first_sample_token": tokens[0], "last_sample_token": tokens[-1], "description": "made up"},
            }
        )
        for channel in CHANNELS:
            self.tables["calibrated_sensor"].append(self.calibration(name, channel))
        readings: dict[str, list[Row]] = {channel: [] for channel in CHANNELS}
        samples, annotations = [], []
        for index, token in enumerate(tokens):
            time_us = _scene_start_us(name) + index * _KEYFRAME_STEP_US
            samples.append({"token": token, "timestamp": time_us, "scene_token": self.token("scene", name)})
            annotations.append(self.annotation(token, instance))
            for channel in CHANNELS:
                readings[channel].append(self.reading(name, token, channel, time_us - _SWEEP_LEAD_US, False))
                readings[channel].append(self.reading(name, token, channel, time_us, True))
        self.tables["instance"].append(
            {
                **{"token": instance, "category_token": self.token("category", "vehicle.car")},
                **{"nbr_annotations": keyframes, "first_annotation_token": annotations[0]["token"]},
                "last_annotation_token": annotations[-1]["token"],
            }
        )
        self.tables["sample"] += _linked(samples)
        self.tables["sample_annotation"] += _linked(annotations)
        self.tables["sample_data"] += [row for rows in readings.values() for row in _linked(rows)]

    def calibration(self, scene: str, channel: str) -> Row:
        row = {"token": self.token("calibrated", scene, channel), "sensor_token": self.token(channel)}
        if channel == "LIDAR_TOP":
            rotation, translation = _about("z", math.radians(-90)), [0.94, 0.0, LIDAR_HEIGHT_M]
            return {**row, "translation": translation, "rotation": rotation, "camera_intrinsic": []}
        yaw = math.radians(YAW_DEGREES[channel])
        mount = _times(_about("y", 0.01), _about("x", -0.005))
        forward_is_z = [0.5, -0.5, 0.5, -0.5]
        focal_px = 80.0 if channel == "CAM_BACK" else 125.0
        return {
            **row,
            "translation": [0.7 + 0.9 * math.cos(yaw), 0.5 * math.sin(yaw), 1.5],
            "rotation": _times(_times(_about("z", yaw), mount), forward_is_z),
            "camera_intrinsic": [[focal_px, 0.0, 81.5], [0.0, focal_px, 46.0], [0.0, 0.0, 1.0]],
        }

    def reading(self, scene: str, sample: str, channel: str, time_us: int, is_key_frame: bool) -> Row:
        camera = channel in YAW_DEGREES
        time_us -= 12_000 * CHANNELS.index(channel)
        token = self.token("reading", scene, channel, time_us)
        ending = "jpg" if camera else "pcd.bin"
        filename = f"{'samples' if is_key_frame else 'sweeps'}/{channel}/{scene}__{channel}__{time_us}.{ending}"
        if is_key_frame:
            path = self.folder / filename
            path.parent.mkdir(parents=True, exist_ok=True)
            if camera:
                self.picture().save(path, quality=92)
            else:
                self.write_cloud(path, token)
        self.tables["ego_pose"].append({"token": token, **_ego_pose(time_us)})
        return {
            **{"token": token, "sample_token": sample, "ego_pose_token": token},
            **{"calibrated_sensor_token": self.token("calibrated", scene, channel), "timestamp": time_us},
            **{"fileformat": "jpg" if camera else "pcd", "is_key_frame": is_key_frame, "filename": filename},
            **{"height": HEIGHT_PX if camera else 0, "width": WIDTH_PX if camera else 0},
        }

    def annotation(self, sample: str, instance: str) -> Row:
        return {
            **{"token": self.token("annotation", sample), "sample_token": sample, "instance_token": instance},
            **{"visibility_token": "4", "attribute_tokens": [self.token("moving")]},
            **{"translation": [410.0, 1200.0, 0.8], "size": [1.9, 4.5, 1.6], "rotation": [1.0, 0.0, 0.0, 0.0]},
            **{"num_lidar_pts": 1, "num_radar_pts": 0},
        }

    def picture(self) -> Image.Image:
        """Draw sky over ground, and a few coloured boxes that stand on it."""
        image = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), (150, 190, 230))
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, HEIGHT_PX // 2, WIDTH_PX, HEIGHT_PX), fill=(90, 90, 95))
        for left, width, height in self.rng.integers((0, 10, 8), (WIDTH_PX, 40, 40), (6, 3)):
            colour = tuple(int(value) for value in self.rng.integers(0, 256, 3))
            draw.rectangle((left, HEIGHT_PX // 2 + 10 - height, left + width, HEIGHT_PX // 2 + 10), fill=colour)
        return image

    def write_cloud(self, path: Path, token: str) -> None:
        """Write ground, walls, trees and a car all around the lidar, and a few returns of the own car."""
        parts = [
            (self.around(300, (4, 30), (-LIDAR_HEIGHT_M, -LIDAR_HEIGHT_M)), "flat.driveable_surface"),
            (self.around(200, (15, 40), (-1.5, 4)), "static.manmade"),
            (self.around(150, (10, 30), (-1.5, 2)), "static.vegetation"),
            (self.rng.uniform((-1, 8, -1.7), (1, 12, -0.3), (60, 3)), "vehicle.car"),
            (self.around(10, (0.2, 0.8), (-0.5, 0.5)), "vehicle.ego"),
        ]
        xyz = np.concatenate([part for part, _ in parts])
        rest = np.stack([self.rng.integers(0, 256, len(xyz)), self.rng.integers(0, 32, len(xyz))], axis=1)
        np.concatenate([xyz, rest], axis=1).astype("<f4").tofile(path)
        if self.lidarseg:
            file = self.folder / "lidarseg" / self.version / f"{token}_lidarseg.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.repeat([CATEGORIES.index(name) for _, name in parts], [len(part) for part, _ in parts]).astype(
                np.uint8
            ).tofile(file)
            row = {"token": token, "sample_data_token": token, "filename": file.relative_to(self.folder).as_posix()}
            self.tables["lidarseg"].append(row)

    def around(self, points: int, reach_m: tuple[float, float], up_m: tuple[float, float]) -> np.ndarray:
        angle, reach = self.rng.uniform(0, 2 * math.pi, points), self.rng.uniform(*reach_m, points)
        return np.stack([reach * np.cos(angle), reach * np.sin(angle), self.rng.uniform(*up_m, points)], axis=1)

    def write_tables(self) -> None:
        drawing = self.folder / "maps" / "nowhere.png"
        drawing.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(drawing)
        self.tables["map"].append(
            {
                **{"token": self.token("map"), "category": "semantic_prior", "filename": "maps/nowhere.png"},
                "log_tokens": [row["token"] for row in self.tables["log"]],
            }
        )
        (self.folder / self.version).mkdir(parents=True, exist_ok=True)
        for name, rows in self.tables.items():
            shuffled = [rows[index] for index in self.rng.permutation(len(rows))]
            (self.folder / self.version / f"{name}.json").write_text(json.dumps(shuffled, indent=0))


def _linked(rows: list[Row]) -> list[Row]:
    """Give rows in time order their `prev` and `next`."""
    tokens = ["", *(row["token"] for row in rows), ""]
    return [row | {"prev": tokens[index], "next": tokens[index + 2]} for index, row in enumerate(rows)]


def _scene_start_us(scene: str) -> int:
    """Return when a scene starts; the later in number, the earlier, for names of real scenes follow no clock."""
    return _FIRST_TIMESTAMP_US + (10_000 - int(scene[-4:])) * _SCENE_STEP_US


def _ego_pose(time_us: int) -> Row:
    """Return where the car is: from the same place in each scene it drives a curve on a road not quite level."""
    seconds = ((time_us - _FIRST_TIMESTAMP_US + _SCENE_STEP_US // 2) % _SCENE_STEP_US - _SCENE_STEP_US // 2) * 1e-6
    tilt = _times(_about("y", 0.02), _about("x", -0.03))
    return {
        "timestamp": time_us,
        "rotation": _times(_about("z", 0.4 + 0.05 * seconds), tilt),
        "translation": [400 + 8 * seconds, 1200 + 2 * seconds, 0.1 * math.sin(seconds)],
    }


def _about(axis: str, radians: float) -> list[float]:
    """Return the quaternion (w, x, y, z) of a turn about an axis."""
    return [math.cos(radians / 2), *(math.sin(radians / 2) if axis == name else 0.0 for name in "xyz")]


def _times(p: list[float], q: list[float]) -> list[float]:
    """Return the quaternion product: first q, then p."""
    (a, b, c, d), (e, f, g, h) = p, q
    return [
        a * e - b * f - c * g - d * h,
        a * f + b * e + c * h - d * g,
        a * g - b * h + c * e + d * f,
        a * h + b * g - c * f + d * e,
    ]
