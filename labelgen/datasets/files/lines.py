"""The list of samples: a JSON Lines file, one sample a line, checked by pydantic.

The first line may be a header that names the files of the taxonomy and of the prompts. All paths are relative to the
folder of the list. All matrices are lists of rows.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from cache_schemas.names import FileName
from labelgen.datasets.adapter import stays_inside
from labelgen.distortion import check_distortion
from labelgen.errors import DatasetError
from labelgen.geometry import check_intrinsics
from labelgen.samples import Distortion, unreadable

NAMED_COLUMNS = (".bin", ".npy")
CLOUD_SUFFIXES = (*NAMED_COLUMNS, ".pcd", ".ply", ".las", ".laz")
TRUTH_SUFFIXES = (".npy", ".bin", ".label")

RIGID_TOLERANCE = 0.05
"""How far a rotation times its transpose may be from the identity; rounded numbers are far below it."""

QUOTED_CHARACTERS = 90
GUIDE = "docs/guides/your-own-data.md"


def _inside(path: str) -> str:
    if not stays_inside(path):
        raise ValueError("give a path below the folder of the list, with / between folders")
    return path


@lru_cache(maxsize=4096)
def _rigid(matrix: "Matrix4") -> "Matrix4":
    if (error := rigid_error(np.array(matrix))) > RIGID_TOLERANCE:
        raise ValueError(
            f"not a rigid transform (its rotation is off by {error:.2g}); give rows [rotation, translation in metres] "
            "and the last row [0, 0, 0, 1]"
        )
    return matrix


@lru_cache(maxsize=4096)
def _pinhole(matrix: "Matrix3") -> "Matrix3":
    try:
        check_intrinsics(np.array(matrix))
    except ValueError:
        raise ValueError("not a camera matrix; give [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels") from None
    return matrix


def rigid_error(matrix: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Return how far a (4, 4) matrix is from a rigid transform: 0 for one, infinity if it mirrors or projects."""
    rotation = matrix[:3, :3]
    if not np.allclose(matrix[3], (0, 0, 0, 1)) or np.linalg.det(rotation) <= 0:
        return float("inf")
    return float(np.abs(rotation @ rotation.T - np.eye(3)).max())


Row3 = tuple[float, float, float]
Row4 = tuple[float, float, float, float]
Matrix3 = tuple[Row3, Row3, Row3]
Matrix4 = tuple[Row4, Row4, Row4, Row4]
RelativePath = Annotated[str, AfterValidator(_inside), Field(description="relative to the folder of the list")]
Intrinsics = Annotated[Matrix3, AfterValidator(_pinhole)]
Rigid = Annotated[Matrix4, AfterValidator(_rigid)]


class Entry(BaseModel):
    """Base class of the objects of a line: unknown fields are errors, and numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


E = TypeVar("E", bound=Entry)


class CloudEntry(Entry):
    """A cloud: `.bin`, `.npy`, `.pcd`, `.ply`, `.las` or `.laz`, coordinates in metres."""

    path: RelativePath
    columns: tuple[str, ...] | None = None
    """names of the numbers of a point in a `.bin` file, or of the columns of a plain `.npy` array; x, y and z are
    needed; intensity, red, green and blue are used; others are passed over"""
    dtype: Literal["float32", "float64"] = "float32"
    """of the numbers in a `.bin` file, little-endian"""
    intensity_max: float | None = Field(None, gt=0)
    """the intensity in the file that stands for 1; without it, intensity is not read"""

    @property
    def suffix(self) -> str:
        """The format, in lower case: `.bin`."""
        return PurePosixPath(self.path).suffix.lower()

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        if self.suffix not in CLOUD_SUFFIXES:
            raise ValueError(f"no reader for {self.suffix!r}; give a file that ends in {', '.join(CLOUD_SUFFIXES)}")
        if self.suffix == ".bin" and self.columns is None:
            raise ValueError('a .bin file needs the names of its columns; add "columns": ["x", "y", "z", ...]')
        if self.columns is not None and self.suffix not in NAMED_COLUMNS:
            raise ValueError(f"a {self.suffix} file names its columns itself; remove `columns`")
        if self.dtype != "float32" and self.suffix != ".bin":
            raise ValueError(f"a {self.suffix} file has its own types; remove `dtype`")
        if self.columns is not None and not {"x", "y", "z"} <= set(self.columns):
            raise ValueError("columns x, y and z are needed; name the numbers of a point in their order")
        if self.columns is not None and len(set(self.columns)) != len(self.columns):
            raise ValueError("a column is named twice; give each column its own name")
        if self.columns is not None and "intensity" in self.columns and self.intensity_max is None:
            raise ValueError('say which intensity stands for 1; add "intensity_max": 255, or 1 if it is 0..1 already')
        return self


class DistortionEntry(Entry):
    """A lens, as OpenCV calibrates it."""

    model: Literal["pinhole", "fisheye"]
    coefficients: tuple[float, ...]
    """pinhole: 4, 5, 8, 12 or 14 numbers (k1, k2, p1, p2, k3, ...); fisheye: k1 to k4"""

    @model_validator(mode="after")
    def _coefficients_fit(self) -> Self:
        check_distortion(self.lens)
        return self

    @property
    def lens(self) -> Distortion:
        """The lens for projections."""
        return Distortion(self.model, self.coefficients)


class DepthEntry(Entry):
    """A depth picture of the same moment: 16 bits, one channel, 0 for no depth."""

    path: RelativePath
    intrinsics: Intrinsics | None = None
    """in pixels of the depth picture; without them, those of the image"""
    metres_per_unit: float = Field(0.001, gt=0)


class ImageEntry(Entry):
    """A picture of a camera, with its calibration."""

    camera: FileName
    path: RelativePath
    width: int = Field(ge=1, le=2**15)
    height: int = Field(ge=1, le=2**15)
    intrinsics: Intrinsics | None = None
    """in pixels of the picture; pixel centres are at whole numbers; needed if the sample has a cloud"""
    distortion: DistortionEntry | None = None
    cam_from_cloud: Rigid | None = None
    """from the frame of the cloud to that of the camera (x right, y down, z ahead), in metres"""
    world_from_cam: Rigid | None = None
    """instead of cam_from_cloud; the sample then gives world_from_cloud"""
    truth: RelativePath | None = None
    """picture of class ids, one channel; 255 is no class"""
    segments: RelativePath | None = None
    """picture of segment ids, one channel"""
    depth: DepthEntry | None = None


class SampleEntry(Entry):
    """A line: one sample. Samples of a scene are in the order of time."""

    id: FileName
    """unique in the list"""
    scene: FileName
    split: FileName | None = None
    cloud: CloudEntry | None = None
    images: tuple[ImageEntry, ...] = Field(min_length=1)
    world_from_cloud: Rigid | None = None
    """pose of the cloud in a frame that the samples of a scene share, in metres"""
    point_truth: RelativePath | None = None
    """class ids of the points, 255 for none: `.npy`, `.bin` (one byte a point) or `.label` (the low 16 of 32 bits)"""

    @model_validator(mode="after")
    def _calibration_is_there(self) -> Self:
        if twice := {i.camera for i in self.images if [e.camera for e in self.images].count(i.camera) > 1}:
            raise ValueError(f"two images of camera {min(twice)!r}; give each image of a sample its own camera")
        if self.point_truth is not None:
            if self.cloud is None:
                raise ValueError("point_truth without a cloud; add the cloud, or remove point_truth")
            if PurePosixPath(self.point_truth).suffix.lower() not in TRUTH_SUFFIXES:
                raise ValueError(f"point_truth {self.point_truth!r} must end in {', '.join(TRUTH_SUFFIXES)}")
        for image in self.images if self.cloud else ():
            name = f"camera {image.camera!r}"
            if image.intrinsics is None:
                raise ValueError(f"{name} has no intrinsics, which a sample with a cloud needs; add them")
            if (image.cam_from_cloud is None) == (image.world_from_cam is None):
                raise ValueError(f"{name} needs either cam_from_cloud or world_from_cam; give one of them")
            if image.world_from_cam is not None and self.world_from_cloud is None:
                raise ValueError(f"{name} has world_from_cam, which needs a pose; add world_from_cloud to the sample")
        return self


class Header(Entry):
    """The first line, if the files beside the list have other names."""

    taxonomy: RelativePath = "taxonomy.json"
    prompts: RelativePath = "prompts.yaml"


def read_header(file: Path) -> Header:
    """Return the header of a list, or the default one if the first line is a sample.

    Raises:
        DatasetError: if it is malformed.
        SourceError: if the file cannot be read.
    """
    for number, line in _lines(file):
        return _parse(Header, file, number, line) if _is_header(line) else Header()
    return Header()


def read_samples(file: Path) -> Iterator[tuple[int, SampleEntry]]:
    """Yield the number of each line of a list that is a sample, and the sample.

    Raises:
        DatasetError: naming the line, the field, the value and the fix.
        SourceError: if the file cannot be read.
    """
    first_line: dict[str, int] = {}
    for index, (number, line) in enumerate(_lines(file)):
        if index == 0 and _is_header(line):
            continue
        entry = _parse(SampleEntry, file, number, line)
        if (earlier := first_line.setdefault(entry.id, number)) != number:
            raise DatasetError(
                f"{file} line {number}: id = {entry.id!r}: line {earlier} has it too; give each its own id"
            )
        yield number, entry


def json_schema() -> str:
    """Return the JSON schema of a line."""
    schema = TypeAdapter(SampleEntry | Header).json_schema()
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbers and texts of the lines that are not blank."""
    try:
        with file.open(encoding="utf-8-sig") as opened:
            for number, line in enumerate(opened, 1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{file}: not UTF-8 text ({error.reason}); save it as UTF-8, one JSON object a line"
        ) from None
    except OSError as error:
        raise unreadable(file, error) from None


def _is_header(line: str) -> bool:
    """Tell whether a line is an object with a field of the header; what is not JSON is left to the samples' parser."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and not Header.model_fields.keys().isdisjoint(found)


def _parse(model: type[E], file: Path, number: int, line: str) -> E:
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        raise DatasetError(f"{file} line {number}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """Return the first thing that is wrong: its field, its value, why, and the fix."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(map(str, problem["loc"])) or "the line"
    if problem["type"] == "json_invalid":
        return f"{problem['msg']}; write one JSON object in one line"
    if problem["type"] == "missing":
        return f"{field} is missing; add it"
    value = json.dumps(problem["input"], default=str)
    quoted = value if len(value) <= QUOTED_CHARACTERS else value[:QUOTED_CHARACTERS] + "..."
    if problem["type"] == "extra_forbidden":
        return f"{field} = {quoted}: no such field; remove it, or correct its name ({GUIDE} lists all)"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{field} = {quoted}: {message[0].lower()}{message[1:]}" + ("" if ";" in message else "; correct the line")
