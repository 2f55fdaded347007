"""The thirteen nuScenes tables and lidarseg.json, as the official devkit reads them."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from demo.world.sensors import CHANNELS, LIDAR

VERSION = "v1.0-mini"
FIRST_TIMESTAMP_US = 1_533_000_000_000_000
NAMES = (
    *("attribute", "calibrated_sensor", "category", "ego_pose", "instance", "lidarseg", "log", "map", "sample"),
    *("sample_annotation", "sample_data", "scene", "sensor", "visibility"),
)
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
"""The official categories; the lidarseg index of a category is its position here."""

ATTRIBUTES = (
    *("vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider", "cycle.without_rider"),
    *("pedestrian.sitting_lying_down", "pedestrian.standing", "pedestrian.moving"),
)
VISIBILITIES = ("v0-40", "v40-60", "v60-80", "v80-100")
LOCATION = "demo-town"
MAP_FILE = "maps/demo-town.png"

Row = dict[str, Any]
Tables = dict[str, list[Row]]


def token(*parts: object) -> str:
    """Return a token; the same parts give the same token."""
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def fixed_tables(world: str) -> Tables:
    """Return all tables, with the rows that do not depend on scenes; `world` is part of all tokens."""
    tables: Tables = {name: [] for name in NAMES}
    tables["category"] = [
        {"token": token(world, name), "name": name, "description": "", "index": index}
        for index, name in enumerate(CATEGORIES)
    ]
    tables["attribute"] = [{"token": token(world, name), "name": name, "description": ""} for name in ATTRIBUTES]
    tables["visibility"] = [
        {"token": str(index + 1), "level": level, "description": f"visibility of {level[1:]} %"}
        for index, level in enumerate(VISIBILITIES)
    ]
    tables["sensor"] = [
        {"token": token(world, channel), "channel": channel, "modality": "lidar" if channel == LIDAR else "camera"}
        for channel in (*CHANNELS, LIDAR)
    ]
    return tables


def linked(rows: list[Row]) -> list[Row]:
    """Return rows in time order with their `prev` and `next`."""
    tokens = ["", *(row["token"] for row in rows), ""]
    return [row | {"prev": tokens[index], "next": tokens[index + 2]} for index, row in enumerate(rows)]


def map_row(world: str, logs: Iterable[Row]) -> Row:
    """Return the row of the only map, which all logs use."""
    return {
        **{"token": token(world, "map"), "category": "semantic_prior", "filename": MAP_FILE},
        "log_tokens": [row["token"] for row in logs],
    }


def write_tables(tables: Tables, folder: Path) -> None:
    """Write one JSON file a table."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (folder / f"{name}.json").write_text(json.dumps(tables[name], indent=0) + "\n")
