"""Pictures to measure on: made ones of any size, and those of a demo world."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NATIVE_SIZE = (900, 1600)
"""Height and width of a nuScenes picture."""

TRAINING_SIZE = (224, 416)


def soft_blobs(count: int, size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Return pictures (H, W, 3) of soft coloured blobs, equal in every call."""
    rng = np.random.default_rng(0)
    blobs = [rng.integers(0, 256, (18, 32, 3), np.uint8) for _ in range(count)]
    return [np.asarray(Image.fromarray(blob).resize(size[::-1], Image.Resampling.BICUBIC)) for blob in blobs]


def demo_pictures(world: Path, count: int) -> list[NDArray[np.uint8]]:
    """Return native pictures (H0, W0, 3) of a demo world.

    Raises:
        FileNotFoundError: if the world has no pictures.
    """
    files = sorted(world.glob("samples/CAM_*/*.jpg"))[:count]
    if not files:
        raise FileNotFoundError(f"{world}/samples holds no pictures; make them with: make demo-world")
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]
