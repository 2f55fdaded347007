"""Reading the official nuScenes JSON tables.

The tables of v1.0-trainval have 2.6 million rows of sample_data and as many of ego_pose. Only rows of keyframes, and
those of sweeps if they are asked for, are decoded, and of them only the fields declared here.
"""

import gc
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from labelgen.errors import DatasetError
from labelgen.samples import unreadable

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

MAX_TABLE_BYTES = 2**33
"""No table is larger; the largest that is read, of v1.0-trainval, has 1.3 GB."""


class SceneRow(msgspec.Struct, gc=False):
    """A row of scene.json."""

    token: str
    name: str


class SampleRow(msgspec.Struct, gc=False):
    """A row of sample.json; timestamps are in microseconds."""

    token: str
    timestamp: int
    scene_token: str


class SampleDataRow(msgspec.Struct, gc=False):
    """A row of sample_data.json: one sensor reading; `prev` is the token of the same sensor's reading before it."""

    token: str
    sample_token: str
    ego_pose_token: str
    calibrated_sensor_token: str
    filename: str
    is_key_frame: bool
    width: int = 0
    height: int = 0
    timestamp: int = 0
    prev: str = ""


class EgoPoseRow(msgspec.Struct, gc=False):
    """A row of ego_pose.json: ego -> global, quaternion in w, x, y, z order, metres."""

    token: str
    rotation: list[float]
    translation: list[float]


class CalibratedSensorRow(msgspec.Struct, gc=False):
    """A row of calibrated_sensor.json: sensor -> ego, and the camera matrix (empty for lidars)."""

    token: str
    sensor_token: str
    rotation: list[float]
    translation: list[float]
    camera_intrinsic: list[list[float]] = []


class SensorRow(msgspec.Struct, gc=False):
    """A row of sensor.json."""

    token: str
    channel: str


class LidarsegRow(msgspec.Struct, gc=False):
    """A row of lidarseg.json: the file with one class index a point."""

    sample_data_token: str
    filename: str


class CategoryRow(msgspec.Struct, gc=False):
    """A row of category.json; `index` is set if lidarseg is installed."""

    name: str
    index: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None


class _KeyframeMark(msgspec.Struct, gc=False):
    is_key_frame: bool


class _Token(msgspec.Struct, gc=False):
    token: str


class _SensorMark(msgspec.Struct, gc=False):
    calibrated_sensor_token: str


Row = TypeVar("Row", bound=msgspec.Struct)
Mark = TypeVar("Mark", bound=msgspec.Struct)


def read_table(folder: Path, name: str, row: type[Row]) -> list[Row]:
    """Return the rows of `<folder>/<name>.json`.

    Raises:
        DatasetError: if the table is missing, truncated, or lacks a field.
        SourceError: if it cannot be read.
    """
    path = folder / f"{name}.json"
    with _decoding(path):
        return msgspec.json.decode(_content(path), type=list[row])  # type: ignore[valid-type]


def read_keyframe_data(folder: Path) -> list[SampleDataRow]:
    """Return the keyframe rows of sample_data.json, about one in six of the table.

    Raises:
        DatasetError: as `read_table`.
    """
    return _read_rows_where(folder, "sample_data", SampleDataRow, _KeyframeMark, lambda mark: mark.is_key_frame)


def read_sensor_data(folder: Path, calibrated_sensors: set[str]) -> list[SampleDataRow]:
    """Return all rows of sample_data.json of the given calibrated sensors, sweeps included.

    Raises:
        DatasetError: as `read_table`.
    """
    return _read_rows_where(
        folder,
        "sample_data",
        SampleDataRow,
        _SensorMark,
        lambda mark: mark.calibrated_sensor_token in calibrated_sensors,
    )


def read_ego_poses(folder: Path, tokens: set[str]) -> dict[str, EgoPoseRow]:
    """Return the ego poses with the given tokens, by token; missing ones are left out.

    Raises:
        DatasetError: as `read_table`.
    """
    rows = _read_rows_where(folder, "ego_pose", EgoPoseRow, _Token, lambda mark: mark.token in tokens)
    return {row.token: row for row in rows}


def _read_rows_where(
    folder: Path, name: str, row: type[Row], mark: type[Mark], wanted: Callable[[Mark], bool]
) -> list[Row]:
    """Decode only the rows for which `wanted` is true of their `mark` fields.

    One pass decodes the mark fields, a second one finds the bytes of each row, then the wanted rows are decoded. On the
    full tables this is four times as fast as decoding all rows.
    """
    path = folder / f"{name}.json"
    decoder = msgspec.json.Decoder(row)
    with _decoding(path):
        buffer = _content(path)
        marks = msgspec.json.decode(buffer, type=list[mark])  # type: ignore[valid-type]
        raw_rows = msgspec.json.decode(buffer, type=list[msgspec.Raw])
        return [decoder.decode(raw) for raw, found in zip(raw_rows, marks, strict=True) if wanted(found)]


def _content(path: Path) -> bytes:
    """Return the content of a file, without a byte order mark, which some editors write.

    The file is not mapped into memory: an error of the disk under a map kills the process without a message.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_TABLE_BYTES:
        raise DatasetError(
            f"{path}: not a regular file, or larger than {MAX_TABLE_BYTES:,} bytes (it has {found.st_size:,}); "
            "extract it again from the nuScenes archive"
        )
    return path.read_bytes().removeprefix(BYTE_ORDER_MARK)


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn decoding errors into DatasetError; pause garbage collection, which would scan millions of rows in use."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    except FileNotFoundError:
        raise DatasetError(
            f"{path}: the table is missing; a version folder needs all tables of its archive, copy it again"
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(
            f"{path}: {error}; the table is damaged or incomplete, extract it again from its archive"
        ) from None
    finally:
        if was_enabled:
            gc.enable()
