"""The pictures that the demo's networks are trained on: rendered once into a folder, then loaded as a whole."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.world.layout import make_scene
from demo.world.render import render_view
from demo.world.sensors import make_cameras

FIRST_SEED = 1_000_000
"""Seed of the first training scene; the others follow. Scenes of demo worlds have seeds of 2**30 or more."""

SIZE = (288, 512)
VIEWS_PER_SCENE = 6


@dataclass(frozen=True)
class Views:
    """Rendered pictures: `rgb` (N, H, W, 3) u8, `class_ids` (N, H, W) u8, `instance_ids` (N, H, W) u16."""

    rgb: NDArray[np.uint8]
    class_ids: NDArray[np.uint8]
    instance_ids: NDArray[np.uint16]


@dataclass(frozen=True)
class Light:
    """How much `relight` changes a picture.

    Attributes:
        contrast: values are multiplied by 1 - contrast .. 1 + contrast.
        brightness: then shifted by -brightness .. brightness, in grey levels of 0..255.
        channels: 1 to change all colour channels alike, 3 to change each one on its own.
    """

    contrast: float
    brightness: float
    channels: int = 1


def render_views(folder: Path, scenes: int, workers: int) -> None:
    """Render six views of each of `scenes` training scenes into `folder`; existing files are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in range(FIRST_SEED, FIRST_SEED + scenes) if not (folder / f"{seed}.npz").exists()]
    with ProcessPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(_render_scene, [folder] * len(missing), missing), start=1):
            if done % 20 == 0 or done == len(missing):
                print(f"rendered {done} of {len(missing)} scenes", flush=True)


def load_views(folder: Path, scenes: int) -> Views:
    """Load the views of the first `scenes` training scenes."""
    parts = [np.load(folder / f"{seed}.npz") for seed in range(FIRST_SEED, FIRST_SEED + scenes)]
    return Views(*(np.concatenate([part[name] for part in parts]) for name in ("rgb", "class_ids", "instance_ids")))


def relight(rgb: NDArray[np.uint8], rng: np.random.Generator, light: Light) -> NDArray[np.uint8]:
    """Change contrast and brightness of a picture (H, W, 3) at random."""
    scale = rng.uniform(1 - light.contrast, 1 + light.contrast, light.channels)
    lit = rgb.astype(np.float32) * scale + rng.uniform(-light.brightness, light.brightness, light.channels)
    return np.clip(lit, 0, 255).astype(np.uint8)


def _render_scene(folder: Path, seed: int) -> None:
    scene = make_scene(seed)
    cameras = make_cameras(seed, SIZE[1], SIZE[0])
    times = np.random.default_rng(seed).uniform(0, 2, VIEWS_PER_SCENE)
    views = [render_view(scene, camera, float(time)) for camera, time in zip(cameras, times, strict=True)]
    part = folder / f"{seed}.part.npz"
    np.savez(
        part,
        rgb=np.stack([view.rgb for view in views]),
        class_ids=np.stack([view.class_ids for view in views]),
        instance_ids=np.stack([view.instance_ids for view in views]),
    )
    part.rename(folder / f"{seed}.npz")
