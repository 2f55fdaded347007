"""The rows of the nuImages tables that differ from those of nuScenes, and reading all that an adapter needs."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from labelgen.datasets.nuscenes.tables import (
    SampleDataRow,
    SensorRow,
    read_keyframe_data,
    read_table,
)


class SampleRow(msgspec.Struct, gc=False):
    """A row of sample.json; `key_camera_token` is the one annotated picture, timestamps are in microseconds."""

    token: str
    timestamp: int
    log_token: str
    key_camera_token: str


class LogRow(msgspec.Struct, gc=False):
    """A row of log.json; `logfile` is the name of the log."""

    token: str
    logfile: str


class CategoryRow(msgspec.Struct, gc=False):
    """A row of category.json."""

    token: str
    name: str


class CalibratedSensorRow(msgspec.Struct, gc=False):
    """A row of calibrated_sensor.json: camera -> ego, the camera matrix, and 5 or 6 distortion coefficients."""

    token: str
    sensor_token: str
    rotation: list[float]
    translation: list[float]
    camera_intrinsic: list[list[float]]
    camera_distortion: list[float] = []


class MaskField(msgspec.Struct, gc=False):
    """A mask: `size` is height and width, `counts` the base64 of COCO run lengths."""

    size: list[int]
    counts: str


class AnnotationRow(msgspec.Struct, gc=False):
    """A row of object_ann.json or surface_ann.json; without a mask it says nothing about pixels."""

    token: str
    sample_data_token: str
    category_token: str
    mask: MaskField | None = None


@dataclass(frozen=True)
class Tables:
    """The tables of a split; `annotations` has the masks of each picture in drawing order, by sample_data token."""

    samples: list[SampleRow]
    logs: dict[str, str]
    pictures: dict[str, SampleDataRow]
    channels: dict[str, str]
    sensors: dict[str, CalibratedSensorRow]
    categories: dict[str, str]
    annotations: dict[str, list[AnnotationRow]]


def read_tables(folder: Path) -> Tables:
    """Read the tables of a version folder; of sample_data only key frames.

    Drawing order is that of the official `NuImages.get_segmentation`: all surfaces in the order of their table, then
    the objects sorted by token.

    Raises:
        DatasetError, SourceError: as `read_table`.
    """
    surfaces = read_table(folder, "surface_ann", AnnotationRow)
    objects = sorted(read_table(folder, "object_ann", AnnotationRow), key=lambda row: row.token)
    annotations: dict[str, list[AnnotationRow]] = {}
    for row in (*surfaces, *objects):
        if row.mask is not None:
            annotations.setdefault(row.sample_data_token, []).append(row)
    return Tables(
        samples=read_table(folder, "sample", SampleRow),
        logs={row.token: row.logfile for row in read_table(folder, "log", LogRow)},
        pictures={row.token: row for row in read_keyframe_data(folder)},
        channels={row.token: row.channel for row in read_table(folder, "sensor", SensorRow)},
        sensors={row.token: row for row in read_table(folder, "calibrated_sensor", CalibratedSensorRow)},
        categories={row.token: row.name for row in read_table(folder, "category", CategoryRow)},
        annotations=annotations,
    )
