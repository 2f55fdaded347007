"""The recording car's sensors: six cameras and a 32-beam lidar, with mountings and timing similar to nuScenes."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]

NATIVE_WIDTH_PX = 1600
WIDTH_PX, HEIGHT_PX = 800, 450
LIDAR = "LIDAR_TOP"
LIDAR_PLACE_M = (0.94, 0.0, 1.84)
BEAMS, AZIMUTHS = 32, 1085
ELEVATIONS_DEG = (-30.6, 10.6)

# channel: position in the ego frame (m), yaw (degrees, left positive), focal length (px at 1600), time to lidar (us)
_MOUNTS: dict[str, tuple[tuple[float, float, float], float, float, int]] = {
    "CAM_FRONT": ((1.70, 0.0, 1.51), 0.0, 1266.0, -35_500),
    "CAM_FRONT_RIGHT": ((1.55, -0.49, 1.50), -55.0, 1260.0, -27_600),
    "CAM_BACK_RIGHT": ((1.02, -0.48, 1.56), -110.0, 1260.0, -20_000),
    "CAM_BACK": ((0.03, 0.0, 1.57), 180.0, 810.0, -10_400),
    "CAM_BACK_LEFT": ((1.04, 0.48, 1.58), 110.0, 1258.0, -500),
    "CAM_FRONT_LEFT": ((1.52, 0.49, 1.51), 55.0, 1272.0, -43_000),
}
CHANNELS = tuple(_MOUNTS)

_FORWARD_IS_Z = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""Axes of a level camera that looks along x: z forward, x right, y down."""


@dataclass(frozen=True)
class CameraModel:
    """A pinhole camera on the car.

    Attributes:
        channel: its name.
        width_px, height_px: size of its pictures.
        intrinsics: (3, 3) f64, integer pixel centres.
        ego_from_cam: (4, 4) f64 rigid, metres; camera z forward, x right, y down.
        delay_us: exposure time minus the time of the lidar sweep.
        exposure: factor on the scene's exposure.
        tint: factors on red, green, blue.
    """

    channel: str
    width_px: int
    height_px: int
    intrinsics: Matrix
    ego_from_cam: Matrix
    delay_us: int
    exposure: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def resized(self, width_px: int, height_px: int) -> "CameraModel":
        """Return the same camera with pictures of another size."""
        scale_u, scale_v = width_px / self.width_px, height_px / self.height_px
        resize = np.array([[scale_u, 0, (scale_u - 1) / 2], [0, scale_v, (scale_v - 1) / 2], [0, 0, 1]])
        return replace(self, width_px=width_px, height_px=height_px, intrinsics=resize @ self.intrinsics)

    def rays(self, columns: NDArray[np.floating], rows: NDArray[np.floating]) -> Floats:
        """Return directions (N, 3) in the camera frame through pixels (N,), (N,), a metre of depth long."""
        (fx, _, cx), (_, fy, cy) = self.intrinsics[:2].tolist()
        return np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones(len(rows))], axis=1).astype(np.float32)


def make_cameras(seed: int, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> tuple[CameraModel, ...]:
    """Return the six cameras of one car; mounting angles, exposure and timing differ a little by `seed`."""
    rng = np.random.default_rng([seed, 77])
    cameras = []
    for channel, (place, yaw, focal, delay) in _MOUNTS.items():
        angles = (math.radians(yaw) + rng.normal(0, 0.006), rng.normal(0.004, 0.006), rng.normal(0, 0.005))
        principal = (816 + rng.normal(0, 6), 480 + rng.normal(0, 8))
        native = np.array([[focal, 0, principal[0]], [0, focal, principal[1]], [0, 0, 1.0]])
        delay_us, exposure = delay + int(rng.integers(-900, 900)), float(np.exp(rng.normal(0, 0.1)))
        red, green, blue = (1 + rng.normal(0, 0.018, 3)).tolist()
        ego_from_cam = rigid(turn(*angles) @ _FORWARD_IS_Z, place)
        camera = CameraModel(
            channel, NATIVE_WIDTH_PX, 900, native, ego_from_cam, delay_us, exposure, (red, green, blue)
        )
        cameras.append(camera.resized(width_px, height_px))
    return tuple(cameras)


def ego_from_lidar(seed: int) -> Matrix:
    """Return the lidar's mounting (4, 4): its x points right, its y forward."""
    rng = np.random.default_rng([seed, 78])
    return rigid(turn(-math.pi / 2 + rng.normal(0, 0.004), rng.normal(0, 0.006), rng.normal(0, 0.006)), LIDAR_PLACE_M)


def lidar_rays() -> tuple[Floats, NDArray[np.int32]]:
    """Return unit directions (N, 3) in the lidar frame and their ring (N,), a column of all beams at a time."""
    elevation = np.radians(np.linspace(*ELEVATIONS_DEG, BEAMS))
    azimuth = np.pi - np.arange(AZIMUTHS) * (2 * np.pi / AZIMUTHS)
    up, around = np.meshgrid(elevation, azimuth)
    rays = np.stack([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], axis=-1)
    return rays.reshape(-1, 3).astype(np.float32), np.tile(np.arange(BEAMS, dtype=np.int32), AZIMUTHS)


def turn(yaw: float, pitch: float, roll: float) -> Matrix:
    """Return the rotation (3, 3) by roll about x, then pitch about y, then yaw about z."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    rotation: Matrix = about_z @ about_y @ about_x
    return rotation


def rigid(rotation: Matrix, translation: tuple[float, float, float]) -> Matrix:
    """Return a transform (4, 4)."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose
