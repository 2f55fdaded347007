"""Resizing images to SAM's input size. It runs in the workers that decode images, so it must not import torch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelgen.teachers.sam.architectures import find_architecture


@dataclass(frozen=True)
class ResizedImage:
    """An image at SAM's input size.

    `pixels` (H1, W1, 3) u8, its longer side as long as SAM's square input; `native_size` (height, width) in pixels
    before resizing.
    """

    pixels: NDArray[np.uint8]
    native_size: tuple[int, int]


def resize_for_sam(image: NDArray[np.uint8], architecture: str) -> ResizedImage:
    """Resize a native image (H0, W0, 3) for one of the architectures, as the stock SamPredictor does.

    It uses Pillow alone: segment_anything's ResizeLongestSide gives the same pixels, but importing it imports torch,
    which takes seconds in each worker.

    Raises:
        ConfigError: if there is no such architecture.
    """
    height, width = image.shape[:2]
    scale = find_architecture(architecture).input_side_px / max(height, width)
    resized_height, resized_width = int(height * scale + 0.5), int(width * scale + 0.5)
    resized = Image.fromarray(image).resize((resized_width, resized_height), Image.Resampling.BILINEAR)
    return ResizedImage(np.asarray(resized), (height, width))
