"""What one step trains on: samples read, changed at random, voxelised and put end to end, as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from cache_schemas.group_path import shard_path
from trainer.augment import Crop, draw_crop, draw_turn
from trainer.errors import UnfitCacheError
from trainer.settings import RunSettings
from trainer.stream import CacheStream, SampleArrays, SampleRef, Step
from trainer.voxels import voxelise

HEIGHT_SCALE_M = 10.0
"""Heights enter the 3D network in units of this."""


@dataclass(frozen=True)
class Batch:
    """B pictures and P points of some samples, with N pairs; all tensors, on one device.

    Attributes:
        samples: how many samples.
        rgb: (B, 3, H, W) u8.
        pixel_labels, mask_ids: (B, H, W), u8 and i32; `masks` is one more than the highest id.
        features: (B, hf, wf, E) i8 or f16 of each teacher, of the unchanged picture; `scales` (B, E) f32 of i8 ones.
        voxels: (V, 4) i32 as (sample, z, y, x); `voxel_features` (V, F) f32.
        point_voxel: (P,) i64, the voxel of each point; `point_labels` (P,) u8.
        pair_point, pair_image, pair_row, pair_col: (N,) i64, in the changed pictures.
        pair_place: (N, 2) f32, row and column in 0..1 of the unchanged picture.
        first_of_point, first_of_pixel: (N,) bool, one pair of each point or pixel that has any.
    """

    samples: int
    rgb: Tensor
    pixel_labels: Tensor
    mask_ids: Tensor
    masks: int
    features: dict[str, Tensor]
    scales: dict[str, Tensor]
    voxels: Tensor
    voxel_features: Tensor
    point_voxel: Tensor
    point_labels: Tensor
    pair_point: Tensor
    pair_image: Tensor
    pair_row: Tensor
    pair_col: Tensor
    pair_place: Tensor
    first_of_point: Tensor
    first_of_pixel: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; copies from pinned memory overlap with work there."""
        return replace(self, **{f.name: _to(getattr(self, f.name), device) for f in fields(self)})

    def pin_memory(self) -> "Batch":
        """Return the batch in pinned memory."""
        return replace(self, **{f.name: _pin(getattr(self, f.name)) for f in fields(self)})


class Batches(Dataset[Batch]):
    """Batches by step; reading, changing and voxelising happen where `__getitem__` is called."""

    def __init__(self, stream: CacheStream, samples: Sequence[SampleRef], settings: RunSettings) -> None:
        """Take batches from `samples` of a stream that reads `arrays_to_train(settings)`."""
        self._stream, self._samples, self._settings = stream, samples, settings

    def __getitem__(self, step: Step) -> Batch:
        """Return a step's batch; it depends on the seed, epoch and samples alone."""
        parts = []
        for number in step.samples:
            rng = np.random.default_rng([self._settings.seed, step.epoch, number])
            parts.append(self._read(self._samples[number], rng))
        return _join(parts)

    def _read(self, ref: SampleRef, rng: np.random.Generator) -> "_Part":
        images = self._stream.images(ref)
        chosen = sorted(rng.permutation(images)[: self._settings.stream.images].tolist())
        try:
            return _prepare(self._stream.read(ref, chosen), self._settings, rng)
        except ValueError as error:
            raise UnfitCacheError(f"{self._stream.url}/{shard_path(ref.shard)}: sample {ref.token}: {error}") from error


def arrays_to_train(settings: RunSettings) -> tuple[list[str], list[str]]:
    """Return the arrays that training reads: those that must be there, and those that may."""
    suffix = "" if settings.method.refine else "_raw"
    needed = [f"labels/image{suffix}", f"labels/point{suffix}", "images/rgb", "sam/mask_ids"]
    needed += ["points/xyz", "points/intensity", "pairs/point", "pairs/image", "pairs/row", "pairs/col"]
    needed += [f"{teacher}/features" for teacher in settings.method.latent_teachers]
    return needed, ["sam/features_scale"] if "sam" in settings.method.latent_teachers else []


@dataclass(frozen=True)
class _Part:
    """One sample's share of a batch, of the same fields; voxels without the sample's number."""

    arrays: dict[str, Tensor]
    features: dict[str, Tensor]
    scales: dict[str, Tensor]


def _prepare(arrays: SampleArrays, settings: RunSettings, rng: np.random.Generator) -> _Part:
    suffix = "" if settings.method.refine else "_raw"
    rgb, labels, masks = arrays["images/rgb"], arrays[f"labels/image{suffix}"], arrays["sam/mask_ids"]
    size = (rgb.shape[1], rgb.shape[2])
    whole = Crop(size, 0, 0, *size, mirrored=False)
    augment = settings.augment
    crops = [draw_crop(size, augment.min_crop, rng) if augment.images else whole for _ in rgb]
    turn = draw_turn(rng) if augment.clouds else np.eye(3, dtype=np.float32)
    image, row, col = (arrays[f"pairs/{name}"] for name in ("image", "row", "col"))
    place = np.stack([(row + 0.5) / size[0], (col + 0.5) / size[1]], axis=1).astype(np.float32)
    point = arrays["pairs/point"]
    kept, row, col = _move_pairs(crops, image, row, col)
    image, row, col, point, place = (values[kept] for values in (image, row, col, point, place))
    xyz = arrays["points/xyz"] @ turn.T
    voxels, point_voxel = voxelise(xyz, settings.networks.voxel_m)
    found: dict[str, NDArray[Any]] = {
        "pixel_labels": _pick(labels, crops),
        "mask_ids": _pick(masks, crops).astype(np.int32),
        "voxels": voxels,
        "voxel_features": _voxel_features(xyz, arrays["points/intensity"], point_voxel, len(voxels)),
        "point_voxel": point_voxel,
        "point_labels": arrays[f"labels/point{suffix}"],
        "pair_point": point,
        "pair_image": image,
        "pair_row": row,
        "pair_col": col,
        "pair_place": place,
        "first_of_point": _firsts(point),
        "first_of_pixel": _firsts((image * size[0] + row) * size[1] + col),
    }
    tensors = {name: torch.from_numpy(values) for name, values in found.items()}
    pictures = torch.stack([_enlarge(picture, crop) for picture, crop in zip(rgb, crops, strict=True)])
    tensors["rgb"] = _relight(pictures, augment.relight, rng) if augment.images else pictures
    teachers = settings.method.latent_teachers
    return _Part(
        tensors,
        {name: _features(arrays[f"{name}/features"], name) for name in teachers},
        {
            name: torch.from_numpy(arrays[f"{name}/features_scale"])
            for name in teachers
            if f"{name}/features_scale" in arrays
        },
    )


def _join(parts: Sequence[_Part]) -> Batch:
    """Put samples end to end: pairs count the batch's images and points, voxels carry their sample's number."""
    joined = {name: _end_to_end([part.arrays[name] for part in parts]) for name in parts[0].arrays}
    for name, counted in (("pair_image", "rgb"), ("pair_point", "point_labels"), ("point_voxel", "voxels")):
        starts = np.cumsum([0, *(len(part.arrays[counted]) for part in parts)])
        joined[name] = _end_to_end([part.arrays[name] + int(s) for part, s in zip(parts, starts, strict=False)])
    numbers = torch.cat([torch.full((len(p.arrays["voxels"]), 1), n, dtype=torch.int32) for n, p in enumerate(parts)])
    joined["voxels"] = torch.cat([numbers, joined["voxels"]], dim=1)
    return Batch(
        samples=len(parts),
        masks=int(joined["mask_ids"].max()) + 1,
        features={name: _end_to_end([part.features[name] for part in parts]) for name in parts[0].features},
        scales={name: _end_to_end([part.scales[name] for part in parts]) for name in parts[0].scales},
        **joined,
    )


def _end_to_end(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _move_pairs(
    crops: Sequence[Crop], image: NDArray[np.int64], row: NDArray[np.int64], col: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    kept, new_row, new_col = np.zeros(len(image), bool), row.copy(), col.copy()
    for number, crop in enumerate(crops):
        mine = np.flatnonzero(image == number)
        new_row[mine], new_col[mine], kept[mine] = crop.move(row[mine], col[mine])
    return kept, new_row, new_col


def _pick(values: NDArray[Any], crops: Sequence[Crop]) -> NDArray[Any]:
    """Return what crops of ids (B, H, W) show at full size, nearest neighbours."""
    picked = np.empty_like(values)
    for number, crop in enumerate(crops):
        rows, columns = crop.sources()
        picked[number] = values[number][rows][:, columns]
    return picked


def _enlarge(picture: NDArray[np.uint8], crop: Crop) -> Tensor:
    """Return the crop of a picture (H, W, 3) at full size, bilinear, as (3, H, W)."""
    part = picture[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    tensor = torch.from_numpy(part).permute(2, 0, 1)
    if (crop.height, crop.width) != crop.size:
        tensor = functional.interpolate(tensor[None], size=crop.size, mode="bilinear", align_corners=False)[0]
    return tensor.flip(-1) if crop.mirrored else tensor.contiguous()


def _relight(pictures: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Scale and shift the channels of pictures (B, 3, H, W) u8 at random, each by itself."""
    if not strength:
        return pictures
    gain, shift = (
        torch.from_numpy(rng.uniform(-strength, strength, (len(pictures), 3, 1, 1)).astype(np.float32))
        for _ in range(2)
    )
    return (pictures * (1 + gain) + 127 * shift).clamp(0, 255).to(torch.uint8)


def _voxel_features(
    xyz: NDArray[np.float32], intensity: NDArray[np.float32], voxel: NDArray[np.int64], voxels: int
) -> NDArray[np.float32]:
    """Return the mean intensity and mean height of the points of each voxel, (V, 2)."""
    count = np.bincount(voxel, minlength=voxels)
    sums = [np.bincount(voxel, weights=values, minlength=voxels) for values in (intensity, xyz[:, 2] / HEIGHT_SCALE_M)]
    return (np.stack(sums, axis=1) / np.maximum(count, 1)[:, None]).astype(np.float32)


def _features(features: NDArray[Any], teacher: str) -> Tensor:
    """Return a teacher's features channels last; CLIP's are cached channels first."""
    tensor = torch.from_numpy(features)
    return tensor.permute(0, 2, 3, 1).contiguous() if teacher == "clip" else tensor


def _firsts(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the first of equal keys (N,), none below 0, wherever they stand."""
    number = np.arange(len(keys))
    first = np.empty(int(keys.max(initial=-1)) + 1, number.dtype)
    first[keys[::-1]] = number[::-1]  # of several values for one place NumPy keeps the last, hence the first key's
    return first[keys] == number


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: _to(part, device) for name, part in value.items()}
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _pin(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _pin(part) for name, part in value.items()}
    return value.pin_memory() if isinstance(value, Tensor) else value
