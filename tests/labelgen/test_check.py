"""`labelgen check` and the guide: counts, missing files, suspicious calibrations, the picture, exit codes."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pypcd4.pypcd4 import Encoding

from labelgen.cli import main
from labelgen.datasets.files.adapter import Files
from labelgen.datasets.files.sheet import draw_sheet
from labelgen.geometry import Pairs, pair_points
from tests.labelgen.make_clouds import POINTS, save_pcd
from tests.labelgen.make_files import FRONT_FROM_CLOUD, Change, Line, make_files, put, write_list

ROOT = Path(__file__).parents[2]
INVERTED = np.linalg.inv(FRONT_FROM_CLOUD).tolist()


@pytest.fixture
def lines(tmp_path: Path) -> list[Line]:
    """The lines of a data set in `tmp_path`, which the test may change."""
    return make_files(tmp_path)


def check(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["check", *map(str, words)])
    return done.exit_code, done.output


def test_check_counts_and_draws(tmp_path: Path, lines: list[Line]) -> None:
    code, said = check(tmp_path, "--picture", tmp_path / "check.png")
    assert code == 0, said
    assert "4 samples, 2 scenes" in said and "3 classes" in said and "all 24 files are there" in said
    assert "scene scene-1: 2 samples, 2 clouds; images of front 2, left 2" in said
    assert "warning" not in said
    points, camera = street_points(tmp_path, lines), Files(tmp_path).scenes("all", None)[0].samples[0].cameras[0]
    pairs = pair_points(points, [camera], (64, 112), 0.5)
    assert f"front {len(pairs.point):,}" in said
    drawn = np.asarray(Image.open(tmp_path / "check.png"))
    assert drawn.shape == (2 * 571, 1000, 3)
    # The car at 11.7 m hides parts of the wall at 29.7 m, whose points are the farthest and so blue.
    blue = (drawn[:571] == (40, 40, 220)).all(axis=-1)
    wall = np.flatnonzero(points[pairs.point, 0] == 30)
    rows = ((pairs.row[wall] + 0.5) * 571 / 64 - 0.5).astype(int)
    cols = ((pairs.col[wall] + 0.5) * 1000 / 112 - 0.5).astype(int)
    assert blue[rows, cols].mean() > 0.8


def street_points(folder: Path, lines: list[Line]) -> np.ndarray:
    return np.fromfile(folder / lines[0]["cloud"]["path"], "<f4").reshape(-1, 4)[:, :3]


def test_check_lists_missing_files_and_bad_samples(tmp_path: Path, lines: list[Line]) -> None:
    (tmp_path / "clouds/3.bin").unlink()
    code, said = check(tmp_path, "--picture", tmp_path / "check.png")
    assert code == 1 and "1 of 24 files are missing" in said and "clouds/3.bin" in said
    (tmp_path / "clouds/0.bin").write_bytes(b"12345")
    code, said = check(tmp_path, "--picture", tmp_path / "check.png")
    assert code == 1 and "5 bytes are not a multiple of 4 float32 numbers" in said
    (tmp_path / "prompts.yaml").write_text("templates: ['{}']\nclasses: {road: [road]}\n")
    assert "lacks wall, car" in check(tmp_path, "--picture", tmp_path / "check.png")[1]


@pytest.mark.parametrize(
    "change, parts",
    [
        (put(INVERTED, "images", 0, "cam_from_cloud"), ["inverse would see", "invert it"]),
        (put([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, -900], [0, 0, 0, 1]], "images", 0, "cam_from_cloud"),
         ["camera front: no point", "x right, y down, z ahead"]),
        (put([[0.0, -1, 0, 0], [0, 0, -1.01, 0], [1, 0, 0, 0], [0, 0, 0, 1]], "images", 0, "cam_from_cloud"),
         ["camera front: the rotation", "off by 0.02", "more digits"]),
        (put(65535, "cloud", "intensity_max"), ["largest intensity", "65535"]),
    ],
)  # fmt: skip
def test_check_warns_about_what_is_possible_but_suspicious(
    tmp_path: Path, lines: list[Line], change: Change, parts: list[str]
) -> None:
    change(lines[0])
    write_list(tmp_path, lines)
    code, said = check(tmp_path, "--picture", tmp_path / "check.png")
    assert code == 0
    assert [part for part in ("warning: ", *parts) if part not in said] == [], said


def test_check_says_that_no_point_lies_anywhere_and_that_intensity_is_not_read(
    tmp_path: Path, lines: list[Line]
) -> None:
    save_pcd(tmp_path / "c.pcd", Encoding.BINARY)
    lines[0]["cloud"] = {"path": "c.pcd"}
    for image in lines[0]["images"]:
        image["cam_from_cloud"][2][3] = -900.0
    write_list(tmp_path, lines)
    code, said = check(tmp_path, "--picture", tmp_path / "check.png")
    assert code == 0 and "no point lies in any image" in said
    largest = f"{POINTS[:, 3].max():g}"
    assert f"c.pcd: its intensity (up to {largest}) is not read; to use it, add intensity_max" in said


def test_check_prints_the_start_and_the_end_of_long_lines(tmp_path: Path, lines: list[Line]) -> None:
    for line in lines[:2]:
        line["scene"] = "s" * 50_000
    write_list(tmp_path, lines)
    _, said = check(tmp_path, "--picture", tmp_path / "check.png")
    longest = max(said.splitlines(), key=len)
    assert len(longest) <= 600 and longest.startswith("scene sss") and "sss: 2 samples, 2 clouds" in longest


def test_the_drawing_of_a_high_narrow_picture_is_bounded() -> None:
    none, depth_m = np.zeros(1, np.uint16), np.array([5.0], np.float32)
    pixel = Pairs(none.astype(np.int32), none, np.array([32767], np.uint16), none, depth_m)
    drawn = draw_sheet(np.full((32768, 1, 3), 9, np.uint8), pixel, depth_m.astype(np.float64))
    assert drawn.shape == (4000, 1000, 3)
    assert drawn[0, 0].tolist() == [9, 9, 9] != drawn[-1, 0].tolist() and not drawn[:, 1:].any()


def test_check_reads_pictures_without_a_cloud(tmp_path: Path, lines: list[Line]) -> None:
    del lines[0]["cloud"], lines[0]["point_truth"]
    write_list(tmp_path, lines)
    code, said = check(tmp_path, "--picture", tmp_path / "check.png")
    assert code == 0 and "2 images, no cloud" in said
    assert not (tmp_path / "check.png").exists()


def test_wrong_usage_and_a_list_that_is_malformed_have_their_exit_codes(tmp_path: Path, lines: list[Line]) -> None:
    assert check()[0] == 2
    (tmp_path / "samples.jsonl").write_text("{}\n")
    code, said = check(tmp_path)
    assert code == 1 and "line 1: " in said
    write_list(tmp_path, lines)
    code, said = check(tmp_path, "--picture", tmp_path)
    assert code == 1 and "cannot be written" in said


# The guide


def test_the_guide_can_be_followed_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/guides/your-own-data.md").read_text()
    files = dict(re.findall(r"`([\w./]+)`:\n\n```\w+\n(.*?)```", text, re.DOTALL))
    listed = files.pop("mine/samples.jsonl")
    assert set(files) == {"make_some.py", "list_samples.py", "mine/taxonomy.json", "mine/prompts.yaml"}
    (tmp_path / "mine").mkdir()
    for name, body in files.items():
        (tmp_path / name).write_text(body)
    for script in ("make_some.py", "list_samples.py"):
        subprocess.run([sys.executable, script], cwd=tmp_path, check=True)
    assert (tmp_path / "mine/samples.jsonl").read_text() == listed
    monkeypatch.chdir(tmp_path)
    code, said = check("mine")
    assert code == 0 and "warning" not in said and "6,500 points" in said
