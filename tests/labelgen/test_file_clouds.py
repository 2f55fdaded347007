"""Clouds of one's own: every format gives the same cloud, and files that are damaged or implausible are one error."""

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import laspy
import numpy as np
import pytest
from pypcd4.pypcd4 import Encoding, PointCloud

from labelgen.datasets.files.adapter import Files
from labelgen.errors import SampleError
from labelgen.samples import Cloud
from tests.labelgen.make_clouds import (
    COLOURS,
    NAMES,
    POINTS,
    save_bin,
    save_las,
    save_named_npy,
    save_npy,
    save_pcd,
    save_ply,
)
from tests.labelgen.make_files import Line, make_files, write_list

Refused = Callable[..., AbstractContextManager[None]]


def cloud_in(folder: Path, **cloud: object) -> Cloud:
    """Return the cloud that the adapter reads for a line with this `cloud`."""
    lines = make_files(folder, 1)
    lines[0]["cloud"] = cloud
    write_list(folder, lines)
    return Files(folder).read_cloud(Files(folder).scenes("all", None)[0].samples[0])


@pytest.mark.parametrize(
    "name, save, has_colour",
    [
        ("cloud.bin", save_bin, False),
        ("cloud.npy", save_npy, False),
        ("named.npy", save_named_npy, False),
        *((f"{way.value}.pcd", lambda file, way=way: save_pcd(file, way), False) for way in list(Encoding)[:3]),
        *(
            (f"{way}.PLY", lambda file, way=way: save_ply(file, way), True)
            for way in ("ascii", "binary_little_endian", "binary_big_endian")
        ),
        ("cloud.las", save_las, True),
        ("cloud.laz", save_las, True),
    ],
)
def test_all_formats_give_the_same_cloud(tmp_path: Path, name: str, save: Callable, has_colour: bool) -> None:
    extra = save(tmp_path / name)
    found = cloud_in(tmp_path, path=name, intensity_max=255, **extra)
    assert found.xyz.dtype == np.float32 and found.intensity is not None
    np.testing.assert_allclose(found.xyz, POINTS[:, :3], atol=6e-6)
    np.testing.assert_allclose(found.intensity, POINTS[:, 3] / 255, atol=1e-6)
    if has_colour:
        assert found.colour is not None and found.colour.dtype == np.uint8
        np.testing.assert_array_equal(found.colour, COLOURS)
    else:
        assert found.colour is None


def test_packed_colours_of_pcd_files_are_read(tmp_path: Path) -> None:
    packed = PointCloud.encode_rgb(COLOURS)
    PointCloud.from_xyzrgb_points(np.column_stack([POINTS[:, :3], packed]).astype(np.float32)).save(tmp_path / "c.pcd")
    found = cloud_in(tmp_path, path="c.pcd")
    np.testing.assert_array_equal(found.colour, COLOURS)
    assert found.intensity is None


def test_without_a_scale_intensity_is_not_read(tmp_path: Path) -> None:
    save_pcd(tmp_path / "c.pcd", Encoding.BINARY)
    assert cloud_in(tmp_path, path="c.pcd").intensity is None


@pytest.mark.parametrize("name, save", [("c.pcd", lambda f: save_pcd(f, Encoding.BINARY_COMPRESSED)),
                                        ("d.pcd", lambda f: save_pcd(f, Encoding.BINARY)),
                                        ("e.pcd", lambda f: save_pcd(f, Encoding.ASCII)),
                                        ("c.las", save_las), ("c.laz", save_las),
                                        ("c.npy", save_npy), ("c.bin", save_bin),
                                        ("a.ply", lambda f: save_ply(f, "ascii")),
                                        ("b.ply", lambda f: save_ply(f, "binary_little_endian"))])  # fmt: skip
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_a_cloud_that_is_cut_short_is_one_error(
    tmp_path: Path, refused: Refused, name: str, save: Callable, share: float
) -> None:
    extra = save(tmp_path / name)
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: int(len(raw) * share) // 8 * 8 + bool(share)])
    with refused(SampleError, tmp_path / name):
        cloud_in(tmp_path, path=name, **extra | ({"intensity_max": 255} if "columns" in extra else {}))


@pytest.mark.parametrize(
    "row, extra, parts",
    [
        ([np.nan, 0, 0, 0], {}, ["point 1", "nan", "is not finite; remove such points", "1 of 2"]),
        ([5e5, 4e6, 0, 0], {}, ["point 1", "over 100 km away"]),
        ([1, 2, 3, 300], {}, ["point 1 (300.0)", "no intensity from 0 to 255", "largest is 300", "intensity_max"]),
        ([1, 2, 3, -4], {}, ["point 1 (-4.0)", "no intensity from 0 to 255"]),
    ],
)
def test_numbers_that_no_cloud_has_are_quoted(
    tmp_path: Path, refused: Refused, row: list[float], extra: Line, parts: list[str]
) -> None:
    np.array([[1, 2, 3, 4], row], "<f4").tofile(tmp_path / "c.bin")
    with refused(SampleError, tmp_path / "c.bin", *parts):
        cloud_in(tmp_path, path="c.bin", columns=NAMES, intensity_max=255, **extra)


def test_a_pickle_in_an_array_file_is_not_loaded(tmp_path: Path, refused: Refused) -> None:
    np.save(tmp_path / "c.npy", np.array([[print, 1, 2]], object), allow_pickle=True)
    with refused(SampleError, tmp_path / "c.npy", "Python objects"):
        cloud_in(tmp_path, path="c.npy", columns=["x", "y", "z"])


@pytest.mark.parametrize("column", ["a list before", "no vertices", "another format"])
def test_ply_files_that_cannot_be_read_say_why(tmp_path: Path, refused: Refused, column: str) -> None:
    save_ply(tmp_path / "c.ply", "ascii")
    text = (tmp_path / "c.ply").read_text()
    old, new, why = {
        "a list before": ("property int number", "property list uchar int number", "list property"),
        "no vertices": ("element vertex", "element corner", "declares no vertices"),
        "another format": ("format ascii", "format morse", "'morse'"),
    }[column]
    (tmp_path / "c.ply").write_text(text.replace(old, new))
    with refused(SampleError, tmp_path / "c.ply", why):
        cloud_in(tmp_path, path="c.ply")


@pytest.mark.parametrize(
    "values",
    [np.ones((3, 4), complex), np.zeros((3, 4), "S1"), np.zeros((3, 4), "M8[s]"), np.zeros((3, 4), bool)],
    ids=["complex", "text", "dates", "bool"],
)
def test_columns_that_hold_no_numbers_are_one_error(tmp_path: Path, refused: Refused, values: np.ndarray) -> None:
    np.save(tmp_path / "c.npy", values)
    with refused(SampleError, tmp_path / "c.npy", f"x holds {values.dtype}", "not numbers"):
        cloud_in(tmp_path, path="c.npy", columns=NAMES, intensity_max=255)


def test_a_column_of_several_numbers_a_point_is_none(tmp_path: Path, refused: Refused) -> None:
    np.save(tmp_path / "c.npy", np.zeros(3, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("intensity", "f4", (2,))]))
    with refused(SampleError, tmp_path / "c.npy", "has no intensity"):
        cloud_in(tmp_path, path="c.npy", intensity_max=255)


def test_a_pcd_header_that_claims_many_numbers_a_point_is_refused_at_once(tmp_path: Path, refused: Refused) -> None:
    save_pcd(tmp_path / "c.pcd", Encoding.BINARY)
    raw = (tmp_path / "c.pcd").read_bytes()
    (tmp_path / "c.pcd").write_bytes(raw.replace(b"COUNT 1 1 1 1", b"count 1 1 1 100000"))
    with refused(SampleError, tmp_path / "c.pcd", "100,003 numbers a point"):
        cloud_in(tmp_path, path="c.pcd")


def _claimed(raw: bytearray, what: str) -> None:
    """Let a LAS or LAZ file claim two million records or chunks."""
    table = struct.unpack_from("<q", raw, struct.unpack_from("<I", raw, 96)[0])[0]
    offset = {"variable length records": 100, "extended variable length records": 243, "chunks": table + 4}[what]
    struct.pack_into("<I", raw, offset, 2_000_000)


@pytest.mark.parametrize(
    "name, what",
    [
        ("c.las", "variable length records"),
        ("c.las", "extended variable length records"),
        ("c.laz", "chunks"),
    ],
)
def test_las_headers_that_claim_more_than_the_file_can_hold_are_refused_at_once(
    tmp_path: Path, refused: Refused, name: str, what: str
) -> None:
    cloud = laspy.create(point_format=6, file_version="1.4")
    cloud.x, cloud.y, cloud.z = POINTS[:, :3].T.astype(np.float64)
    cloud.write(str(tmp_path / name))
    raw = bytearray((tmp_path / name).read_bytes())
    _claimed(raw, what)
    (tmp_path / name).write_bytes(raw)
    with refused(SampleError, tmp_path / name, f"it claims 2,000,000 {what}"):
        cloud_in(tmp_path, path=name)
