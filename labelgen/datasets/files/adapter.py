"""A user's own data: a JSON Lines file lists samples, and classes and prompts lie beside it."""

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from cache_schemas.taxonomy import IGNORE, Taxonomy
from labelgen.datasets.adapter import Adapter
from labelgen.datasets.files.clouds import cloud_of, ids_of
from labelgen.datasets.files.lines import CloudEntry, DepthEntry, ImageEntry, SampleEntry, read_header, read_samples
from labelgen.errors import DatasetError, SampleError
from labelgen.geometry import invert_rigid
from labelgen.pictures import read_id_picture
from labelgen.samples import Camera, Cloud, DepthMap, Sample, Scene, unreadable

LIST_NAME = "samples.jsonl"
ALL = "all"


class Files(Adapter):
    """Samples that a JSON Lines file lists; all its paths are relative to its folder."""

    def __init__(self, data: Path) -> None:
        """Use the list `data`, or `samples.jsonl` in the folder `data`.

        Raises:
            DatasetError: if there is no such file.
        """
        self.list = data / LIST_NAME if data.is_dir() else data
        super().__init__(self.list.parent)
        if not self.list.is_file():
            raise DatasetError(f"{self.list}: no such file; give a list of samples, or the folder of a {LIST_NAME}")

    def taxonomy(self) -> Taxonomy:
        """Return the classes in the file beside the list.

        Raises:
            DatasetError: if it is missing or malformed.
        """
        return self._taxonomy

    @cached_property
    def _taxonomy(self) -> Taxonomy:
        file = self.data / read_header(self.list).taxonomy
        example = '{"name": "mine", "classes": [{"name": "road", "colour": [128, 64, 128]}]}'
        try:
            return Taxonomy.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise DatasetError(f"{file}: no such file; write the classes there, such as {example}") from None
        except OSError as error:
            raise unreadable(file, error) from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"])) or "the file"
            raise DatasetError(f"{file}: {field}: {first['msg']}; write it such as {example}") from None

    def prompts(self) -> str:
        """Return the path of the prompt file beside the list."""
        return str(self.data / read_header(self.list).prompts)

    def scenes(self, split: str, version: str | None) -> list[Scene]:
        """Return the scenes of `split` in name order, with the samples in the order of their lines."""
        if version is not None:
            raise DatasetError(f"{self.list}: version {version!r}: a list has no versions; remove this setting")
        entries = [entry for _, entry in read_samples(self.list)]
        if not entries:
            raise DatasetError(f"{self.list}: holds no samples; write one JSON object a line")
        by_scene: dict[str, list[Sample]] = defaultdict(list)
        for entry in entries:
            if split in (ALL, entry.split):
                by_scene[entry.scene].append(sample_of(entry))
        if not by_scene:
            known = sorted({entry.split for entry in entries if entry.split} | {ALL})
            raise DatasetError(f"{self.list}: no line has split {split!r}; choose {', '.join(known)}")
        return [Scene(name, tuple(by_scene[name])) for name in sorted(by_scene)]

    def remedy_for_missing(self, folders: Sequence[str]) -> str:
        """Return what to do about missing files."""
        return f"restore them, or correct the paths in {self.list.name}, which are relative to its folder"

    def read_cloud(self, sample: Sample) -> Cloud:
        """Read a cloud as its line says; see `Adapter.read_cloud`."""
        entry = cloud_entry(sample)
        return cloud_of(entry, self.read_bytes(entry.path), str(self.data / entry.path))

    def read_point_truth(self, sample: Sample, points: int) -> NDArray[np.uint8]:
        """Read class ids of points; see `Adapter.read_point_truth`."""
        path = sample.point_truth_path
        if path is None:
            return np.full(points, IGNORE, np.uint8)
        name = str(self.data / path)
        return self._known(ids_of(path, self.read_bytes(path), points, name), name)

    def read_image_truth(self, camera: Camera) -> NDArray[np.uint8] | None:
        """Read a picture of class ids; see `Adapter.read_image_truth`."""
        path = camera.truth_path
        if path is None:
            return None
        ids = read_id_picture(self, path, (camera.height_px, camera.width_px))
        return self._known(ids, str(self.data / path))

    def _known(self, ids: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
        """Return ids as u8; SampleError quotes one that is neither a class of the taxonomy nor 255."""
        if ids.dtype.kind not in "iub":
            raise SampleError(f"{name}: ids of type {ids.dtype}; write them as whole numbers")
        classes = len(self.taxonomy().classes)
        values = np.unique(ids).astype(np.int64)
        if strange := [value for value in values.tolist() if not (0 <= value < classes or value == IGNORE)]:
            raise SampleError(
                f"{name}: id {strange[0]} is no class, the taxonomy {self.taxonomy().name!r} has 0 to {classes - 1}; "
                f"map other ids to {IGNORE}"
            )
        return ids.astype(np.uint8)


def cloud_entry(sample: Sample) -> CloudEntry:
    """Return what the line of a sample with a cloud says about its cloud."""
    return CloudEntry(path=sample.cloud_path or "", **json.loads(sample.cloud_format))


def sample_of(entry: SampleEntry) -> Sample:
    """Return the sample that a line describes."""
    cloud = entry.cloud
    world_from_cloud = None if entry.world_from_cloud is None else np.array(entry.world_from_cloud)
    return Sample(
        token=entry.id,
        scene=entry.scene,
        cloud_path=cloud.path if cloud else None,
        cameras=tuple(_camera(image, world_from_cloud) for image in entry.images),
        point_truth_path=entry.point_truth,
        world_from_cloud=world_from_cloud,
        cloud_format=json.dumps(cloud.model_dump(exclude={"path"}, exclude_defaults=True)) if cloud else "",
    )


def _camera(image: ImageEntry, world_from_cloud: NDArray[np.float64] | None) -> Camera:
    intrinsics = _usual_intrinsics(image) if image.intrinsics is None else np.array(image.intrinsics)
    return Camera(
        channel=image.camera,
        image_path=image.path,
        width_px=image.width,
        height_px=image.height,
        intrinsics=intrinsics,
        cam_from_cloud=_cam_from_cloud(image, world_from_cloud),
        truth_path=image.truth,
        segments_path=image.segments,
        distortion=image.distortion.lens if image.distortion else None,
        depth=_depth(image.depth, intrinsics) if image.depth else None,
    )


def _depth(depth: DepthEntry, intrinsics: NDArray[np.float64]) -> DepthMap:
    """Return the depth picture of a camera; it has the camera's intrinsics if it has none of its own."""
    own = intrinsics if depth.intrinsics is None else np.array(depth.intrinsics)
    return DepthMap(depth.path, own, depth.metres_per_unit)


def _cam_from_cloud(image: ImageEntry, world_from_cloud: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return cam_from_cloud (4, 4); the identity for pictures without a cloud."""
    if image.world_from_cam is not None and world_from_cloud is not None:
        return invert_rigid(np.array(image.world_from_cam)) @ world_from_cloud
    return np.eye(4) if image.cam_from_cloud is None else np.array(image.cam_from_cloud)


def _usual_intrinsics(image: ImageEntry) -> NDArray[np.float64]:
    """Return a camera matrix for a picture without a cloud: nothing is projected into it, but the cache has the field.

    The focal length is the width, which is a field of view of 53 degrees.
    """
    centre_u, centre_v = (image.width - 1) / 2, (image.height - 1) / 2
    return np.array([[image.width, 0, centre_u], [0, image.width, centre_v], [0, 0, 1]], np.float64)
