"""Compare our projection of a nuScenes folder with the official devkit's own chain: `make parity`.

    python tests/parity/nuscenes_devkit.py DATA [--max-px 0.02]

Runs in an environment with nuscenes-devkit. For every sample and camera, the devkit's `map_pointcloud_to_image`
decides which points are seen. It rounds the cloud to float32 between steps, which at global coordinates of a kilometre
moves near points by some hundredths of a pixel; so pixels are compared with the same calls on a float64 cloud, and must
agree within `--max-px`. Ours must see the same points, but for those that the rounding carries over a border: there the
float64 cloud decides. Prints one line a camera; exits with 1 if any differs.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from nuscenes.nuscenes import NuScenes as Devkit
from nuscenes.nuscenes import NuScenesExplorer
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import view_points
from pyquaternion import Quaternion

from labelgen.datasets.nuscenes.adapter import NuScenes
from labelgen.geometry import pair_points, project
from labelgen.samples import Camera, Sample

MIN_DEPTH_M = 1.0


def devkit_pixels(devkit: Devkit, lidar: dict, camera: dict, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Return all points' pixels (P, 2) and depths (P,) by the devkit's primitives, in the order of its explorer."""
    cloud = LidarPointCloud.from_file(str(Path(devkit.dataroot) / lidar["filename"]))
    cloud.points = cloud.points.astype(dtype)
    for record in (
        devkit.get("calibrated_sensor", lidar["calibrated_sensor_token"]),
        devkit.get("ego_pose", lidar["ego_pose_token"]),
    ):
        cloud.rotate(Quaternion(record["rotation"]).rotation_matrix)
        cloud.translate(np.array(record["translation"]))
    calibration = devkit.get("calibrated_sensor", camera["calibrated_sensor_token"])
    for record in (devkit.get("ego_pose", camera["ego_pose_token"]), calibration):
        cloud.translate(-np.array(record["translation"]))
        cloud.rotate(Quaternion(record["rotation"]).rotation_matrix.T)
    pixels = view_points(cloud.points[:3], np.array(calibration["camera_intrinsic"]), normalize=True)
    return pixels[:2].T, cloud.points[2]


def seen(pixels: np.ndarray, depth: np.ndarray, camera: dict) -> np.ndarray:
    """Return indices (N,) of the points that the devkit's rule keeps."""
    inside = (pixels > 1).all(axis=1) & (pixels[:, 0] < camera["width"] - 1) & (pixels[:, 1] < camera["height"] - 1)
    return np.flatnonzero((depth > MIN_DEPTH_M) & inside)


def devkit_pairs(devkit: Devkit, lidar: dict, camera: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return indices (N,) and pixels (N, 2) of the points that the devkit's explorer keeps for a camera."""
    pixels, depth = devkit_pixels(devkit, lidar, camera, np.float32)
    kept, kept_depth, _ = NuScenesExplorer(devkit).map_pointcloud_to_image(
        lidar["token"], camera["token"], min_dist=MIN_DEPTH_M
    )
    index = seen(pixels, depth, camera)
    if not (np.array_equal(pixels[index].T, kept[:2]) and np.array_equal(depth[index], kept_depth)):
        raise SystemExit("our reading of the devkit's steps differs from its explorer; fix this script first")
    return index, kept[:2].T


def compare(devkit: Devkit, sample: Sample, camera: Camera, index: int, max_px: float) -> bool:
    """Compare one camera of one sample, print the figures, and return whether they agree."""
    tokens = devkit.get("sample", sample.token)["data"]
    lidar, view = (devkit.get("sample_data", tokens[channel]) for channel in ("LIDAR_TOP", camera.channel))
    theirs, their_pixels = devkit_pairs(devkit, lidar, view)
    cloud = NuScenes(Path(devkit.dataroot)).read_cloud(sample)
    pairs = pair_points(cloud.xyz, sample.cameras, (camera.height_px, camera.width_px), MIN_DEPTH_M)
    mine = pairs.image == index
    pixels, _ = project(cloud.xyz, camera.cam_from_cloud, camera.intrinsics)
    exact_pixels, exact_depth = devkit_pixels(devkit, lidar, view, np.float64)
    error = np.abs(pixels[theirs] - exact_pixels[theirs]).max(axis=1)
    rounding = np.abs(pixels[theirs] - their_pixels).max(axis=1)
    same_pairs = np.array_equal(pairs.point[mine], seen(exact_pixels, exact_depth, view))
    rounded_over = len(np.setxor1d(theirs, pairs.point[mine]))
    print(
        f"{sample.token[:8]} {camera.channel:<16} pairs: devkit {len(theirs):,}, ours {mine.sum():,}, "
        f"{'the same points' if same_pairs else 'DIFFERENT POINTS'}"
        f"{f' but for {rounded_over} that float32 carries over a border' if same_pairs and rounded_over else ''}; "
        f"max error {error.max():.1e} px; against the "
        f"devkit's float32 rounding: max {rounding.max():.4f}, median {np.median(rounding):.4f} px"
    )
    return same_pairs and bool(error.max() <= max_px)


def main() -> None:
    """Compare every sample of a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--version", default="v1.0-mini")
    parser.add_argument("--max-px", type=float, default=0.02)
    args = parser.parse_args()
    if not (args.data / args.version).is_dir():
        parser.error(f"{args.data}: has no folder {args.version}; give a folder in the nuScenes layout")
    devkit = Devkit(version=args.version, dataroot=str(args.data), verbose=False)
    samples = [sample for scene in NuScenes(args.data).scenes("all", args.version) for sample in scene.samples]
    agree = [
        compare(devkit, sample, camera, index, args.max_px)
        for sample in samples
        for index, camera in enumerate(sample.cameras)
    ]
    print(f"{sum(agree)} of {len(agree)} images agree: every pair in both, pixels equal to {args.max_px} px in float64")
    sys.exit(0 if agree and all(agree) else 1)


if __name__ == "__main__":
    main()
