"""ScanNet v2: one sample is one scan, with the vertices of its mesh as the cloud and all its frames as images.

A. Dai et al., ScanNet: Richly-annotated 3D Reconstructions of Indoor Scenes, CVPR 2017. The truth has the 20 classes of
the benchmark. Frames of three kinds can be read: the archive frames_25k, frames exported from .sens files, and .sens
files themselves; see `layout`.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE
from labelgen.datasets.adapter import Adapter
from labelgen.datasets.scannet import sens
from labelgen.datasets.scannet.classes import (
    LABEL_MAP,
    LabelMap,
    classes_of_groups,
    classes_of_nyu40,
    classes_of_raw_ids,
    read_label_map,
)
from labelgen.datasets.scannet.frames import frames_of_folder, frames_of_sens
from labelgen.datasets.scannet.layout import (
    GROUPS,
    MESH,
    SEGMENTS,
    SENS,
    TRUTH_MESH,
    Scan,
    Version,
    find_scans,
    find_version,
    remedy,
)
from labelgen.datasets.scannet.mesh import read_vertices
from labelgen.datasets.scannet.splits import ALL, SPLITS, split_scans
from labelgen.errors import DatasetError, SampleError
from labelgen.pictures import read_id_picture
from labelgen.samples import Camera, Cloud, Sample, Scene, unreadable

RAW_IDS = "label-filt"
"""The folder whose label pictures hold raw ids; those of frames_25k hold nyu40 ids."""

READERS = 16
"""Scans whose tables are read at once; a network disk answers many requests at a time."""


class ScanNet(Adapter):
    """The folder into which the official script downloads: `scans/`, `scans_test/` and `tasks/`.

    A scene is one room, and its samples are the scans of this room.
    """

    taxonomy_name = "scannet20"

    def __init__(self, data: Path) -> None:
        """Use the folder that holds `scans/`.

        Raises:
            DatasetError: if the folder does not exist.
        """
        super().__init__(data)
        if not data.is_dir():
            raise DatasetError(f"{data}: no such folder; give the ScanNet folder that holds scans/")

    def scenes(self, split: str, version: str | None) -> list[Scene]:
        """Return the rooms of `split` in name order; see `Adapter.scenes`.

        `version` is `frames_25k`, `exported` or `sens`; with `/N`, only frames whose number is a multiple of N are
        read. Without, it is every frame of frames_25k, and every 20th of the others.
        """
        if split not in (ALL, *SPLITS):
            raise DatasetError(f"no split {split!r} of ScanNet; choose {', '.join([ALL, *SPLITS])}")
        try:
            found = find_version(self.data, version)
            scans = find_scans(self.data, found.layout)
            wanted = [scan for scan in scans if split == ALL or scan.name in split_scans(split)]
            if not wanted:
                raise DatasetError(
                    f"{self.data}: none of its {len(scans)} scans is of split {split!r}; choose another split"
                )
            with ThreadPoolExecutor(READERS) as readers:
                samples = list(readers.map(lambda scan: self._sample(scan, found), wanted))
        except OSError as error:
            raise unreadable(self.data, error) from None
        self._check(samples)
        by_space: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            by_space[sample.scene].append(sample)
        return [Scene(name, tuple(by_space[name])) for name in sorted(by_space)]

    def _sample(self, scan: Scan, version: Version) -> Sample:
        """Return one scan with its frames; a damaged file of the calibration sets `Sample.defect`."""
        try:
            if version.layout == SENS:
                cameras = frames_of_sens(self.data, scan, version.every)
            else:
                cameras = frames_of_folder(self.data, scan, version)
        except SampleError as error:
            return Sample(scan.name, scan.space, "", (), defect=str(error))
        return Sample(scan.name, scan.space, scan.file(MESH), cameras, self._point_truth_path(scan), scan.name)

    def _point_truth_path(self, scan: Scan) -> str | None:
        if (self.data / scan.file(TRUTH_MESH)).is_file():
            return scan.file(TRUTH_MESH)
        if all((self.data / scan.file(ending)).is_file() for ending in (GROUPS, SEGMENTS)):
            return scan.file(GROUPS)
        return None

    def _check(self, samples: Sequence[Sample]) -> None:
        """Refuse a folder without any usable scan, or without the label map that its truth needs."""
        defects = [sample.defect for sample in samples if sample.defect]
        if len(defects) == len(samples):
            raise DatasetError(f"{self.data}: none of the {len(samples)} scans can be used; the first: {defects[0]}")
        truth = [PurePosixPath(path) for sample in samples for path in sample.truth_paths]
        if any(path.parent.name == RAW_IDS or path.name.endswith(GROUPS) for path in truth):
            self._label_map()

    def remedy_for_missing(self, folders: Sequence[str]) -> str:
        """Return which official files hold what is missing."""
        return remedy(folders)

    def read_cloud(self, sample: Sample) -> Cloud:
        """Read the vertices of the mesh with their colour, in the order of the file; see `Adapter.read_cloud`."""
        assert sample.cloud_path is not None
        vertices = self._vertices(sample.cloud_path)
        xyz = np.stack([vertices[axis] for axis in "xyz"], axis=1).astype(np.float32)
        if not np.isfinite(xyz).all():
            bad = int(np.flatnonzero(~np.isfinite(xyz).all(axis=1))[0])
            raise SampleError(f"{self.data / sample.cloud_path}: vertex {bad} is not finite; download the file again")
        colour = None
        if {"red", "green", "blue"} <= vertices.keys():
            colour = np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1).astype(np.uint8)
        return Cloud(xyz, colour=colour)

    def read_point_truth(self, sample: Sample, points: int) -> NDArray[np.uint8]:
        """Read the labelled mesh, or the annotated groups if there is none; see `Adapter.read_point_truth`."""
        if sample.point_truth_path is None:
            return np.full(points, IGNORE, np.uint8)
        file = self.data / sample.point_truth_path
        if sample.point_truth_path.endswith(GROUPS):
            classes = self._classes_of_groups(sample.point_truth_path)
        else:
            vertices = self._vertices(sample.point_truth_path)
            if "label" not in vertices:
                raise SampleError(f"{file}: its vertices have no label; download the file again")
            classes = classes_of_nyu40(vertices["label"].astype(np.int64), file)
        if len(classes) != points:
            raise SampleError(
                f"{file}: labels of {len(classes)} vertices, but the mesh has {points}; download both files again"
            )
        return classes

    def _classes_of_groups(self, path: str) -> NDArray[np.uint8]:
        segments_path = path.removesuffix(GROUPS) + SEGMENTS
        read = path
        try:
            found = json.loads(self.read_bytes(path))
            groups = [
                (str(group["label"]), [int(segment) for segment in group["segments"]]) for group in found["segGroups"]
            ]
            read = segments_path
            segments = np.array(json.loads(self.read_bytes(segments_path))["segIndices"], np.int64).reshape(-1)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise SampleError(f"{self.data / read}: cannot be read ({error!r}); download the file again") from None
        return classes_of_groups(groups, segments, self._label_map(), self.data / path)

    def read_image_truth(self, camera: Camera) -> NDArray[np.uint8] | None:
        """Read a label picture: nyu40 ids in frames_25k, raw ids in `label-filt`; see `Adapter.read_image_truth`."""
        if camera.truth_path is None:
            return None
        ids = read_id_picture(self, camera.truth_path, (camera.height_px, camera.width_px)).astype(np.int64)
        file = self.data / camera.truth_path
        if PurePosixPath(camera.truth_path).parent.name == RAW_IDS:
            return classes_of_raw_ids(ids, self._label_map(), file)
        return classes_of_nyu40(ids, file)

    def picture_bytes(self, camera: Camera) -> bytes:
        """Return the picture of a frame; see `Adapter.picture_bytes`."""
        if camera.frame is None:
            return super().picture_bytes(camera)
        return sens.read_colour(self.data / camera.image_path, camera.frame)

    def depth_bytes(self, camera: Camera) -> bytes:
        """Return the depth picture of a frame; see `Adapter.depth_bytes`."""
        if camera.frame is None:
            return super().depth_bytes(camera)
        return sens.read_depth(self.data / camera.image_path, camera.frame)

    def _vertices(self, path: str) -> dict[str, NDArray[Any]]:
        return read_vertices(self.read_bytes(path), self.data / path)

    def _label_map(self) -> LabelMap:
        return read_label_map(self.data / LABEL_MAP)
