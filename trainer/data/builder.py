"""Builds batches: reads samples, augments and voxelises them, and joins them as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from cache_schemas.group_path import shard_path
from cache_schemas.layout import SOURCE_PREFIX
from cache_schemas.taxonomy import IGNORE
from trainer.data.augment import Crop, draw_crop_with_pairs, draw_rotation
from trainer.data.batch import Batch
from trainer.data.point_features import point_arrays, point_features
from trainer.data.sampler import Step
from trainer.data.seen_classes import labels_with_truth, seen_class_ids
from trainer.data.stream import CacheStream, SampleArrays, SampleRef
from trainer.data.sweeps import join_sweeps
from trainer.data.voxels import grid_position, voxelise
from trainer.errors import UnfitCacheError
from trainer.settings import INSTANCES, TIME, AugmentSettings, NetworkSettings, RunSettings

HEIGHT_SCALE_M = 10.0
"""Heights, in metres, are divided by this before they enter the 3D network."""

POINT_BRANCHES = {"spvcnn": ("point_position",), "spvcnn-2dpass": ("point_position", "point_features")}
"""By `networks.cloud`, the tensors of points that a network with a branch of points reads besides the voxels."""


class BatchDataset(Dataset[Batch]):
    """The batch of each step. All work happens in `__getitem__`, hence in the workers of a `DataLoader`."""

    def __init__(self, stream: CacheStream, samples: Sequence[SampleRef], settings: RunSettings) -> None:
        """Build batches from `samples` of a stream that reads the arrays of `training_arrays(settings)`."""
        self._stream, self._samples, self._settings = stream, samples, settings
        self._seen = seen_class_ids(settings.classes.seen, stream.manifest.taxonomy)

    def __getitem__(self, step: Step) -> Batch:
        """Return the batch of a step; it depends on the settings' seed, the step's epoch and its samples only.

        Raises:
            DamagedGroupError: if bytes of the cache are not those that were written.
            UnfitCacheError: if the cloud of a sample spans too many voxels.
        """
        refs = [self._samples[index] for index in step.sample_indices]
        rngs = [np.random.default_rng([self._settings.seed, step.epoch, index]) for index in step.sample_indices]
        most = self._settings.stream.images
        chosen = [
            sorted(rng.permutation(images)[:most].tolist())
            for rng, images in zip(rngs, self._stream.image_counts(refs), strict=True)
        ]
        found = self._stream.read_together(list(zip(refs, chosen, strict=True)))
        return _join([self._prepare(*sample) for sample in zip(refs, found, rngs, strict=True)])

    def _prepare(self, ref: SampleRef, arrays: SampleArrays, rng: np.random.Generator) -> "_SampleTensors":
        if self._seen:
            name, hidden = point_labels(self._settings), arrays["labels/point"] == IGNORE
            arrays = arrays | {name: labels_with_truth(arrays[name], arrays["truth/point"], hidden, self._seen)}
        try:
            return _prepare(arrays, self._settings, rng)
        except ValueError as error:
            raise UnfitCacheError(f"{self._stream.url}/{shard_path(ref.shard)}: sample {ref.token}: {error}") from error


def training_arrays(settings: RunSettings) -> tuple[list[str], list[str]]:
    """Return the arrays that training reads: those that must be present, and those that may be."""
    needed = [pixel_labels(settings), point_labels(settings), "images/rgb", "sam/mask_ids"]
    needed += ["pairs/point", "pairs/image", "pairs/row", "pairs/col"]
    needed += ["truth/point", "labels/point"] if settings.classes.seen else []
    needed += [f"{teacher}/features" for teacher in settings.terms.teachers]
    needed += ["labels/image_confidence", "labels/point_confidence"] if _reads_confidence(settings) else []
    of_points, optional = point_arrays(settings.networks)
    optional += [f"{teacher}/features_scale" for teacher in settings.terms.teachers]
    optional += ["sam/features_valid"] if "sam" in settings.terms.teachers else []
    if settings.stream.sweeps:
        needed += ["sweeps/xyz", "sweeps/lag"]
        optional += ["sweeps/intensity"]
    return needed + of_points, ["pairs/visible", *optional]


def pixel_labels(settings: RunSettings) -> str:
    """Return the array with the labels of pixels to train on; see `StreamSettings.label_source`."""
    if settings.stream.label_source == TIME:
        return "time/image"
    return f"labels/image{_label_suffix(settings)}"


def point_labels(settings: RunSettings) -> str:
    """Return the array with the labels of points to train on; see `StreamSettings.label_source`."""
    source = settings.stream.label_source
    if source is None:
        return f"labels/point{_label_suffix(settings)}"
    return {INSTANCES: "instance_labels/point", TIME: "time/point"}.get(source, f"{SOURCE_PREFIX}{source}/point")


@dataclass(frozen=True)
class _SampleTensors:
    """Tensors of one sample, named and shaped like the fields of `Batch`; `voxels` (V, 3) without sample numbers."""

    tensors: dict[str, Tensor]
    features: dict[str, Tensor]
    features_valid: dict[str, Tensor]
    scales: dict[str, Tensor]


def _prepare(arrays: SampleArrays, settings: RunSettings, rng: np.random.Generator) -> _SampleTensors:
    """Augment and voxelise one sample. The order of the draws from `rng` is part of what a seed means."""
    rgb, augment = arrays["images/rgb"], settings.augment
    height, width = rgb.shape[1], rgb.shape[2]
    whole = Crop((height, width), 0, 0, height, width, mirrored=False)
    crops = _draw_crops(arrays, augment, rng) if augment.images else [whole] * len(rgb)
    if settings.stream.sweeps:
        arrays = join_sweeps(arrays, settings.stream.sweeps, point_labels(settings), rng)
    rotation = draw_rotation(rng) if augment.clouds else np.eye(3, dtype=np.float32)
    images = torch.stack([_crop_image(image, crop) for image, crop in zip(rgb, crops, strict=True)])
    found = {
        "image_crop": np.array([crop.box() for crop in crops], np.float32).reshape(-1, 4),
        "pixel_labels": _crop_ids(arrays[pixel_labels(settings)], crops),
        "mask_ids": _crop_ids(arrays["sam/mask_ids"], crops).astype(np.int32),
        "point_labels": arrays[point_labels(settings)],
        **voxel_arrays(arrays, settings.networks, rotation),
        **_pair_arrays(arrays, crops, (height, width)),
        **(_confidence(arrays, crops) if _reads_confidence(settings) else {}),
    }
    tensors = {name: torch.from_numpy(values) for name, values in found.items()}
    tensors["rgb"] = _jitter_colours(images, augment.relight, rng) if augment.images else images
    teachers = settings.terms.teachers
    scales = {teacher: arrays.get(f"{teacher}/features_scale") for teacher in teachers}
    features = {teacher: _channels_last(arrays[f"{teacher}/features"], teacher) for teacher in teachers}
    return _SampleTensors(
        tensors,
        features,
        {teacher: _valid_part(grids, arrays.get(f"{teacher}/features_valid")) for teacher, grids in features.items()},
        {teacher: torch.from_numpy(scale) for teacher, scale in scales.items() if scale is not None},
    )


def _join(parts: Sequence[_SampleTensors]) -> Batch:
    """Concatenate samples: indices count the batch's images, points and voxels; voxels get their sample's number."""
    joined = {name: _concatenate([part.tensors[name] for part in parts]) for name in parts[0].tensors}
    for name, counted in (("pair_image", "rgb"), ("pair_point", "point_labels"), ("point_voxel", "voxels")):
        starts = np.cumsum([0, *(len(part.tensors[counted]) for part in parts)])
        joined[name] = _concatenate(
            [part.tensors[name] + int(start) for part, start in zip(parts, starts, strict=False)]
        )
    numbers = [torch.full((len(part.tensors["voxels"]), 1), n, dtype=torch.int32) for n, part in enumerate(parts)]
    joined["voxels"] = torch.cat([torch.cat(numbers), joined["voxels"]], dim=1)
    return Batch(
        batch_size=len(parts),
        mask_count=int(joined["mask_ids"].max()) + 1,
        features={name: _join_grids([part.features[name] for part in parts]) for name in parts[0].features},
        features_valid={
            name: _concatenate([part.features_valid[name] for part in parts]) for name in parts[0].features
        },
        scales={name: _concatenate([part.scales[name] for part in parts]) for name in parts[0].scales},
        **joined,
    )


def _concatenate(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _join_grids(parts: list[Tensor]) -> Tensor:
    """Concatenate grids (B, h, w, E) of samples; those that are smaller are padded with zeros to the largest one."""
    rows, columns = (max(part.shape[axis] for part in parts) for axis in (1, 2))
    if any(part.shape[1:3] != (rows, columns) for part in parts):
        parts = [functional.pad(part, (0, 0, 0, columns - part.shape[2], 0, rows - part.shape[1])) for part in parts]
    return _concatenate(parts)


def _valid_part(grids: Tensor, valid: NDArray[np.uint16] | None) -> Tensor:
    """Return the rows and columns (B, 2) i64 of grids (B, h, w, E) that show the image: `valid`, or all if None."""
    if valid is None:
        return torch.tensor(grids.shape[1:3]).expand(len(grids), 2)
    return torch.from_numpy(valid.astype(np.int64))


def _label_suffix(settings: RunSettings) -> str:
    return "" if settings.schedule.refine else "_raw"


def _draw_crops(arrays: SampleArrays, augment: AugmentSettings, rng: np.random.Generator) -> list[Crop]:
    """Draw a crop of each image; with `keep_pairs` 0, each is the first that is drawn."""
    images, height, width = arrays["images/rgb"].shape[:3]
    crops = []
    for number in range(images):
        own = arrays["pairs/image"] == number
        pixels = arrays["pairs/row"][own], arrays["pairs/col"][own]
        crops.append(draw_crop_with_pairs((height, width), augment.min_crop, augment.keep_pairs, pixels, rng))
    return crops


def _reads_confidence(settings: RunSettings) -> bool:
    return settings.terms.semantic.weight > 0 and settings.terms.semantic.confidence


def _confidence(arrays: SampleArrays, crops: Sequence[Crop]) -> dict[str, NDArray[np.uint8]]:
    """Return 255 times the confidence of the labels of augmented pixels and of points; points of sweeps have 0."""
    of_points = np.zeros(len(arrays["points/xyz"]), np.uint8)
    own = arrays["labels/point_confidence"]  # a cloud's own points come before those of its sweeps
    of_points[: len(own)] = own
    return {
        "pixel_confidence": _crop_ids(arrays["labels/image_confidence"], crops),
        "point_confidence": of_points,
    }


def _pair_arrays(arrays: SampleArrays, crops: Sequence[Crop], size: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """Return the pairs that stay in their image's crop, mapped to augmented pixels."""
    image, row, col = (arrays[f"pairs/{name}"] for name in ("image", "row", "col"))
    position = np.stack([(row + 0.5) / size[0], (col + 0.5) / size[1]], axis=1).astype(np.float32)
    kept, new_row, new_col = np.zeros(len(image), bool), row.copy(), col.copy()
    for number, crop in enumerate(crops):
        own = np.flatnonzero(image == number)
        new_row[own], new_col[own], kept[own] = crop.map_pixels(row[own], col[own])
    image, row, col, point = (values[kept] for values in (image, new_row, new_col, arrays["pairs/point"]))
    return {
        "pair_point": point,
        "pair_image": image,
        "pair_row": row,
        "pair_col": col,
        "pair_position": position[kept],
        "first_pair_of_point": _is_first(point),
        "first_pair_of_pixel": _is_first((image * size[0] + row) * size[1] + col),
    }


def voxel_arrays(
    arrays: SampleArrays, networks: NetworkSettings, rotation: NDArray[np.float32] | None = None
) -> dict[str, NDArray[Any]]:
    """Return voxels of a sample's points, after a `rotation` (3, 3), with the mean features and height of each.

    For a network with a branch of points, also what this branch reads: see `Batch`.
    """
    xyz = arrays["points/xyz"] if rotation is None else arrays["points/xyz"] @ rotation.T
    voxels, point_voxel = voxelise(xyz, networks.voxel_m)
    count = np.bincount(point_voxel, minlength=len(voxels))
    columns = (*point_features(arrays, networks).T, xyz[:, 2] / HEIGHT_SCALE_M)
    sums = [np.bincount(point_voxel, weights=values, minlength=len(voxels)) for values in columns]
    features = (np.stack(sums, axis=1) / np.maximum(count, 1)[:, None]).astype(np.float32)
    found: dict[str, NDArray[Any]] = {"voxels": voxels, "voxel_features": features, "point_voxel": point_voxel}
    branch = POINT_BRANCHES.get(networks.cloud, ())
    if "point_position" in branch:
        found["point_position"] = grid_position(xyz, networks.voxel_m)
    if "point_features" in branch:
        found["point_features"] = np.stack(columns, axis=1).astype(np.float32)
    return found


def _crop_ids(values: NDArray[Any], crops: Sequence[Crop]) -> NDArray[Any]:
    """Return crops of labels or mask ids (B, H, W) at full size, by nearest neighbour."""
    cropped = np.empty_like(values)
    for number, crop in enumerate(crops):
        rows, columns = crop.source_pixels()
        cropped[number] = values[number][rows][:, columns]
    return cropped


def _crop_image(image: NDArray[np.uint8], crop: Crop) -> Tensor:
    """Return the crop of an image (H, W, 3) at full size as (3, H, W), bilinear."""
    part = image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    tensor = torch.from_numpy(part).permute(2, 0, 1)
    if (crop.height, crop.width) != crop.size:
        tensor = functional.interpolate(tensor[None], size=crop.size, mode="bilinear", align_corners=False)[0]
    return tensor.flip(-1) if crop.mirrored else tensor.contiguous()


def _jitter_colours(images: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Scale and shift each colour channel of images (B, 3, H, W) u8 at random; see `AugmentSettings.relight`."""
    if not strength:
        return images
    gain, shift = (
        torch.from_numpy(rng.uniform(-strength, strength, (len(images), 3, 1, 1)).astype(np.float32)) for _ in range(2)
    )
    return (images * (1 + gain) + 127 * shift).clamp(0, 255).to(torch.uint8)


def _channels_last(features: NDArray[Any], teacher: str) -> Tensor:
    """Return a teacher's features (B, h, w, E); CLIP's are cached as (B, E, h, w)."""
    tensor = torch.from_numpy(features)
    return tensor.permute(0, 2, 3, 1).contiguous() if teacher == "clip" else tensor


def _is_first(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of keys (N,), all at least 0, are the first of their value; they need not be sorted."""
    number = np.arange(len(keys))
    first = np.empty(int(keys.max(initial=-1)) + 1, number.dtype)
    first[keys[::-1]] = number[::-1]  # of several values for one place NumPy keeps the last, hence the first key's
    is_first: NDArray[np.bool_] = first[keys] == number
    return is_first
