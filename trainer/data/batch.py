"""The tensors that one training step works on. This module imports no loader, so that the networks need none."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """S samples with B images, P points in V voxels and N pairs of a point and a pixel; all tensors on one device.

    "Augmented" means after crops, mirrors and rotations. Labels are class ids, 255 is the ignore index.

    Attributes:
        batch_size: the number of samples S.
        rgb: (B, 3, H, W) u8, augmented images.
        image_crop: (B, 4) f32, top, left, height and width of what `rgb` shows, as shares 0..1 of the original image;
            mirrored images have their right side for left, and a negative width.
        pixel_labels: (B, H, W) u8, labels of augmented pixels.
        mask_ids: (B, H, W) i32, SAM's mask of each augmented pixel; 0 is no mask.
        mask_count: one more than the highest mask id.
        features: by teacher, (B, hf, wf, E) i8 or f16, frozen features of the original images.
        features_valid: by teacher, (B, 2) i64, first rows and columns of `features` that show the image; zeros follow.
        scales: by teacher, (B, E) f32, factors of i8 features.
        voxels: (V, 4) i32 as (sample, z, y, x).
        voxel_features: (V, F) f32, mean features of the points (`point_features`), and mean height in units of 10 m.
        point_voxel: (P,) i64, the voxel of each point.
        point_labels: (P,) u8.
        pair_point, pair_image: (N,) i64, the point and the image of each pair.
        pair_row, pair_col: (N,) i64, the pixel of each pair in the augmented image.
        pair_position: (N, 2) f32, row and column in the original image as shares 0..1 of its height and width.
        first_pair_of_point: (N,) bool, exactly one pair of each point that has any.
        first_pair_of_pixel: (N,) bool, exactly one pair of each pixel that has any.
        point_position: (P, 3) f32, z, y and x of each point in its sample's grid, in units of voxels; None if the 3D
            network needs no points.
        point_features: (P, F) f32, those whose means are `voxel_features`; None if the 3D network needs none.
        pixel_confidence: (B, H, W) u8, 255 times the confidence of `pixel_labels`; None if no term weighs labels by it.
        point_confidence: (P,) u8, 255 times the confidence of `point_labels`; None if no term weighs labels by it.
    """

    batch_size: int
    rgb: Tensor
    image_crop: Tensor
    pixel_labels: Tensor
    mask_ids: Tensor
    mask_count: int
    features: dict[str, Tensor]
    features_valid: dict[str, Tensor]
    scales: dict[str, Tensor]
    voxels: Tensor
    voxel_features: Tensor
    point_voxel: Tensor
    point_labels: Tensor
    pair_point: Tensor
    pair_image: Tensor
    pair_row: Tensor
    pair_col: Tensor
    pair_position: Tensor
    first_pair_of_point: Tensor
    first_pair_of_pixel: Tensor
    point_position: Tensor | None = None
    point_features: Tensor | None = None
    pixel_confidence: Tensor | None = None
    point_confidence: Tensor | None = None

    @property
    def bytes(self) -> int:
        """The bytes of all tensors."""
        values = [getattr(self, field.name) for field in fields(self)]
        parts = [part for value in values for part in (value.values() if isinstance(value, dict) else [value])]
        return sum(part.nbytes for part in parts if isinstance(part, Tensor))

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; copies from pinned memory overlap with computation there."""
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Return the batch in pinned memory; `DataLoader` calls this."""
        return self._map_tensors(lambda tensor: tensor.pin_memory())

    def _map_tensors(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = change(value)
            elif isinstance(value, dict):
                changed[field.name] = {name: change(tensor) for name, tensor in value.items()}
        return replace(self, **changed)
