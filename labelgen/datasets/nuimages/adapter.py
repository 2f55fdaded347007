"""nuImages: single pictures of the nuScenes cars with masks of objects and of the road, and no clouds.

H. Caesar et al., nuScenes: A multimodal dataset for autonomous driving, CVPR 2020; nuScenes terms of use. Labels have
the 16 classes of nuScenes; truth has the 11 that both data sets share. Pixels without an annotation have no class: a
building or a tree there is not labelled, so a label is neither right nor wrong.
"""

import base64
import binascii
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cache_schemas.names import is_file_name
from cache_schemas.taxonomy import IGNORE
from labelgen.datasets.adapter import Adapter, stays_inside
from labelgen.datasets.nuimages.run_lengths import covered_pixels
from labelgen.datasets.nuimages.tables import AnnotationRow, CalibratedSensorRow, Tables, read_tables
from labelgen.datasets.nuscenes.adapter import CLASS_OF_CATEGORY, MAX_PIXELS
from labelgen.datasets.nuscenes.layout import version_names
from labelgen.datasets.nuscenes.tables import SampleDataRow
from labelgen.errors import DatasetError, SampleError
from labelgen.geometry import check_intrinsics, invert_rigid, rigid_from_quaternion
from labelgen.samples import Camera, Cloud, Distortion, Sample, Scene, unreadable

Row = TypeVar("Row")

SPLITS = ("train", "val", "test", "mini")
AGAIN = "extract the tables again from nuimages-v1.0-all-metadata.tgz"


class NuImages(Adapter):
    """The nuImages data set: a folder with `samples/` and a folder of tables for each split."""

    taxonomy_name = "nuscenes16"

    def __init__(self, data: Path) -> None:
        """Use the folder that holds `samples/` and `v1.0-<split>/`.

        Raises:
            DatasetError: if the folder does not exist.
        """
        super().__init__(data)
        if not data.is_dir():
            raise DatasetError(f"{data}: no such folder; give the nuImages folder that holds samples/ and v1.0-*/")

    def scenes(self, split: str, version: str | None) -> list[Scene]:
        """Return the logs of a split by name, each with its annotated pictures in time order; see `Adapter.scenes`."""
        try:
            folder = self._split_folder(split, version)
            tables = read_tables(folder)
        except OSError as error:
            raise unreadable(self.data, error) from None
        names = (*tables.logs.values(), *(row.token for row in tables.samples))
        if bad := [name for name in names if not is_file_name(name)]:
            raise DatasetError(f"{folder}: {bad[0]!r} cannot name a file; {AGAIN}")
        ids = {name: index for index, name in enumerate(self.taxonomy().names)}
        assemble = _Assembler(folder, tables, {name: ids[label] for name, label in CLASS_OF_CATEGORY.items()})
        by_log: dict[str, list[Sample]] = defaultdict(list)
        for row in sorted(tables.samples, key=lambda row: row.timestamp):
            if row.log_token not in tables.logs:
                raise DatasetError(f"{folder / 'log.json'}: log {row.log_token!r} of a sample is not there; {AGAIN}")
            name = tables.logs[row.log_token]
            by_log[name].append(assemble.sample(row.token, name, row.key_camera_token))
        defects = [sample.defect for samples in by_log.values() for sample in samples]
        if not by_log or all(defects):
            first = f"; the first: {defects[0]}" if defects else ""
            raise DatasetError(f"{folder}: none of the {len(defects)} samples can be used{first}")
        return [Scene(name, tuple(by_log[name])) for name in sorted(by_log)]

    def remedy_for_missing(self, folders: Sequence[str]) -> str:
        """Return which archive holds the pictures."""
        return f"extract nuimages-v1.0-all-samples.tgz so that {self.data / 'samples'} holds the cameras' folders"

    def read_cloud(self, sample: Sample) -> Cloud:
        """Raise SampleError: nuImages has no clouds."""
        raise SampleError(f"{sample.token}: nuImages has no clouds")

    def read_point_truth(self, sample: Sample, points: int) -> NDArray[np.uint8]:
        """Return 255 for each point; nuImages has none."""
        return np.full(points, IGNORE, np.uint8)

    def read_image_truth(self, camera: Camera) -> NDArray[np.uint8]:
        """Draw the masks of a picture one over the other; see `Adapter.read_image_truth`.

        A picture without masks has truth too: 255 everywhere.
        """
        drawn = np.full(camera.width_px * camera.height_px, IGNORE, np.uint8)
        for number, (class_id, text) in enumerate(camera.truth_masks):
            try:
                drawn[covered_pixels(text, drawn.size)] = class_id
            except ValueError as error:
                raise SampleError(
                    f"{self.data / camera.image_path}: annotation {number} in drawing order: {error}; {AGAIN}"
                ) from None
        return np.ascontiguousarray(drawn.reshape(camera.width_px, camera.height_px).T)

    def _split_folder(self, split: str, version: str | None) -> Path:
        if split not in SPLITS:
            raise DatasetError(f"no split {split!r} of nuImages; choose {', '.join(SPLITS)}")
        name = f"v1.0-{split}"
        if version not in (None, name):
            raise DatasetError(f"{self.data}: version {version!r} is not that of split {split!r}; leave `version` out")
        if (self.data / name).is_dir():
            return self.data / name
        if (self.data / "sample.json").is_file():
            raise DatasetError(f"{self.data}: this is a folder of tables; give its parent, --data {self.data.parent}")
        if deeper := sorted(self.data.glob(f"*/{name}")):
            raise DatasetError(f"{self.data}: {name} lies one folder deeper; move {deeper[0]} to {self.data / name}")
        found = ", ".join(version_names(self.data)) or "no v1.0-* folder"
        raise DatasetError(
            f"{self.data}: no folder {name}, it holds {found}; choose another split, "
            "or extract nuimages-v1.0-all-metadata.tgz"
        )


class _Assembler:
    """Joins the tables into samples; a bad row sets `Sample.defect`."""

    def __init__(self, folder: Path, tables: Tables, class_of_category: dict[str, int]) -> None:
        self.folder, self.tables, self.class_of_category = folder, tables, class_of_category

    def sample(self, token: str, log: str, key_camera_token: str) -> Sample:
        try:
            return Sample(token, log, None, (self._camera(key_camera_token),))
        except SampleError as error:
            return Sample(token, log, None, (), defect=str(error))

    def _camera(self, token: str) -> Camera:
        reading = self._row("sample_data", self.tables.pictures, token)
        sensor = self._row("calibrated_sensor", self.tables.sensors, reading.calibrated_sensor_token)
        channel = self._row("sensor", self.tables.channels, sensor.sensor_token)
        self._check_reading(reading)
        try:
            intrinsics, cam_from_ego = _calibration(sensor)
        except ValueError as error:
            raise SampleError(f"{self.folder / 'calibrated_sensor.json'}: {sensor.token}: {error}; {AGAIN}") from None
        return Camera(
            channel,
            reading.filename,
            reading.width,
            reading.height,
            intrinsics,
            cam_from_ego,
            # OpenCV's order k1 k2 p1 p2 k3 with a sixth number at CAM_BACK, whose model is not documented.
            distortion=Distortion("pinhole", tuple(sensor.camera_distortion)) if sensor.camera_distortion else None,
            truth_masks=tuple(self._mask(row, reading) for row in self.tables.annotations.get(token, ())),
        )

    def _check_reading(self, reading: SampleDataRow) -> None:
        table = self.folder / "sample_data.json"
        if not stays_inside(reading.filename):
            raise SampleError(f"{table}: {reading.filename!r} is not a file inside the dataset; {AGAIN}")
        if min(reading.width, reading.height) < 1 or reading.width * reading.height > MAX_PIXELS:
            raise SampleError(f"{table}: {reading.filename} is {reading.width}x{reading.height} pixels; {AGAIN}")

    def _mask(self, row: AnnotationRow, reading: SampleDataRow) -> tuple[int, str]:
        """Return the class id of an annotation, 255 if its category has no class, and its run lengths."""
        name = self._row("category", self.tables.categories, row.category_token)
        assert row.mask is not None
        if row.mask.size != [reading.height, reading.width]:
            raise SampleError(
                f"{self.folder}: annotation {row.token} has a mask of height and width {row.mask.size}, "
                f"the picture has [{reading.height}, {reading.width}]; {AGAIN}"
            )
        try:
            text = base64.b64decode(row.mask.counts, validate=True).decode("ascii")
        except (binascii.Error, ValueError):
            raise SampleError(f"{self.folder}: annotation {row.token} has a mask that is not base64; {AGAIN}") from None
        return self.class_of_category.get(name, IGNORE), text

    def _row(self, table: str, rows: dict[str, Row], token: str) -> Row:
        if token not in rows:
            raise SampleError(f"{self.folder / table}.json: token {token!r} is used but not in the table; {AGAIN}")
        return rows[token]


def _calibration(sensor: CalibratedSensorRow) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the camera matrix (3, 3), and cam_from_ego (4, 4), which stands for `cam_from_cloud`.

    Raises:
        ValueError: if a matrix, rotation or coefficient cannot be used.
    """
    if (len(sensor.rotation), len(sensor.translation)) != (4, 3):
        raise ValueError(f"rotation {sensor.rotation} and translation {sensor.translation} should have 4 and 3 numbers")
    intrinsics = np.array(sensor.camera_intrinsic, np.float64)
    check_intrinsics(intrinsics)
    ego_from_cam = rigid_from_quaternion(np.array(sensor.rotation), np.array(sensor.translation))
    return intrinsics, invert_rigid(ego_from_cam)
