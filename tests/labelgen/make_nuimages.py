"""Make a tiny fake nuImages in the official layout: ten tables, pictures, and masks of objects and surfaces.

Two logs with two samples each. `SAMPLES` says what each picture shows. The masks have every form that needs care:
empty, full, starting at pixel 0, overlapping, null. Each sample has a second picture, which is no key frame and is not
there.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WIDTH_PX, HEIGHT_PX = 112, 64
OBJECT_CATEGORIES = (
    *("animal", "human.pedestrian.adult", "human.pedestrian.child", "human.pedestrian.construction_worker"),
    *("human.pedestrian.personal_mobility", "human.pedestrian.police_officer", "human.pedestrian.stroller"),
    *("human.pedestrian.wheelchair", "movable_object.barrier", "movable_object.debris"),
    *("movable_object.pushable_pullable", "movable_object.trafficcone", "static_object.bicycle_rack"),
    *("vehicle.bicycle", "vehicle.bus.bendy", "vehicle.bus.rigid", "vehicle.car", "vehicle.construction"),
    *("vehicle.emergency.ambulance", "vehicle.emergency.police", "vehicle.motorcycle", "vehicle.trailer"),
    "vehicle.truck",
)
SURFACE_CATEGORIES = ("flat.driveable_surface", "vehicle.ego")

Row = dict[str, Any]


class Annotation(NamedTuple):
    """One annotation: its token, its category, and the rectangle (top, left, bottom, right) of its mask, or none."""

    token: str
    category: str
    rectangle: tuple[int, int, int, int] | None

    @property
    def mask(self) -> np.ndarray:
        """Which pixels it covers: (H, W) bool."""
        covered = np.zeros((HEIGHT_PX, WIDTH_PX), bool)
        if self.rectangle:
            top, left, bottom, right = self.rectangle
            covered[top:bottom, left:right] = True
        return covered


class FakeSample(NamedTuple):
    """A sample: log, camera, and its annotations in the order of their tables."""

    log: str
    channel: str
    surfaces: Sequence[Annotation]
    objects: Sequence[Annotation]


FULL = (0, 0, HEIGHT_PX, WIDTH_PX)
SAMPLES = {
    "overlaps": FakeSample(
        "n003-2018-01-02-11-48-43+0800",
        "CAM_FRONT",
        [
            Annotation("f0", "flat.driveable_surface", (30, 0, 64, 112)),
            Annotation("a0", "vehicle.ego", (54, 20, 64, 90)),
        ],
        [
            # The table's order is the reverse of the tokens' order, so the truck is drawn over the car.
            Annotation("b2", "vehicle.truck", (20, 50, 50, 80)),
            Annotation("b1", "vehicle.car", (25, 40, 45, 60)),
            Annotation("b3", "animal", (40, 70, 48, 90)),
            Annotation("b4", "human.pedestrian.adult", None),
        ],
    ),
    "edges": FakeSample(
        "n003-2018-01-02-11-48-43+0800",
        "CAM_BACK",
        [Annotation("c0", "flat.driveable_surface", FULL)],
        [
            Annotation("d0", "movable_object.barrier", (0, 0, 10, 5)),
            Annotation("d1", "vehicle.bicycle", (0, 0, 0, 0)),
            Annotation("d2", "movable_object.trafficcone", (60, 108, 64, 112)),
        ],
    ),
    "many": FakeSample(
        "n009-2018-05-08-15-52-41-0400",
        "CAM_FRONT_LEFT",
        [],
        [
            Annotation(
                f"e{number:02d}",
                category,
                (2 + 20 * (number // 8), 14 * (number % 8), 18 + 20 * (number // 8), 10 + 14 * (number % 8)),
            )
            for number, category in enumerate(OBJECT_CATEGORIES)
        ],
    ),
    "bare": FakeSample("n009-2018-05-08-15-52-41-0400", "CAM_FRONT", [], []),
}
"""The samples by name, in time order; `token(name)` is a sample's token."""

DISTORTION = [-0.32, 0.11, 0.0003, -0.0002, -0.017]


def token(*parts: str) -> str:
    """Return the token of a row, such as `token("sample", "edges")`."""
    return hashlib.md5("/".join(parts).encode()).hexdigest()


def make_nuimages(folder: Path, split: str = "mini") -> Path:
    """Write the data set with one version folder into `folder`."""
    tables: dict[str, list[Row]] = {
        "attribute": [{"token": token("moving"), "name": "vehicle.moving", "description": ""}],
        "category": [
            {"token": token("category", name), "name": name, "description": ""}
            for name in reversed((*OBJECT_CATEGORIES, *SURFACE_CATEGORIES))
        ],
        **{name: [] for name in ("calibrated_sensor", "ego_pose", "object_ann", "sample", "sample_data", "sensor")},
        "log": [
            {"token": token("log", name), "logfile": name, "vehicle": name[:4], "location": "nowhere"}
            for name in dict.fromkeys(sample.log for sample in SAMPLES.values())
        ],
        "surface_ann": [],
    }
    for number, name in enumerate(reversed(SAMPLES)):
        _add_sample(tables, folder, name, 1_525_000_000_000_000 - 500_000 * number)
    (folder / f"v1.0-{split}").mkdir(parents=True)
    for table, rows in tables.items():
        (folder / f"v1.0-{split}" / f"{table}.json").write_text(json.dumps(rows, indent=0))
    return folder


def _add_sample(tables: dict[str, list[Row]], folder: Path, name: str, time_us: int) -> None:
    sample = SAMPLES[name]
    log, channel = sample.log, sample.channel
    sensor = {"token": token("sensor", channel), "channel": channel, "modality": "camera"}
    tables["sensor"] += [] if sensor in tables["sensor"] else [sensor]
    tables["calibrated_sensor"].append(
        {
            **{"token": token("calibrated", name), "sensor_token": sensor["token"]},
            **{"rotation": [0.5, -0.5, 0.5, -0.5], "translation": [1.7, 0.0, 1.5]},
            "camera_intrinsic": [[88.0, 0.0, 56.5], [0.0, 88.0, 32.5], [0.0, 0.0, 1.0]],
            "camera_distortion": [*DISTORTION, *([0.004] if channel == "CAM_BACK" else [])],
        }
    )
    for kind, lag_us in (("key", 0), ("sweep", 500_000)):
        place = "samples" if kind == "key" else "sweeps"
        tables["sample_data"].append(
            {
                **{"token": token(kind, name), "sample_token": token("sample", name)},
                **{"ego_pose_token": token("pose", kind, name), "calibrated_sensor_token": token("calibrated", name)},
                **{"filename": f"{place}/{channel}/{log}__{channel}__{time_us - lag_us}.jpg", "fileformat": "jpg"},
                **{
                    "width": WIDTH_PX,
                    "height": HEIGHT_PX,
                    "timestamp": time_us - lag_us,
                    "is_key_frame": kind == "key",
                },
                **{"prev": token("sweep", name) if kind == "key" else "", "next": ""},
            }
        )
        tables["ego_pose"].append(
            {
                **{"token": token("pose", kind, name), "timestamp": time_us - lag_us, "speed": 8.0},
                **{"rotation": [1.0, 0.0, 0.0, 0.0], "translation": [0.0, 0.0, 0.0]},
            }
        )
    tables["sample"].append(
        {
            **{"token": token("sample", name), "timestamp": time_us, "log_token": token("log", log)},
            "key_camera_token": token("key", name),
        }
    )
    for table, annotations in (("surface_ann", sample.surfaces), ("object_ann", sample.objects)):
        for annotation in annotations:
            tables[table].append(_annotation_row(annotation, name, table == "object_ann"))
    file = folder / tables["sample_data"][-2]["filename"]
    file.parent.mkdir(parents=True, exist_ok=True)
    _picture(sample).save(file, quality=92)


def _annotation_row(annotation: Annotation, name: str, is_object: bool) -> Row:
    encoded = {"size": [HEIGHT_PX, WIDTH_PX], "counts": in_base64(run_lengths(annotation.mask))}
    top, left, bottom, right = annotation.rectangle or (0, 0, 0, 0)
    of_object = {"bbox": [left, top, right, bottom], "attribute_tokens": []} if is_object else {}
    return {
        **{"token": annotation.token, "sample_data_token": token("key", name)},
        **{"category_token": token("category", annotation.category)},
        "mask": encoded if annotation.rectangle else None,
        **of_object,
    }


def _picture(sample: FakeSample) -> Image.Image:
    """Draw each annotation as a rectangle of a colour of its own on sky over ground."""
    pixels = np.full((HEIGHT_PX, WIDTH_PX, 3), (150, 190, 230), np.uint8)
    pixels[HEIGHT_PX // 2 :] = (120, 130, 90)
    for annotation in (*sample.surfaces, *sorted(sample.objects)):
        digest = hashlib.md5(annotation.category.encode()).digest()
        pixels[annotation.mask] = list(digest[:3])
    return Image.fromarray(pixels)


def run_lengths(mask: np.ndarray) -> str:
    """Return COCO's compressed run lengths of a mask (H, W): runs down the columns, the first one not covered."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes.tolist(), flat.size]).tolist()
    return compressed([0, *runs] if flat[0] else runs)


def compressed(runs: Sequence[int]) -> str:
    """Return runs as text: groups of 5 bits, the lowest first; from the fourth number on, differences to two before."""
    text = ""
    for index, run in enumerate(runs):
        rest = run - runs[index - 2] if index > 2 else run
        while True:
            group, rest = rest & 31, rest >> 5
            last = rest == (-1 if group & 16 else 0)
            text += chr(48 + group + (0 if last else 32))
            if last:
                break
    return text


def in_base64(text: str) -> str:
    """Return text as nuImages stores it."""
    return base64.b64encode(text.encode()).decode()
