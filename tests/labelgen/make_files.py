"""Make a tiny data set of one's own: pictures, one cloud in every format, truth, and the list of samples.

The street is that of the guide: road, wall and car, seen by a camera in front; a second camera looks left.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH_PX, HEIGHT_PX = 112, 64
INTRINSICS = [[90.0, 0.0, 55.5], [0.0, 90.0, 31.5], [0.0, 0.0, 1.0]]
FRONT_FROM_CLOUD = [[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, -0.08], [1.0, 0.0, 0.0, -0.27], [0.0, 0.0, 0.0, 1.0]]
LEFT_FROM_CLOUD = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, -0.08], [0.0, 1.0, 0.0, -0.3], [0.0, 0.0, 0.0, 1.0]]
TAXONOMY = {
    "name": "street",
    "classes": [
        {"name": "road", "colour": [128, 64, 128]},
        {"name": "wall", "colour": [190, 153, 100]},
        {"name": "car", "colour": [0, 0, 200]},
    ],
}
PROMPTS = "templates: ['a photo of a {}.']\nclasses: {road: [road], wall: [wall], car: [car]}\n"

Line = dict[str, Any]
"""A line of the list."""

Change = Callable[[Line], None]


def make_files(folder: Path, samples: int = 4, seed: int = 0) -> list[Line]:
    """Write a data set of two scenes into `folder`, and return its lines; samples take turns between the scenes."""
    rng = np.random.default_rng(seed)
    for name in ("clouds", "pictures", "truth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "taxonomy.json").write_text(json.dumps(TAXONOMY))
    (folder / "prompts.yaml").write_text(PROMPTS)
    lines = [_write_sample(folder, number, rng) for number in range(samples)]
    write_list(folder, lines)
    return lines


def write_list(folder: Path, lines: list[Line], name: str = "samples.jsonl") -> Path:
    """Write a list of samples."""
    file = folder / name
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def street(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points (P, 4) f32 x, y, z, intensity 0..255, and their class ids (P,)."""
    parts = [
        rng.uniform((3, -10, -1.7), (30, 10, -1.7), (300, 3)),
        rng.uniform((30, -10, -1.7), (30, 10, 3), (200, 3)),
        rng.uniform((12, -1, -1.7), (12, 1, -0.2), (100, 3)),
    ]
    sizes = [len(part) for part in parts]
    intensity = rng.integers(0, 256, sum(sizes))
    points = np.column_stack([np.concatenate(parts), intensity]).astype(np.float32)
    return points, np.repeat(np.arange(3), sizes).astype(np.uint8)


def _write_sample(folder: Path, number: int, rng: np.random.Generator) -> Line:
    points, ids = street(rng)
    points.tofile(folder / f"clouds/{number}.bin")
    ids.tofile(folder / f"truth/{number}.bin")
    images = []
    for camera, cam_from_cloud in (("front", FRONT_FROM_CLOUD), ("left", LEFT_FROM_CLOUD)):
        name = f"{number}-{camera}.png"
        pixels = rng.integers(0, 256, (HEIGHT_PX // 8, WIDTH_PX // 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        Image.fromarray(pixels).save(folder / "pictures" / name)
        classes = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
        classes[: HEIGHT_PX // 2], classes[0] = 1, 255
        Image.fromarray(classes).save(folder / "truth" / name)
        images.append(
            {
                **{"camera": camera, "path": f"pictures/{name}", "width": WIDTH_PX, "height": HEIGHT_PX},
                **{"intrinsics": INTRINSICS, "cam_from_cloud": cam_from_cloud, "truth": f"truth/{name}"},
            }
        )
    pose = np.eye(4)
    pose[0, 3] = 2.0 * number
    return {
        **{"id": f"sample-{number}", "scene": f"scene-{number % 2}", "split": ("train", "val")[number % 2]},
        "cloud": {"path": f"clouds/{number}.bin", "columns": ["x", "y", "z", "intensity"], "intensity_max": 255},
        "images": images,
        "world_from_cloud": pose.tolist(),
        "point_truth": f"truth/{number}.bin",
    }


def deleted(*path: str | int) -> Change:
    """Return a change of a line that removes the field at `path`."""

    def change(line: Line) -> None:
        place: Any = line
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]

    return change


def put(value: object, *path: str | int) -> Change:
    """Return a change of a line that gives the field at `path` a value."""

    def change(line: Line) -> None:
        place: Any = line
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change
