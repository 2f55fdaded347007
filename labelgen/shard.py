"""The work on one shard, one function a group: raw files and upstream arrays in, the group's arrays out.

Nothing here knows of Ray or of where the cache is.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelgen.datasets.adapter import Adapter
from labelgen.errors import SampleError
from labelgen.geometry import pair_points, scale_intrinsics
from labelgen.refine import label_images, transfer_to_points
from labelgen.samples import Camera, Cloud, Sample
from labelgen.teachers.clip.teacher import ClipScores
from labelgen.teachers.sam.resampling import nearest_pixels
from labelgen.teachers.sam.teacher import SamResult

Arrays = dict[str, NDArray[Any]]

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for files that are no whole picture."""


class BadSamplesError(Exception):
    """Some samples of a shard are unusable; `reasons` says why, by sample token."""

    def __init__(self, reasons: dict[str, str]) -> None:
        """Keep the reasons."""
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons


def read_image(adapter: Adapter, path: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode one picture of `size` (height, width) to (H0, W0, 3) RGB; one of another size is not decoded.

    Raises:
        SampleError: if the file is missing, truncated, no picture, or of another size.
    """
    return np.asarray(_open_picture(adapter, path, size, "RGB"))


def _open_picture(adapter: Adapter, path: str, size: tuple[int, int], mode: str | None) -> Image.Image:
    """Decode a picture whose header says the right size: a few bytes can claim gigabytes."""
    raw = adapter.read_bytes(path)
    try:
        picture = Image.open(io.BytesIO(raw))
        if picture.size == size[::-1]:
            return picture.convert(mode) if mode else picture.copy()
    except UNREADABLE as error:
        raise SampleError(
            f"{adapter.data / path}: not a whole picture ({error}); restore the file from the dataset"
        ) from None
    raise SampleError(
        f"{adapter.data / path}: {picture.size[0]}x{picture.size[1]} pixels, the tables say {size[1]}x{size[0]}; "
        "restore the file from the dataset"
    )


def read_native_images(adapter: Adapter, sample: Sample) -> list[NDArray[np.uint8]]:
    """Decode a sample's pictures at their own size.

    Raises:
        SampleError: if one cannot be decoded, or its size is not what the tables say.
    """
    return [read_image(adapter, camera.image_path, (camera.height_px, camera.width_px)) for camera in sample.cameras]


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a picture (H0, W0, 3) to `size` (height, width), averaging over the pixels that merge."""
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def make_images(adapter: Adapter, samples: Sequence[Sample], size: tuple[int, int]) -> Arrays:
    """Return the `images` group at `size`.

    Raises:
        BadSamplesError: naming every sample that cannot be used.
    """
    pictures, reasons = [], {}
    for sample in samples:
        try:
            pictures += [resize(image, size) for image in read_native_images(adapter, sample)]
        except SampleError as error:
            reasons[sample.token] = str(error)
    if reasons:
        raise BadSamplesError(reasons)
    cameras = [camera for sample in samples for camera in sample.cameras]
    return {
        "rgb": np.stack(pictures),
        "intrinsics": np.stack(
            [scale_intrinsics(camera.intrinsics, (camera.height_px, camera.width_px), size) for camera in cameras]
        ),
        "cam_from_cloud": np.stack([camera.cam_from_cloud for camera in cameras]),
        "offsets": _offsets([len(sample.cameras) for sample in samples]),
    }


def read_clouds(adapter: Adapter, samples: Sequence[Sample]) -> list[Cloud]:
    """Read all clouds of a shard.

    Raises:
        BadSamplesError: naming every sample whose cloud cannot be read.
    """
    clouds, reasons = [], {}
    for sample in samples:
        try:
            clouds.append(adapter.read_cloud(sample))
        except SampleError as error:
            reasons[sample.token] = str(error)
    if reasons:
        raise BadSamplesError(reasons)
    return clouds


def make_points(clouds: Sequence[Cloud]) -> Arrays:
    """Return the `points` group."""
    return {
        "xyz": np.concatenate([cloud.xyz for cloud in clouds]),
        "intensity": np.concatenate([cloud.intensity for cloud in clouds]),
        "offsets": _offsets([len(cloud.xyz) for cloud in clouds]),
    }


def make_pairs(samples: Sequence[Sample], clouds: Sequence[Cloud], size: tuple[int, int], min_depth_m: float) -> Arrays:
    """Return the `pairs` group, with points and images counted over the whole shard."""
    parts = [
        pair_points(cloud.xyz, sample.cameras, size, min_depth_m) for sample, cloud in zip(samples, clouds, strict=True)
    ]
    first_point = _offsets([len(cloud.xyz) for cloud in clouds])
    first_image = _offsets([len(sample.cameras) for sample in samples])
    return {
        "point": np.concatenate([part.point + first_point[i] for i, part in enumerate(parts)]).astype(np.int32),
        "image": np.concatenate([part.image + first_image[i] for i, part in enumerate(parts)]).astype(np.uint16),
        "row": np.concatenate([part.row for part in parts]),
        "col": np.concatenate([part.col for part in parts]),
        "offsets": _offsets([len(part.point) for part in parts]),
    }


def make_truth(adapter: Adapter, samples: Sequence[Sample], clouds: Sequence[Cloud], size: tuple[int, int]) -> Arrays:
    """Return the `truth` group: of points, and of images at `size` where every image has its truth.

    Raises:
        BadSamplesError: naming every sample whose truth cannot be read or does not fit.
    """
    points, images, segments, reasons = [], [], [], {}
    for sample, cloud in zip(samples, clouds, strict=True):
        try:
            points.append(adapter.read_point_truth(sample, len(cloud.xyz)))
            images += [read_ids(adapter, camera, camera.truth_path, size) for camera in sample.cameras]
            segments += [read_ids(adapter, camera, camera.segments_path, size) for camera in sample.cameras]
        except SampleError as error:
            reasons[sample.token] = str(error)
    if reasons:
        raise BadSamplesError(reasons)
    arrays: Arrays = {"point": np.concatenate(points)}
    for name, ids, dtype in (("image", images, np.uint8), ("segments", segments, np.uint16)):
        if all(one is not None for one in ids):
            arrays[name] = np.stack(ids).astype(dtype)
    return arrays


def read_ids(adapter: Adapter, camera: Camera, path: str | None, size: tuple[int, int]) -> NDArray[Any] | None:
    """Read a picture of ids and bring it to `size`, each pixel the native one under its centre; None without a path.

    Raises:
        SampleError: if the file cannot be read or is not of the camera's size.
    """
    if path is None:
        return None
    ids = np.asarray(_open_picture(adapter, path, (camera.height_px, camera.width_px), None))
    if ids.ndim != 2:
        raise SampleError(
            f"{adapter.data / path}: ids of shape {ids.shape}, a picture has one a pixel; restore the file"
        )
    return nearest_pixels(ids, size)


def make_clip(parts: Sequence[ClipScores]) -> Arrays:
    """Return the `clip` group from the teacher's results, in sample order."""
    arrays: Arrays = {"logits": np.concatenate([part.logits for part in parts])}
    features = [part.features for part in parts if part.features is not None]
    if features:
        arrays["features"] = np.concatenate(features)
    return arrays


def make_sam(parts: Sequence[SamResult]) -> Arrays:
    """Return the `sam` group from the teacher's results, in sample order."""
    arrays: Arrays = {
        "mask_ids": np.concatenate([part.mask_ids for part in parts]),
        "features": np.concatenate([part.features for part in parts]),
    }
    scales = [part.features_scale for part in parts if part.features_scale is not None]
    if scales:
        arrays["features_scale"] = np.concatenate(scales)
    return arrays


def make_labels(clip: Arrays, sam: Arrays, pairs: Arrays, points: int) -> Arrays:
    """Return the `labels` group from the arrays of the groups `clip`, `sam`, `pairs`, and the number of points."""
    images = label_images(clip["logits"], sam["mask_ids"])
    columns = (pairs[name] for name in ("point", "image", "row", "col"))
    raw, refined = transfer_to_points(images, points, *columns)
    return {"image_raw": images.raw, "image": images.refined, "point_raw": raw, "point": refined}


def _offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
