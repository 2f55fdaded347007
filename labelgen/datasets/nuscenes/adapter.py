"""nuScenes: six cameras and LIDAR_TOP at keyframes, from any official version folder.

H. Caesar et al., nuScenes: A multimodal dataset for autonomous driving, CVPR 2020. Point truth is nuScenes-lidarseg,
its 32 categories mapped to the 16 classes of the lidarseg challenge.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_schemas.names import is_file_name
from cache_schemas.taxonomy import IGNORE, load_taxonomy
from labelgen.datasets.adapter import Adapter, stays_inside
from labelgen.datasets.nuscenes.calibrations import Calibrations
from labelgen.datasets.nuscenes.clouds import MAX_INTENSITY, points_of
from labelgen.datasets.nuscenes.layout import (
    archives,
    misplaced_parts,
    misplaced_version,
    nested_version,
    version_names,
)
from labelgen.datasets.nuscenes.splits import ALL, split_names, split_scenes
from labelgen.datasets.nuscenes.tables import (
    CalibratedSensorRow,
    CategoryRow,
    LidarsegRow,
    SampleDataRow,
    SampleRow,
    SceneRow,
    SensorRow,
    read_keyframe_data,
    read_sensor_data,
    read_table,
)
from labelgen.errors import DatasetError, SampleError
from labelgen.geometry import invert_rigid
from labelgen.samples import Camera, Cloud, Sample, Scene, Sweep, unreadable

CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT")
LIDAR = "LIDAR_TOP"
MAX_PIXELS = 2**26
"""Larger image sizes in a table are refused; images of nuScenes have 1.44 million pixels."""

CLASS_OF_CATEGORY = {
    "movable_object.barrier": "barrier",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
    "flat.driveable_surface": "driveable_surface",
    "flat.other": "other_flat",
    "flat.sidewalk": "sidewalk",
    "flat.terrain": "terrain",
    "static.manmade": "manmade",
    "static.vegetation": "vegetation",
}
"""The official map from 32 lidarseg categories to 16 classes; other categories are ignored."""


class NuScenes(Adapter):
    """The nuScenes data set: a folder with `samples/` and one or more version folders of tables."""

    taxonomy_name = "nuscenes16"
    has_sweeps = True
    remedy = "give the nuScenes folder that holds samples/ and v1.0-*/"
    """End of the error message for a missing folder `{data}`: what to do."""

    def __init__(self, data: Path) -> None:
        """Use the folder that holds `samples/` and the version folders.

        Raises:
            DatasetError: if the folder does not exist.
        """
        super().__init__(data)
        if not data.is_dir():
            raise DatasetError(f"{data}: no such folder; {self.remedy.format(data=data)}")

    def scenes(self, split: str, version: str | None) -> list[Scene]:
        """Return the scenes of `split` in name order; see `Adapter.scenes`."""
        try:
            return self._scenes(split, version)
        except OSError as error:
            raise unreadable(self.data, error) from None

    def _scenes(self, split: str, version: str | None) -> list[Scene]:
        folder = self._version_folder(version)
        if hint := nested_version(folder):
            raise DatasetError(hint)
        if split != ALL and split not in split_names():
            raise DatasetError(f"no split {split!r} of nuScenes; choose {', '.join([ALL, *split_names()])}")
        wanted = {
            row.token: row.name
            for row in read_table(folder, "scene", SceneRow)
            if split == ALL or row.name in split_scenes(split)
        }
        if not wanted:
            raise DatasetError(f"{folder}: holds no scene of split {split!r}; choose another split or version")
        _check_names(folder, "scene", wanted.values())
        samples = _assemble_samples(folder, wanted, self.sweeps)
        _check_any_usable(folder, samples)
        by_scene: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            by_scene[sample.scene].append(sample)
        return [Scene(name, tuple(by_scene[name])) for name in sorted(by_scene)]

    def remedy_for_missing(self, folders: Sequence[str]) -> str:
        """Return where the folders lie instead, or which archives hold their files."""
        if hint := misplaced_parts(self.data, folders):
            return hint
        found = version_names(self.data)
        return " or ".join(archives(version, folders) for version in found)

    def read_cloud(self, sample: Sample) -> Cloud:
        """Read a `.pcd.bin` file of x, y, z, intensity (0..255), ring; see `Adapter.read_cloud`."""
        assert sample.cloud_path is not None
        return self._read_lidar(sample.cloud_path)

    def read_sweep(self, sweep: Sweep) -> Cloud:
        """Read a file like that of a keyframe; see `Adapter.read_sweep`."""
        return self._read_lidar(sweep.cloud_path)

    def _read_lidar(self, path: str) -> Cloud:
        points = points_of(self.read_bytes(path), self.data / path)
        return Cloud(xyz=points[:, :3].copy(), intensity=points[:, 3] / np.float32(MAX_INTENSITY))

    def read_point_truth(self, sample: Sample, points: int) -> NDArray[np.uint8]:
        """Read a lidarseg file and map its categories to classes; see `Adapter.read_point_truth`."""
        if sample.point_truth_path is None:
            return np.full(points, IGNORE, np.uint8)
        raw = np.frombuffer(self.read_bytes(sample.point_truth_path), np.uint8)
        if len(raw) != points:
            raise SampleError(
                f"{self.data / sample.point_truth_path}: {len(raw)} labels for {points} points; "
                "restore the file from nuScenes-lidarseg"
            )
        version = Path(sample.point_truth_path).parent.name
        return _class_of_index(self._version_folder(version))[raw]

    def _version_folder(self, version: str | None) -> Path:
        if hint := misplaced_version(self.data):
            raise DatasetError(f"{self.data}: holds no tables in a v1.0-* folder; {hint}")
        found = version_names(self.data)
        if version is None and len(found) == 1:
            return self.data / found[0]
        if version in found:
            return self.data / version
        listing = f"it holds {', '.join(found)}" if found else "it holds no v1.0-* folder"
        if version is None:
            fix = "choose one with --set version=..." if found else "give the folder that holds samples/ and v1.0-*/"
            raise DatasetError(f"{self.data}: which version? {listing}; {fix}")
        raise DatasetError(f"{self.data}: no version folder {version!r}; {listing}")


def _assemble_samples(folder: Path, scene_names: dict[str, str], sweeps: int) -> list[Sample]:
    """Join the tables into the samples of the given scenes, in time order; a bad row sets `Sample.defect`.

    Each sample gets the clouds before its own, at most `sweeps` of them.
    """
    rows = [row for row in read_table(folder, "sample", SampleRow) if row.scene_token in scene_names]
    wanted = {row.token for row in rows}
    _check_names(folder, "sample", wanted)
    readings: dict[str, list[SampleDataRow]] = defaultdict(list)
    for reading in read_keyframe_data(folder):
        if reading.sample_token in wanted:
            readings[reading.sample_token].append(reading)
    earlier = _EarlierReadings(folder, sweeps)
    used = {r.ego_pose_token for group in readings.values() for r in group}
    calibrations = Calibrations(folder, used | earlier.ego_pose_tokens)
    truth = _lidarseg_files(folder)
    return [
        _assemble_sample(row.token, scene_names[row.scene_token], readings[row.token], calibrations, truth, earlier)
        for row in sorted(rows, key=lambda row: row.timestamp)
    ]


class _EarlierReadings:
    """The lidar's readings, by which a keyframe's preceding sweeps are found; empty if no sweep is asked for."""

    def __init__(self, folder: Path, sweeps: int) -> None:
        self._folder, self._sweeps = folder, sweeps
        self._by_token: dict[str, SampleDataRow] = {}
        if sweeps:
            lidars = {row.token for row in read_table(folder, "sensor", SensorRow) if row.channel == LIDAR}
            mounted = read_table(folder, "calibrated_sensor", CalibratedSensorRow)
            rows = read_sensor_data(folder, {row.token for row in mounted if row.sensor_token in lidars})
            self._by_token = {row.token: row for row in rows}

    @property
    def ego_pose_tokens(self) -> set[str]:
        return {row.ego_pose_token for row in self._by_token.values()}

    def before(self, keyframe: SampleDataRow, calibrations: Calibrations) -> tuple[Sweep, ...]:
        """Return the sweeps before a keyframe, latest first, as many as are asked for and exist.

        Raises:
            SampleError: if a row of one is broken.
        """
        found: list[Sweep] = []
        keyframe_from_global = invert_rigid(calibrations.global_from_sensor(keyframe))
        reading = keyframe
        while len(found) < self._sweeps and reading.prev:
            if reading.prev not in self._by_token:
                raise SampleError(
                    f"{self._folder / 'sample_data.json'}: token {reading.prev!r} is used but not in the table; "
                    "the tables are incomplete or of two versions, extract them again"
                )
            reading = self._by_token[reading.prev]
            if not stays_inside(reading.filename):
                raise SampleError(
                    f"{self._folder / 'sample_data.json'}: {reading.filename!r} is not a file inside the dataset; "
                    "extract the tables again"
                )
            keyframe_from_sweep = keyframe_from_global @ calibrations.global_from_sensor(reading)
            lag_s = (keyframe.timestamp - reading.timestamp) * 1e-6
            found.append(Sweep(reading.filename, keyframe_from_sweep, lag_s))
        return tuple(found)


def _assemble_sample(
    token: str,
    scene: str,
    readings: list[SampleDataRow],
    calibrations: Calibrations,
    truth: dict[str, str],
    earlier: _EarlierReadings,
) -> Sample:
    try:
        by_channel = {calibrations.channel(reading): reading for reading in readings}
        missing = [channel for channel in (LIDAR, *CAMERAS) if channel not in by_channel]
        if missing:
            raise SampleError(
                f"{calibrations.folder / 'sample_data.json'}: sample {token} has no keyframe of {', '.join(missing)}; "
                "extract the tables again"
            )
        lidar, *images = (by_channel[channel] for channel in (LIDAR, *CAMERAS))
        _check_readings(calibrations.folder, lidar, images)
        global_from_cams = np.stack([calibrations.global_from_sensor(image) for image in images])
        global_from_lidar = calibrations.global_from_sensor(lidar)
        cam_from_cloud = invert_rigid(global_from_cams) @ global_from_lidar
        cameras = tuple(
            Camera(channel, image.filename, image.width, image.height, calibrations.intrinsics(image), transform)
            for channel, image, transform in zip(CAMERAS, images, cam_from_cloud, strict=True)
        )
        return Sample(
            token,
            scene,
            lidar.filename,
            cameras,
            truth.get(lidar.token),
            lidar.token,
            world_from_cloud=global_from_lidar,
            sweeps=earlier.before(lidar, calibrations),
        )
    except SampleError as error:
        return Sample(token, scene, "", (), defect=str(error))


def _check_readings(folder: Path, lidar: SampleDataRow, images: Sequence[SampleDataRow]) -> None:
    """Raise SampleError for impossible file names and image sizes."""
    table = folder / "sample_data.json"
    if leaving := [reading for reading in (lidar, *images) if not stays_inside(reading.filename)]:
        raise SampleError(
            f"{table}: {leaving[0].filename!r} is not a file inside the dataset; extract the tables again"
        )
    if unsized := [i for i in images if min(i.width, i.height) < 1 or i.width * i.height > MAX_PIXELS]:
        raise SampleError(
            f"{table}: {unsized[0].filename} is {unsized[0].width}x{unsized[0].height} pixels; extract the tables again"
        )
    if not is_file_name(lidar.token):
        raise SampleError(f"{table}: token {lidar.token!r} cannot name a file; extract the tables again")


def _check_names(folder: Path, table: str, names: Iterable[str]) -> None:
    """Raise DatasetError for names that cannot be part of a file name."""
    if bad := [name for name in names if not is_file_name(name)]:
        raise DatasetError(f"{folder / table}.json: {bad[0]!r} cannot name a file; extract the table again")


def _check_any_usable(folder: Path, samples: list[Sample]) -> None:
    defects = [sample.defect for sample in samples if sample.defect]
    if defects and len(defects) == len(samples):
        raise DatasetError(f"{folder}: none of the {len(samples)} samples can be used; the first: {defects[0]}")


def _lidarseg_files(folder: Path) -> dict[str, str]:
    """Return the existing lidarseg files by sample_data token; lidarseg is optional."""
    if not (folder / "lidarseg.json").is_file():
        return {}
    rows = read_table(folder, "lidarseg", LidarsegRow)
    if all(row.index is None for row in read_table(folder, "category", CategoryRow)):
        raise DatasetError(
            f"{folder / 'category.json'}: no row has an index, so lidarseg cannot be read; "
            "extract nuScenes-lidarseg again, which replaces this table, or remove lidarseg.json"
        )
    return {row.sample_data_token: row.filename for row in rows if (folder.parent / row.filename).is_file()}


def _class_of_index(folder: Path) -> NDArray[np.uint8]:
    """Return the map (256,) u8 from lidarseg index to class id, by the indices in category.json."""
    ids = {name: index for index, name in enumerate(load_taxonomy(NuScenes.taxonomy_name).names)}
    table = np.full(256, IGNORE, np.uint8)
    for row in read_table(folder, "category", CategoryRow):
        if row.index is not None and row.name in CLASS_OF_CATEGORY:
            table[row.index] = ids[CLASS_OF_CATEGORY[row.name]]
    return table
