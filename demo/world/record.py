"""Record one scene: write its pictures, point clouds and truth, and return its table rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.world.annotate import annotation_row, boxes
from demo.world.layout import make_scene
from demo.world.lidar import Sweep, scan
from demo.world.render import View, render_view
from demo.world.scene import Scene
from demo.world.sensors import LIDAR, CameraModel, ego_from_lidar, make_cameras
from demo.world.tables import CATEGORIES, FIRST_TIMESTAMP_US, LOCATION, VERSION, Row, Tables, linked, token

KEYFRAME_STEP_US = 500_000
SWEEP_STEP_US = 50_000
"""The lidar turns 20 times a second."""
MAX_SWEEPS = KEYFRAME_STEP_US // SWEEP_STEP_US - 1
"""Sweeps between two keyframes."""
JPEG_QUALITY = 90
_PNG_LEVEL = 4


@dataclass(frozen=True)
class SceneJob:
    """One scene to record; plain values, which can be sent to worker processes.

    Attributes:
        out: folder of the data set.
        world: name of the world; it is part of all tokens.
        name: name of the scene.
        number: index of the scene, which sets its timestamps.
        seed, difficulty: arguments of `make_scene`.
        keyframes: number of keyframes.
        sweeps: number of lidar sweeps before each keyframe.
        width_px, height_px: size of the pictures.
    """

    out: Path
    world: str
    name: str
    number: int
    seed: int
    difficulty: float
    keyframes: int
    sweeps: int
    width_px: int
    height_px: int


def record_scene(job: SceneJob) -> Tables:
    """Write the files of one scene and return its rows."""
    scene = make_scene(job.seed, job.difficulty)
    cameras = make_cameras(job.seed, job.width_px, job.height_px)
    rows: Tables = {name: [] for name in ("ego_pose", "lidarseg", "sample", "sample_annotation", "sample_data")}
    readings: dict[str, list[Row]] = {channel: [] for channel in (LIDAR, *(camera.channel for camera in cameras))}
    start_us = FIRST_TIMESTAMP_US + job.number * 100_000_000
    scene_token = token(job.world, job.name)
    for index in range(job.keyframes):
        elapsed_us = (index + 1) * KEYFRAME_STEP_US
        sample_token = token(job.world, job.name, "sample", index)
        rows["sample"].append({"token": sample_token, "timestamp": start_us + elapsed_us, "scene_token": scene_token})
        for before in range(job.sweeps, 0, -1):
            swept_us = elapsed_us - before * SWEEP_STEP_US
            reading = _reading(job, scene, rows, LIDAR, sample_token, start_us, swept_us, is_key_frame=False)
            readings[LIDAR].append(reading)
            _write_points(job, scan(scene, swept_us * 1e-6), reading)
        sweep = scan(scene, elapsed_us * 1e-6)
        reading = _reading(job, scene, rows, LIDAR, sample_token, start_us, elapsed_us)
        readings[LIDAR].append(reading)
        _write_points(job, sweep, reading)
        _write_lidarseg(job, scene, sweep, reading, rows)
        rows["sample_annotation"] += [
            annotation_row(job.world, scene, job.name, sample_token, box)
            for box in boxes(scene, sweep, elapsed_us * 1e-6)
        ]
        for camera in cameras:
            fired_us = elapsed_us + camera.delay_us
            reading = _reading(job, scene, rows, camera.channel, sample_token, start_us, fired_us, camera)
            readings[camera.channel].append(reading)
            _write_view(job, render_view(scene, camera, fired_us * 1e-6), reading)
    rows["sample"] = linked(rows["sample"])
    rows["sample_data"] = [row for column in readings.values() for row in linked(column)]
    rows["sample_annotation"], rows["instance"] = _instances(job, scene, rows["sample_annotation"])
    return rows | _scene_rows(job, scene, cameras, rows["sample"])


def _reading(
    job: SceneJob,
    scene: Scene,
    rows: Tables,
    channel: str,
    sample_token: str,
    start_us: int,
    elapsed_us: int,
    camera: CameraModel | None = None,
    *,
    is_key_frame: bool = True,
) -> Row:
    """Return a row of sample_data without prev and next, and add its ego pose to `rows`."""
    time_us = start_us + elapsed_us
    this = token(job.world, job.name, channel, time_us)
    pose = scene.global_from_scene @ scene.scene_from_ego(elapsed_us * 1e-6)
    rows["ego_pose"].append({"token": this, "timestamp": time_us, **_pose_fields(pose)})
    ending = "jpg" if camera else "pcd.bin"
    return {
        "token": this,
        "sample_token": sample_token,
        "ego_pose_token": this,
        "calibrated_sensor_token": token(job.world, job.name, "calibrated", channel),
        "timestamp": time_us,
        "fileformat": "jpg" if camera else "pcd",
        "is_key_frame": is_key_frame,
        "height": camera.height_px if camera else 0,
        "width": camera.width_px if camera else 0,
        "filename": f"{'samples' if is_key_frame else 'sweeps'}/{channel}/{job.name}__{channel}__{time_us}.{ending}",
    }


def _write_points(job: SceneJob, sweep: Sweep, reading: Row) -> None:
    sweep.points.astype("<f4").tofile(_with_folder(job.out / reading["filename"]))


def _write_lidarseg(job: SceneJob, scene: Scene, sweep: Sweep, reading: Row, rows: Tables) -> None:
    labels = f"lidarseg/{VERSION}/{reading['token']}_lidarseg.bin"
    raw_of_thing = np.array([CATEGORIES.index(thing.category) for thing in scene.things], np.uint8)
    raw_of_thing[sweep.instance_ids - 1].tofile(_with_folder(job.out / labels))
    rows["lidarseg"].append({"token": reading["token"], "sample_data_token": reading["token"], "filename": labels})


def _write_view(job: SceneJob, view: View, reading: Row) -> None:
    Image.fromarray(view.rgb).save(_with_folder(job.out / reading["filename"]), quality=JPEG_QUALITY)
    for kind, plane in (("image_truth", view.class_ids), ("image_instances", view.instance_ids)):
        path = job.out / kind / Path(reading["filename"]).relative_to("samples").with_suffix(".png")
        Image.fromarray(plane).save(_with_folder(path), compress_level=_PNG_LEVEL)


def _with_folder(path: Path) -> Path:
    """Return the path after making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _instances(job: SceneJob, scene: Scene, annotations: list[Row]) -> tuple[list[Row], list[Row]]:
    """Return the annotations with prev and next set, and the rows of instance."""
    by_instance: dict[str, list[Row]] = {}
    for row in annotations:
        by_instance.setdefault(row["instance_token"], []).append(row)
    category = {token(job.world, job.name, "instance", i): thing.category for i, thing in enumerate(scene.things)}
    instances = [
        {
            "token": this,
            "category_token": token(job.world, category[this]),
            "nbr_annotations": len(rows),
            "first_annotation_token": rows[0]["token"],
            "last_annotation_token": rows[-1]["token"],
        }
        for this, rows in by_instance.items()
    ]
    return [row for rows in by_instance.values() for row in linked(rows)], instances


def _scene_rows(job: SceneJob, scene: Scene, cameras: tuple[CameraModel, ...], samples: list[Row]) -> Tables:
    """Return the rows of scene, log and calibrated_sensor."""
    mounts = [(camera.channel, camera.ego_from_cam, camera.intrinsics.tolist()) for camera in cameras]
    mounts.append((LIDAR, ego_from_lidar(scene.seed), []))
    log = token(job.world, job.name, "log")
    return {
        "calibrated_sensor": [
            {
                "token": token(job.world, job.name, "calibrated", channel),
                "sensor_token": token(job.world, channel),
                **_pose_fields(pose),
                "camera_intrinsic": intrinsics,
            }
            for channel, pose, intrinsics in mounts
        ],
        "log": [
            {
                "token": log,
                "logfile": job.name,
                "vehicle": "demo",
                "date_captured": "2018-07-31",
                "location": LOCATION,
            }
        ],
        "scene": [
            {
                "token": token(job.world, job.name),
                "log_token": log,
                "nbr_samples": len(samples),
                "first_sample_token": samples[0]["token"],
                "last_sample_token": samples[-1]["token"],
                "name": job.name,
                "description": scene.description,
            }
        ],
    }


def _pose_fields(pose: NDArray[np.float64]) -> Row:
    """Return translation and rotation (quaternion w, x, y, z) of a rigid transform (4, 4)."""
    return {"translation": pose[:3, 3].tolist(), "rotation": quaternion(pose[:3, :3]).tolist()}


def quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit quaternion (4,) w, x, y, z of a rotation matrix (3, 3)."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    outer = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    values, vectors = np.linalg.eigh(outer)
    best = vectors[:, int(np.argmax(values))]
    return best * (1 if best[np.argmax(np.abs(best))] > 0 else -1)
