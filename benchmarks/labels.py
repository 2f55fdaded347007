"""The vote, projection, sampling and voxels, each against the obvious way."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.measure import Row, compare, share_equal
from labelgen.geometry import pair_points
from labelgen.refine import vote_in_masks
from labelgen.samples import Camera
from trainer.losses import refine_pixels, sample
from trainer.voxels import voxelise

MIN_DEPTH_M, VOXEL_M = 1.0, 0.1


def compare_votes(
    labels: NDArray[np.uint8], masks: NDArray[np.uint16], scores: NDArray[np.float32], classes: int
) -> Iterator[Row]:
    """Compare both votes on labels and ids (B, H, W) with a loop over masks; `scores` (B, C, H, W) part ties."""

    def loop() -> NDArray[np.uint8]:
        refined = labels.copy()
        for picture, ids in enumerate(masks):
            for mask in range(1, int(ids.max()) + 1):
                inside = ids == mask
                if inside.any():
                    votes = np.bincount(labels[picture][inside], minlength=classes)
                    refined[picture][inside] = votes.argmax()
        return refined

    sizes = f"{len(labels)} pictures of {labels.shape[2]}x{labels.shape[1]}, {int(masks.max())} masks at most"
    yield compare(
        "vote, labelling",
        lambda: vote_in_masks(labels, masks, scores),
        "a boolean mask a mask",
        loop,
        share_equal,
        sizes,
    )
    tensors = torch.from_numpy(labels), torch.from_numpy(masks.astype(np.int32))
    most = int(masks.max()) + 1
    yield compare(
        "vote, training",
        lambda: refine_pixels(*tensors, most, classes).numpy(),
        "a boolean mask a mask",
        loop,
        share_equal,
        sizes,
    )


def compare_projection(xyz: NDArray[np.float32], cameras: tuple[Camera, ...], size: tuple[int, int]) -> Row:
    """Compare pairs with the official devkit's chain of frames in float32, camera by camera."""

    def chain() -> set[tuple[int, ...]]:
        found: set[tuple[int, ...]] = set()
        for number, camera in enumerate(cameras):
            cloud = xyz.T.astype(np.float32)
            # Lidar -> ego -> global -> ego -> camera; a shift there and back stands for the global coordinates.
            for shift in (0.0, 1000.0, -1000.0):
                cloud = (np.eye(3) @ cloud + shift).astype(np.float32)
            cloud = (camera.cam_from_cloud[:3, :3] @ cloud + camera.cam_from_cloud[:3, 3:]).astype(np.float32)
            pixel = (camera.intrinsics @ cloud)[:2] / cloud[2]
            limit = np.array([[camera.width_px - 1], [camera.height_px - 1]])
            seen = (cloud[2] > MIN_DEPTH_M) & (pixel > 1).all(axis=0) & (pixel < limit).all(axis=0)
            scale = np.array([[size[1] / camera.width_px], [size[0] / camera.height_px]])
            col, row = np.rint((pixel[:, seen] + 0.5) * scale - 0.5).astype(int)
            found |= set(
                zip(np.flatnonzero(seen).tolist(), [number] * len(row), row.tolist(), col.tolist(), strict=True)
            )
        return found

    def common(mine: object, theirs: set[tuple[int, ...]]) -> str:
        pairs = pair_points(xyz, cameras, size, MIN_DEPTH_M)
        own = set(zip(*(getattr(pairs, name).tolist() for name in ("point", "image", "row", "col")), strict=True))
        return f"{100 * len(own & theirs) / len(own | theirs):.2f} % of pairs in common"

    return compare(
        "projection",
        lambda: pair_points(xyz, cameras, size, MIN_DEPTH_M),
        "four frames in turn, float32",
        chain,
        common,
        f"{len(xyz)} points, {len(cameras)} cameras",
    )


def compare_sampling(grid: NDArray[np.float32], image: NDArray[np.int64], place: NDArray[np.float32]) -> Row:
    """Compare sampling features (B, h, w, K) at pairs (N,) with grid_sample picture by picture."""
    last, first = torch.from_numpy(grid), torch.from_numpy(grid).permute(0, 3, 1, 2).contiguous()
    where, spot = torch.from_numpy(image), torch.from_numpy(place)

    def by_picture() -> torch.Tensor:
        found = torch.empty(len(where), grid.shape[3])
        for number in range(len(grid)):
            mine = where == number
            xy = torch.stack([2 * spot[mine, 1] - 1, 2 * spot[mine, 0] - 1], dim=1)[None, None]
            taken = functional.grid_sample(first[number][None], xy, padding_mode="border", align_corners=False)
            found[mine] = taken[0, :, 0].T
        return found

    return compare(
        "feature sampling",
        lambda: sample(last, where, spot),
        "grid_sample a picture",
        by_picture,
        lambda mine, theirs: f"largest difference {float((mine - theirs).abs().max()):.1e}",
        f"{len(image)} pairs, {grid.shape[3]} channels",
    )


def compare_voxels(xyz: NDArray[np.float32]) -> Row:
    """Compare voxels of a cloud (P, 3) with np.unique on rows."""

    def rows() -> NDArray[np.int64]:
        cells = np.floor(xyz / VOXEL_M).astype(np.int64)
        return np.unique(cells[:, ::-1], axis=0, return_inverse=True)[1].ravel()

    return compare(
        "voxels", lambda: voxelise(xyz, VOXEL_M)[1], "np.unique on rows", rows, share_equal, f"{len(xyz)} points"
    )
