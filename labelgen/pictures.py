"""Decode the pictures of a dataset, and bring them to another size."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelgen.datasets.adapter import Adapter
from labelgen.errors import SampleError
from labelgen.samples import Camera, Sample

NOT_A_PICTURE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that is not a complete picture."""


DEEP_MODES = ("I", "F")
"""Beginnings of Pillow's modes with more than 8 bits a channel; its conversion to RGB cuts such values off at 255."""


def read_native_images(adapter: Adapter, sample: Sample) -> list[NDArray[np.uint8]]:
    """Decode the pictures of all cameras of a sample, each at its size on disk: (H0, W0, 3) RGB.

    Raises:
        SampleError: if a picture cannot be decoded, or its size is not the one in the tables.
    """
    return [read_image(adapter, camera) for camera in sample.cameras]


def read_image(adapter: Adapter, camera: Camera) -> NDArray[np.uint8]:
    """Decode the picture of a camera to (H0, W0, 3) RGB. A picture of another size than the camera's is not decoded.

    Raises:
        SampleError: if the file is truncated, not a picture, of another size, or has more than 8 bits a channel.
        SourceError: if the file cannot be read.
    """
    name = str(adapter.data / camera.image_path) + ("" if camera.frame is None else f", frame {camera.frame}")
    return np.asarray(_decode(adapter.picture_bytes(camera), name, (camera.height_px, camera.width_px), "RGB"))


def read_id_picture(adapter: Adapter, path: str, size: tuple[int, int]) -> NDArray[Any]:
    """Decode one single-channel picture of ids, of `size` (height, width), to (H0, W0).

    Raises:
        SampleError: as `read_image`, and if the picture has more than one channel.
    """
    ids = np.asarray(_decode(adapter.read_bytes(path), str(adapter.data / path), size, None))
    if ids.ndim != 2:
        raise SampleError(
            f"{adapter.data / path}: ids of shape {ids.shape}, but a picture of ids has one channel; restore the file"
        )
    return ids


def read_depth(adapter: Adapter, camera: Camera) -> NDArray[np.float32]:
    """Decode the depth picture of a camera that has one: (H1, W1) f32 metres along the optical axis, 0 where unknown.

    Raises:
        SampleError: if the file is not a whole picture of one channel with 16 bits.
        SourceError: if it cannot be read.
    """
    assert camera.depth is not None
    name = str(adapter.data / camera.depth.path)
    try:
        picture = Image.open(io.BytesIO(adapter.depth_bytes(camera)))
        values = np.asarray(picture)
    except NOT_A_PICTURE as error:
        raise SampleError(f"{name}: not a whole picture ({error}); restore the file from the dataset") from None
    if not picture.mode.startswith("I"):
        raise SampleError(
            f"{name}: a picture of mode {picture.mode}, but depth has one channel of 16 bits; "
            "restore the file from the dataset"
        )
    return values.astype(np.float32) * np.float32(camera.depth.metres_per_unit)


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a picture (H0, W0, 3) to `size` (height, width), with Pillow's antialiased bilinear filter."""
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _decode(raw: bytes, name: str, size: tuple[int, int], mode: str | None) -> Image.Image:
    """Decode a picture only if its header says the right size, since a small file can claim gigabytes."""
    try:
        picture = Image.open(io.BytesIO(raw))
        if mode and picture.mode.startswith(DEEP_MODES):
            raise SampleError(
                f"{name}: a picture of mode {picture.mode}, with more than 8 bits a channel; "
                "convert the pictures to 8 bits a channel, with the brightness that they are to be seen in"
            )
        if picture.size == size[::-1]:
            return picture.convert(mode) if mode else picture.copy()
    except NOT_A_PICTURE as error:
        raise SampleError(f"{name}: not a whole picture ({error}); restore the file from the dataset") from None
    raise SampleError(
        f"{name}: {picture.size[0]}x{picture.size[1]} pixels, the tables say {size[1]}x{size[0]}; "
        "restore the file from the dataset"
    )
