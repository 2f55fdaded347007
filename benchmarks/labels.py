"""The vote, projection, sampling and voxels, each against the obvious way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.segmentation import slic
from torch.nn import functional

from benchmarks.measure import Row, compare, share_equal
from labelgen.geometry import Pairs, invert_rigid, pair_points, project, rigid_from_quaternion
from labelgen.labelling import classify, upsample_scores, vote_in_masks
from labelgen.samples import Camera
from trainer.data.voxels import voxelise
from trainer.networks.bilinear import sample_bilinear
from trainer.vote import refine_pixels

MIN_DEPTH_M, VOXEL_M = 1.0, 0.1
SAM_MASKS = 85
"""About as many masks as the official SAM finds in a street picture."""


def superpixels(rgb: NDArray[np.uint8], number: int = SAM_MASKS) -> NDArray[np.uint16]:
    """Return ids (B, H, W) of about `number` SLIC regions of each picture (B, H, W, 3)."""
    return np.stack([slic(picture, n_segments=number, compactness=10, start_label=1) for picture in rgb]).astype(
        np.uint16
    )


def enlarge(ids: NDArray[np.uint16], size: tuple[int, int]) -> NDArray[np.uint16]:
    """Return ids (B, H, W) at another size, nearest neighbours."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, ids.shape[1:], strict=True))
    return np.ascontiguousarray(ids[:, rows][:, :, columns])


def compare_votes(masks: NDArray[np.uint16], logits: NDArray[np.float16], kind: str, rounds: int = 5) -> Iterator[Row]:
    """Compare both votes within ids (B, H, W) of a `kind` of masks with a loop over masks.

    `logits` (B, C, h, w) give the labels, and in labelling part equal votes; in training the lower id wins those.
    """
    labels, classes = classify(logits, (masks.shape[1], masks.shape[2]))[0], logits.shape[1]

    def loop(by_score: bool) -> NDArray[np.uint8]:
        refined = labels.copy()
        for picture, ids in enumerate(masks):
            for mask in range(1, int(ids.max()) + 1):
                inside = ids == mask
                if inside.any():
                    votes = np.bincount(labels[picture][inside], minlength=classes)
                    best = np.flatnonzero(votes == votes.max())
                    if by_score and len(best) > 1:
                        scores = upsample_scores(logits[picture, best][None], ids.shape)[0]
                        best = best[[scores[:, inside].sum(axis=1, dtype=np.float64).argmax()]]
                    refined[picture][inside] = best[0]
        return refined

    sizes = f"{len(labels)} pictures of {labels.shape[2]}x{labels.shape[1]}, {int(masks.max())} {kind} at most"
    tensors, most = (torch.from_numpy(labels), torch.from_numpy(masks.astype(np.int32))), int(masks.max()) + 1
    for name, ours, theirs in (
        ("vote, labelling", lambda: vote_in_masks(labels, masks, logits), lambda: loop(by_score=True)),
        ("vote, training", lambda: refine_pixels(*tensors, most, classes).numpy(), lambda: loop(by_score=False)),
    ):
        yield compare(name, ours, "a boolean mask a mask", theirs, share_equal, sizes, rounds)


@dataclass(frozen=True)
class Chain:
    """The four rigid transforms (4, 4) that the official devkit goes through, one after the other, for a camera."""

    ego_from_lidar: NDArray[np.float64]
    global_from_ego: NDArray[np.float64]
    global_from_ego_then: NDArray[np.float64]
    ego_from_camera: NDArray[np.float64]


def street_chain(camera: Camera) -> Chain:
    """Split a camera's one transform into such a chain, as long a way from the map's origin as nuScenes' streets are.

    The cache keeps the product alone, and the poses of the demo are at the origin. A vehicle that moves half a metre
    between the two moments stands 1.2 km away.
    """

    def pose(yaw: float, *metres: float) -> NDArray[np.float64]:
        return rigid_from_quaternion(np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]), np.array(metres))

    mount, now, then = pose(-1.57, 0.94, 0.0, 1.84), pose(1.10, 411.3, 1180.9, 0.0), pose(1.101, 411.5, 1181.4, 0.0)
    camera_from_ego = camera.cam_from_cloud @ invert_rigid(mount) @ invert_rigid(now) @ then
    return Chain(mount, now, then, invert_rigid(camera_from_ego))


def devkit_pixels(
    xyz: NDArray[np.float32], camera: Camera, chain: Chain, dtype: type
) -> tuple[NDArray[np.float64], NDArray[np.floating]]:
    """Return pixels (2, P) and depths (P,) as nuscenes-devkit computes them, its cloud of `dtype` between steps.

    Its own is float32: `LidarPointCloud.rotate` and `translate` write into the cloud, then `view_points` normalises.
    """
    cloud = np.ascontiguousarray(xyz.T, dtype)
    for step in (chain.ego_from_lidar, chain.global_from_ego):
        cloud[:] = np.dot(step[:3, :3], cloud)
        for axis in range(3):
            cloud[axis] = cloud[axis] + step[axis, 3]
    for step in (chain.global_from_ego_then, chain.ego_from_camera):
        for axis in range(3):
            cloud[axis] = cloud[axis] - step[axis, 3]
        cloud[:] = np.dot(step[:3, :3].T, cloud)
    view = np.eye(4)
    view[:3, :3] = camera.intrinsics
    points = np.dot(view, np.concatenate((cloud, np.ones((1, cloud.shape[1])))))[:3]
    with np.errstate(divide="ignore", invalid="ignore"):
        return (points / points[2:3].repeat(3, axis=0))[:2], cloud[2]


def devkit_pairs(
    xyz: NDArray[np.float32], cameras: Sequence[Camera], chains: Sequence[Chain], size: tuple[int, int]
) -> Pairs:
    """Return the pairs of a cloud (P, 3) with images at `size` as the devkit's explorer finds them, by camera."""
    columns: list[tuple[NDArray[np.generic], ...]] = []
    for number, (camera, chain) in enumerate(zip(cameras, chains, strict=True)):
        pixels, depths = devkit_pixels(xyz, camera, chain, np.float32)
        mask = np.ones(len(depths), bool)
        for condition in (
            depths > MIN_DEPTH_M,
            pixels[0] > 1,
            pixels[0] < camera.width_px - 1,
            pixels[1] > 1,
            pixels[1] < camera.height_px - 1,
        ):
            mask = np.logical_and(mask, condition)
        scale = np.array([[size[1] / camera.width_px], [size[0] / camera.height_px]])
        col, row = np.rint((pixels[:, mask] + 0.5) * scale - 0.5).astype(np.uint16)
        point = np.flatnonzero(mask).astype(np.int32)
        columns.append((point, np.full(len(point), number, np.uint16), row, col, depths[mask].astype(np.float32)))
    return Pairs(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def compare_projection(
    xyz: NDArray[np.float32], cameras: Sequence[Camera], size: tuple[int, int], world: str
) -> Iterator[Row]:
    """Compare the time of pairing with the devkit's chain in float32, and both errors against that chain in float64."""
    chains = [street_chain(camera) for camera in cameras]
    sizes = f"{world}: {len(xyz)} points, {len(cameras)} cameras of {cameras[0].width_px}x{cameras[0].height_px}"

    def common(mine: Pairs, theirs: Pairs) -> str:
        own, other = (
            set(zip(*(values.tolist() for values in (found.point, found.image, found.row, found.col)), strict=True))
            for found in (mine, theirs)
        )
        return f"{100 * len(own & other) / len(own | other):.2f} % of pairs in common"

    yield compare(
        "projection",
        lambda: pair_points(xyz, cameras, size, MIN_DEPTH_M),
        "nuscenes-devkit's chain, float32",
        lambda: devkit_pairs(xyz, cameras, chains, size),
        common,
        sizes,
        rounds=15,
    )
    seen = pair_points(xyz, cameras, size, MIN_DEPTH_M)
    ours, theirs = [], []
    for number, (camera, chain) in enumerate(zip(cameras, chains, strict=True)):
        points = xyz[seen.point[seen.image == number]]
        exact, _ = devkit_pixels(points, camera, chain, np.float64)
        ours.append(np.abs(project(points, camera.cam_from_cloud, camera.intrinsics)[0].T - exact).max(axis=0))
        theirs.append(np.abs(devkit_pixels(points, camera, chain, np.float32)[0] - exact).max(axis=0))
    mine, other = np.concatenate(ours), np.concatenate(theirs)
    told = ", ".join(
        f"{who} median {np.median(e):.1e}, max {e.max():.1e}" for who, e in (("ours", mine), ("theirs", other))
    )
    median = float(np.median(mine)), float(np.median(other))
    yield Row(
        "projection, error", "nuscenes-devkit's chain, float32", *median, median[1] / median[0], told, sizes, "pixels"
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
        lambda: sample_bilinear(last, where, spot),
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
