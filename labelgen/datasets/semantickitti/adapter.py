"""SemanticKITTI: lidar scans of KITTI's odometry sequences with the colour pictures of the same moment.

J. Behley et al., SemanticKITTI: A Dataset for Semantic Scene Understanding of LiDAR Sequences, ICCV 2019, on A. Geiger
et al., CVPR 2012; CC BY-NC-SA. Scan i and picture i belong together, and scans are compensated for the motion of the
car, so no pose takes part between lidar and camera.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from cache_schemas.taxonomy import IGNORE
from labelgen.datasets.adapter import Adapter
from labelgen.datasets.semantickitti.calibration import (
    PROJECTIONS,
    Floats,
    read_calibration,
    read_poses,
    read_times,
)
from labelgen.datasets.semantickitti.classes import REMAPPED_BELOW, TAXONOMY, classes_of, raw_ids
from labelgen.errors import DatasetError, SampleError
from labelgen.file_warnings import warn
from labelgen.pictures import NOT_A_PICTURE
from labelgen.samples import NO_SUCH_FILE, Camera, Cloud, Sample, Scene, unreadable

ALL = "all"
SEQUENCES = "sequences"
SCANS, LABELS = "velodyne", "labels"
ENDINGS = {SCANS: ".bin", LABELS: ".label", **dict.fromkeys(PROJECTIONS, ".png")}
"""The ending of the files in each folder of a sequence. They are named by frame: six digits."""

ARCHIVES = {
    SCANS: "data_odometry_velodyne.zip",
    LABELS: "data_odometry_labels.zip",
    **dict.fromkeys(PROJECTIONS, "data_odometry_color.zip"),
}
SCAN_COLUMNS = ("x", "y", "z", "remission")
REACH_M = 200.0
"""The Velodyne HDL-64E measures up to 120 m."""

UNKNOWN_SIZE = (1, 1)
"""Size of a picture if no picture of its camera is there; such samples are left out before the size matters."""


class SemanticKitti(Adapter):
    """The SemanticKITTI data set: the folder `dataset`, which holds `sequences/`."""

    taxonomy_name = TAXONOMY

    def __init__(self, data: Path) -> None:
        """Use the folder that holds `sequences/`.

        Raises:
            DatasetError: if the folder does not exist.
        """
        super().__init__(data)
        if not data.is_dir():
            raise DatasetError(f"{data}: no such folder; give the folder `dataset`, which holds sequences/")

    def scenes(self, split: str, version: str | None) -> list[Scene]:
        """Return the sequences of `split` that are there, in order; see `Adapter.scenes`.

        Each sample has both colour cameras; the setting `cameras` chooses among them.
        """
        if version is not None:
            raise DatasetError(f"{self.data}: SemanticKITTI has no version {version!r}; leave `version` out")
        try:
            return [self._scene(name) for name in self._sequences(split)]
        except OSError as error:
            raise unreadable(self.data, error) from None

    def remedy_for_missing(self, folders: Sequence[str]) -> str:
        """Return which archives hold the files of these folders."""
        kinds = {PurePosixPath(folder).name for folder in folders}
        archives = sorted({ARCHIVES[kind] for kind in kinds if kind in ARCHIVES})
        remedy = f"extract {' and '.join(archives)} so that {self.data / SEQUENCES} holds their sequences"
        if LABELS in kinds:
            remedy += f"; a sequence without a folder {LABELS} is labelled without truth"
        return remedy

    def read_cloud(self, sample: Sample) -> Cloud:
        """Read a scan of x, y, z in metres and remission 0..1; see `Adapter.read_cloud`."""
        assert sample.cloud_path is not None
        file, raw = self.data / sample.cloud_path, self.read_bytes(sample.cloud_path)
        row_bytes = 4 * len(SCAN_COLUMNS)
        if not raw or len(raw) % row_bytes:
            raise SampleError(
                f"{file}: {len(raw)} bytes, not a multiple of {len(SCAN_COLUMNS)} floats ({', '.join(SCAN_COLUMNS)}); "
                f"restore the file from {ARCHIVES[SCANS]}"
            )
        points = np.frombuffer(raw, "<f4").reshape(-1, len(SCAN_COLUMNS))
        remission = points[:, 3]
        near = (np.abs(points[:, :3]) <= REACH_M).all(axis=1)
        possible = near & (remission >= 0) & (remission <= 1)
        if (bad := np.flatnonzero(~possible)).size:
            values = ", ".join(
                f"{name} {value:g}" for name, value in zip(SCAN_COLUMNS, points[bad[0]].tolist(), strict=True)
            )
            raise SampleError(
                f"{file}: point {bad[0]} ({values}) is not within {REACH_M:g} m or has no remission from 0 to 1, as "
                f"{bad.size:,} of {len(points):,}; restore the file from {ARCHIVES[SCANS]}"
            )
        return Cloud(xyz=points[:, :3].astype(np.float32), intensity=remission.astype(np.float32))

    def read_point_truth(self, sample: Sample, points: int) -> NDArray[np.uint8]:
        """Read a label file and map its raw ids to classes; see `Adapter.read_point_truth`.

        Raw ids that the data set does not define become 255, with a warning.
        """
        if sample.point_truth_path is None:
            return np.full(points, IGNORE, np.uint8)
        file = self.data / sample.point_truth_path
        raw = self.read_bytes(sample.point_truth_path)
        if len(raw) != 4 * points:
            raise SampleError(
                f"{file}: {len(raw)} bytes, not {4 * points}: 4 for each of {points} points; "
                f"restore the file from {ARCHIVES[LABELS]}"
            )
        classes, unknown = classes_of(raw_ids(np.frombuffer(raw, "<u4")))
        if unknown:
            warn(file, f"unknown raw ids {', '.join(map(str, unknown[:5]))}; their points get no class")
        return classes

    def _sequences(self, split: str) -> list[str]:
        """Return the names of the sequences of a split that are there."""
        splits = split_sequences()
        if split != ALL and split not in splits:
            raise DatasetError(f"no split {split!r} of SemanticKITTI; choose {', '.join([ALL, *splits])}")
        folder = self.data / SEQUENCES
        if not folder.is_dir():
            raise DatasetError(f"{self.data}: holds no folder {SEQUENCES}/; {_likely_folder(self.data)}")
        wanted = sorted(name for names in (splits.values() if split == ALL else [splits[split]]) for name in names)
        found = [name for name in wanted if (folder / name).is_dir()]
        if not found:
            there = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir())) or "nothing"
            raise DatasetError(
                f"{folder}: no sequence of split {split!r} ({', '.join(wanted)}), it holds {there}; "
                "choose another split"
            )
        return found

    def _scene(self, name: str) -> Scene:
        """Return a sequence with one sample for each line of its times.txt."""
        folder = self.data / SEQUENCES / name
        calibration = read_calibration(folder / "calib.txt")
        frames = len(read_times(folder / "times.txt"))
        _check_counts(folder, frames)
        labelled = (folder / LABELS).is_dir()
        if labelled:
            _refuse_remapped(folder / LABELS)
        poses = self._poses(name, frames)
        world_from_cloud = None if poses is None else calibration.world_from_cloud(poses)
        sizes = {camera: list(_picture_sizes(folder / camera, frames)) for camera in PROJECTIONS}
        place = PurePosixPath(SEQUENCES, name)
        samples = [
            Sample(
                token=f"{name}-{frame:06d}",
                scene=name,
                cloud_path=str(place / SCANS / _file_name(SCANS, frame)),
                cameras=tuple(
                    Camera(camera, str(place / camera / _file_name(camera, frame)), *sizes[camera][frame], *matrices)
                    for camera, matrices in calibration.cameras.items()
                ),
                point_truth_path=str(place / LABELS / _file_name(LABELS, frame)) if labelled else None,
                world_from_cloud=None if world_from_cloud is None else world_from_cloud[frame],
            )
            for frame in range(frames)
        ]
        return Scene(name, tuple(samples))

    def _poses(self, name: str, frames: int) -> Floats | None:
        """Return poses (frames, 4, 4): SemanticKITTI's, with which scans were labelled, else KITTI's, else None."""
        for file in (self.data / SEQUENCES / name / "poses.txt", self.data / "poses" / f"{name}.txt"):
            if file.is_file():
                return read_poses(file, frames)
        return None


@cache
def split_sequences() -> dict[str, list[str]]:
    """Return the names of the sequences of each official split."""
    text = (resources.files("labelgen.datasets.semantickitti") / "splits.yaml").read_text(encoding="utf-8")
    splits: dict[str, list[str]] = yaml.safe_load(text)
    return splits


def _file_name(kind: str, frame: int) -> str:
    return f"{frame:06d}{ENDINGS[kind]}"


def _check_counts(folder: Path, frames: int) -> None:
    """Refuse a sequence with files of frames that its times.txt does not have.

    Frames without files are found by the plan of the run, which looks for every file of every sample.
    """
    for kind, ending in ENDINGS.items():
        names = (path.name for path in (folder / kind).iterdir()) if (folder / kind).is_dir() else ()
        numbers = [int(name[:6]) for name in names if re.fullmatch(rf"\d{{6}}{re.escape(ending)}", name)]
        if numbers and max(numbers) >= frames:
            raise DatasetError(
                f"{folder / 'times.txt'}: {frames} times, but {folder / kind} has {len(numbers)} files up to frame "
                f"{max(numbers):06d}; extract times.txt again from data_odometry_calib.zip"
            )


def _refuse_remapped(labels: Path) -> None:
    """Refuse label files that hold class numbers instead of raw ids.

    Files are read until one has a raw id that no class number equals; normally that is the first one.
    """
    any_labelled = False
    for file in sorted(labels.glob(f"*{ENDINGS[LABELS]}")):
        raw = file.read_bytes()
        highest = int(raw_ids(np.frombuffer(raw[: len(raw) // 4 * 4], "<u4")).max(initial=0))
        if highest >= REMAPPED_BELOW:
            return
        any_labelled = any_labelled or highest > 0
    if any_labelled:
        raise DatasetError(
            f"{labels}: all ids are below {REMAPPED_BELOW}, so this is a remapped copy: remap_semantic_labels.py "
            f"rewrites label files in place; restore the raw labels from {ARCHIVES[LABELS]}"
        )


def _picture_sizes(folder: Path, frames: int) -> Iterator[tuple[int, int]]:
    """Yield width and height of each picture, from its header.

    A picture that is missing or damaged gets the size of the nearest one before it, or else of the first one after it.
    """
    headers = [_size_in_header(folder / _file_name(folder.name, frame)) for frame in range(frames)]
    size = next((header for header in headers if header), UNKNOWN_SIZE)
    for header in headers:
        size = header or size
        yield size


def _size_in_header(file: Path) -> tuple[int, int] | None:
    try:
        with Image.open(file) as picture:
            return picture.size
    except NOT_A_PICTURE as error:
        if isinstance(error, OSError) and error.errno not in (None, *NO_SUCH_FILE):
            raise unreadable(file, error) from None
        return None


def _likely_folder(data: Path) -> str:
    """Return which folder to give instead of one without `sequences/`."""
    if (data / "dataset" / SEQUENCES).is_dir():
        return f"the data set lies one folder deeper; give --data {data / 'dataset'}"
    if data.name == SEQUENCES:
        return f"give its parent, --data {data.parent}"
    if (data / SCANS).is_dir():
        return f"this is one sequence; give --data {data.parent.parent}"
    return "give the folder `dataset`, which holds sequences/00 and so on"
