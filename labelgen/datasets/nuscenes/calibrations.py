"""Where the sensors of nuScenes are: extrinsics, ego poses and intrinsics, from its tables."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelgen.datasets.nuscenes.tables import (
    CalibratedSensorRow,
    EgoPoseRow,
    SampleDataRow,
    SensorRow,
    read_ego_poses,
    read_table,
)
from labelgen.errors import SampleError
from labelgen.geometry import check_intrinsics, rigid_from_quaternion

Rigid = NDArray[np.float64] | ValueError
"""A rigid transform (4, 4), or the error in its row."""


class Calibrations:
    """Extrinsics (sensor to ego), ego poses (ego to global) and intrinsics; a bad row is reported when it is used."""

    def __init__(self, folder: Path, ego_pose_tokens: set[str]) -> None:
        """Read the tables of a version folder; of the ego poses, only those with these tokens.

        Raises:
            DatasetError: if a table cannot be read.
        """
        self.folder = folder
        self._channels = {row.token: row.channel for row in read_table(folder, "sensor", SensorRow)}
        self._sensors = {row.token: row for row in read_table(folder, "calibrated_sensor", CalibratedSensorRow)}
        self._ego_from_sensor = _rigid_by_token(list(self._sensors.values()))
        self._global_from_ego = _rigid_by_token(list(read_ego_poses(folder, ego_pose_tokens).values()))
        self._intrinsics: dict[str, NDArray[np.float64]] = {}

    def channel(self, reading: SampleDataRow) -> str:
        """Return the channel of the sensor of a reading, such as CAM_FRONT.

        Raises:
            SampleError: if its rows are missing.
        """
        sensor_token = self._sensor(reading).sensor_token
        if sensor_token not in self._channels:
            raise self._dangling("sensor", sensor_token)
        return self._channels[sensor_token]

    def intrinsics(self, reading: SampleDataRow) -> NDArray[np.float64]:
        """Return the camera matrix (3, 3) of a reading, in pixels.

        Raises:
            SampleError: if its row is missing or wrong.
        """
        row = self._sensor(reading)
        if row.token not in self._intrinsics:
            try:
                matrix = np.array(row.camera_intrinsic, np.float64)
                check_intrinsics(matrix)
            except ValueError as error:
                raise self._bad("calibrated_sensor", row.token, error) from None
            self._intrinsics[row.token] = matrix
        return self._intrinsics[row.token]

    def global_from_sensor(self, reading: SampleDataRow) -> NDArray[np.float64]:
        """Return the rigid transform (4, 4) from the sensor of a reading to the world, at its time, metres.

        Raises:
            SampleError: if one of its rows is missing or wrong.
        """
        global_from_ego = self._rigid("ego_pose", self._global_from_ego, reading.ego_pose_token)
        return global_from_ego @ self._rigid("calibrated_sensor", self._ego_from_sensor, self._sensor(reading).token)

    def _sensor(self, reading: SampleDataRow) -> CalibratedSensorRow:
        row = self._sensors.get(reading.calibrated_sensor_token)
        if row is None:
            raise self._dangling("calibrated_sensor", reading.calibrated_sensor_token)
        return row

    def _rigid(self, table: str, transforms: dict[str, Rigid], token: str) -> NDArray[np.float64]:
        transform = transforms.get(token)
        if transform is None:
            raise self._dangling(table, token)
        if isinstance(transform, ValueError):
            raise self._bad(table, token, transform)
        return transform

    def _dangling(self, table: str, token: str) -> SampleError:
        return SampleError(
            f"{self.folder / table}.json: token {token!r} is used but not in the table; "
            "the tables are incomplete or of two versions, extract them again"
        )

    def _bad(self, table: str, token: str, error: ValueError) -> SampleError:
        return SampleError(f"{self.folder / table}.json: {token}: {error}; extract the table again")


def _rigid_by_token(rows: Sequence[CalibratedSensorRow] | Sequence[EgoPoseRow]) -> dict[str, Rigid]:
    """Return the transforms of all rows, computed at once; one by one if that fails, to find the bad rows."""
    try:
        rigid = rigid_from_quaternion(np.array([r.rotation for r in rows]), np.array([r.translation for r in rows]))
        return dict(zip((row.token for row in rows), rigid, strict=True))
    except ValueError:
        return {row.token: _rigid_or_error(row) for row in rows}


def _rigid_or_error(row: CalibratedSensorRow | EgoPoseRow) -> Rigid:
    try:
        if (len(row.rotation), len(row.translation)) != (4, 3):
            raise ValueError(f"rotation {row.rotation} and translation {row.translation} should have 4 and 3 numbers")
        return rigid_from_quaternion(np.array(row.rotation), np.array(row.translation))
    except ValueError as error:
        return error
