"""Exports hold the labels of the cache in each format, and leave the user's files alone."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_schemas.documents import QuarantinedSample
from cache_schemas.errors import LabelFileError
from cache_schemas.group_path import GroupPath
from cache_schemas.label_files.formats import POINT_FORMATS, point_format
from cache_schemas.label_files.output_folder import WRITTEN, OutputFolder
from cache_schemas.label_files.point_format import CloudCalibration, CloudName
from cache_schemas.store import Cache
from cache_schemas.taxonomy import Taxonomy, TaxonomyClass, load_taxonomy
from labelgen.export.cli import FORMAT_NAMES, POINT_FORMAT_NAMES
from labelgen.export.labels_out import FORMATS
from tests.made_labels import CAM_FROM_CLOUD, read_points

RAW_IDS = [10, 11, 15, 18, 20, 30, 31, 32, 40, 44, 48, 49, 50, 51, 70, 71, 72, 80, 81]
"""SemanticKITTI's raw id of each of its classes 1 to 19, from the data set's own inverse map."""

NYU40 = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39]
"""The nyu40 id of each of ScanNet's 20 classes."""


def test_the_command_knows_the_formats() -> None:
    assert sorted(FORMAT_NAMES) == sorted(FORMATS) and set(POINT_FORMAT_NAMES) == set(POINT_FORMATS)


@pytest.mark.parametrize("labels, array", [("refined", "point"), ("raw", "point_raw")])
def test_nuscenes_lidarseg(nuscenes: str, command, tmp_path: Path, labels: str, array: str) -> None:
    out = tmp_path / "out"
    done = command("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", out, "--labels", labels, "--json")
    for token, cached in read_points(nuscenes, "labels", array).items():
        written = np.fromfile(out / f"lidarseg/val/{token}_lidarseg.bin", np.uint8)
        assert written.tolist() == [0 if label == 255 else label + 1 for label in cached.tolist()]
    meta = json.loads((out / "val/submission.json").read_text())["meta"]
    assert set(meta) == {"use_camera", "use_lidar", "use_radar", "use_map", "use_external"}
    found = json.loads(done.stdout)
    assert (found["samples"], found["shards"], found["files"]) == (3, 2, 4)
    assert found["labelled"] + found["unlabelled"] == 1200 and found["unlabelled"] > 0


def test_semantickitti(semantickitti: str, command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command("export", semantickitti, "--format", "semantickitti", "--out", out)
    sequence = out / "sequences/08"
    for token, cached in read_points(semantickitti, "labels", "point").items():
        written = np.fromfile(sequence / f"predictions/{token[-6:]}.label", "<u4")
        assert written.tolist() == [0 if label == 255 else RAW_IDS[label] for label in cached.tolist()]
    lines = dict(line.split(": ") for line in (sequence / "calib.txt").read_text().splitlines())
    assert np.array(lines["Tr"].split(), float).tolist() == CAM_FROM_CLOUD[:3].ravel().tolist()
    assert [float(value) for value in lines["P2"].split()] == [700.25, 0, 6.5, 0, 0, 701.5, 4.25, 0, 0, 0, 1, 0]
    assert not (sequence / "poses.txt").exists(), "the cache has no poses"


def test_poses_of_a_sequence_give_those_of_its_clouds() -> None:
    angle = np.linspace(0, 1, 3)
    world = np.tile(np.eye(4), (3, 1, 1))
    world[:, 0, 0] = world[:, 1, 1] = np.cos(angle)
    world[:, 1, 0], world[:, 0, 1] = np.sin(angle), -np.sin(angle)
    world[:, :3, 3] = [[0, 0, 0], [1000.5, -20.25, 3], [2000, 0, 1e-7]]
    names = [CloudName("val", "08", f"08_{frame:06d}") for frame in range(3)]
    clouds = [CloudCalibration(n, w, CAM_FROM_CLOUD, np.eye(3)) for n, w in zip(names, world, strict=True)]
    kitti = point_format("semantickitti", load_taxonomy("semantickitti19"))
    files = {steps[-1]: content.decode() for steps, content in kitti.files_of_scene(clouds[::-1])}
    tr = np.eye(4)
    tr[:3] = np.array(files["calib.txt"].splitlines()[-1].split()[1:], float).reshape(3, 4)
    for line, expected in zip(files["poses.txt"].splitlines(), world, strict=True):
        pose = np.eye(4)
        pose[:3] = np.array(line.split(), float).reshape(3, 4)
        np.testing.assert_allclose(np.linalg.inv(tr) @ pose @ tr, expected, atol=1e-9)
    gap = [clouds[0], clouds[2]]
    assert [steps[-1] for steps, _ in kitti.files_of_scene(gap)] == ["calib.txt"], "line 1 would be of frame 2"


def test_scannet(scannet: str, command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command("export", scannet, "--format", "scannet", "--out", out)
    for scan, cached in read_points(scannet, "labels", "point").items():
        written = [int(line) for line in (out / f"{scan}.txt").read_text().splitlines()]
        assert written == [0 if label == 255 else NYU40[label] for label in cached.tolist()]


def test_pointcept_takes_any_taxonomy(scannet: str, command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command("export", scannet, "--format", "pointcept", "--out", out)
    points = Cache(scannet).read(GroupPath("scene0000_00-000", "points"))
    read = {name: np.load(out / f"val/scene0000_00/{name}.npy") for name in ("coord", "segment", "strength")}
    np.testing.assert_array_equal(read["coord"], points["xyz"])
    np.testing.assert_array_equal(read["strength"], points["intensity"][:, None])
    cached = read_points(scannet, "labels", "point")["scene0000_00"]
    assert read["segment"].dtype == np.int16
    assert read["segment"].tolist() == [-1 if label == 255 else label for label in cached.tolist()]
    assert not (out / "val/scene0000_00/color.npy").exists()


def test_coco_panoptic(nuscenes: str, command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command("export", nuscenes, "--format", "coco-panoptic", "--out", out)
    document = json.loads((out / "panoptic_val.json").read_text())
    thing = {entry["id"]: entry["isthing"] for entry in document["categories"]}
    assert [entry["name"] for entry in document["categories"]] == list(load_taxonomy("nuscenes16").names)
    assert (thing[1], thing[10], thing[11], thing[16]) == (1, 1, 0, 0), "barrier to truck are things"
    assert len(document["images"]) == len(document["annotations"]) == 3
    key = "scene-0061-000"
    labels, masks = (Cache(nuscenes).read(GroupPath(key, group)) for group in ("labels", "sam"))
    for index, name in enumerate(["scene-0061_a1_front.png", "scene-0061_a2_front.png"]):
        image = next(entry for entry in document["images"] if entry["file_name"] == name)
        (annotation,) = (entry for entry in document["annotations"] if entry["image_id"] == image["id"])
        picture = np.asarray(Image.open(out / "val" / name))
        assert picture.shape == (image["height"], image["width"], 3)
        segments = np.asarray(Image.open(out / "panoptic_val" / annotation["file_name"])).astype(int)
        pixels: dict[int, list[tuple[int, int]]] = {}
        for row, col in np.ndindex(segments.shape[:2]):
            red, green, blue = segments[row, col]
            pixels.setdefault(red + 256 * green + 65536 * blue, []).append((row, col))
        none = {place for place in np.ndindex(labels["image"][index].shape) if labels["image"][index][place] == 255}
        assert set(pixels.pop(0)) == none
        assert set(pixels) == {info["id"] for info in annotation["segments_info"]}
        for info in annotation["segments_info"]:
            places = pixels[info["id"]]
            rows, columns = zip(*places, strict=True)
            assert {labels["image"][index][place] + 1 for place in places} == {info["category_id"]}
            of_masks = {int(masks["mask_ids"][index][place]) for place in places}
            assert not thing[info["category_id"]] or len(of_masks) == 1
            assert info["area"] == len(places)
            width, height = max(columns) - min(columns) + 1, max(rows) - min(rows) + 1
            assert info["bbox"] == [min(columns), min(rows), width, height]
        stuff = [info["category_id"] for info in annotation["segments_info"] if not thing[info["category_id"]]]
        assert len(stuff) == len(set(stuff)), "one segment a class of stuff"


@pytest.mark.parametrize("file_format", ["nuscenes-lidarseg", "pointcept", "coco-panoptic"])
def test_each_shard_is_exported_under_its_own_split(nuscenes: str, command, tmp_path: Path, file_format: str) -> None:
    cache, manifest = Cache.open(nuscenes, "a")
    sources = (*manifest.sources, manifest.sources[0].model_copy(update={"split": "train"}))
    Cache.create(nuscenes, manifest.model_copy(update={"sources": sources}))
    record = cache.shard_records(["scene-0103-000"])["scene-0103-000"]
    cache.write_shard_record("scene-0103-000", record.model_copy(update={"split": "train"}))
    out = tmp_path / "out"
    done = command("export", nuscenes, "--format", file_format, "--out", out, "--json")
    files = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()} - {".labelgen-written"}
    assert json.loads(done.stdout)["files"] == len(files)
    for split, samples in (("val", {"a1", "a2"}), ("train", {"b1"})):
        assert {
            token for token in ("a1", "a2", "b1") for file in files if f"{split}/" in file and token in file
        } == samples
    if file_format == "nuscenes-lidarseg":
        assert {"val/submission.json", "train/submission.json"} <= files
    if file_format == "coco-panoptic":
        images = {
            split: json.loads((out / f"panoptic_{split}.json").read_text())["images"] for split in ("val", "train")
        }
        assert [[image["id"] for image in found] for found in images.values()] == [[1, 2], [1]]


def test_a_format_refuses_a_taxonomy_without_ids(nuscenes: str, command, tmp_path: Path) -> None:
    done = command("export", nuscenes, "--format", "scannet", "--out", tmp_path / "out", exit_code=1)
    assert "scannet has no ids for taxonomy 'nuscenes16', only for 'scannet20'" in done.stderr
    assert "pointcept, coco-panoptic" in done.stderr
    assert not (tmp_path / "out").exists()
    other = Taxonomy(name="scannet20", classes=(TaxonomyClass(name="lamp", colour=(1, 2, 3)),))
    with pytest.raises(LabelFileError, match="scannet has no id for class 'lamp' of 'scannet20'"):
        point_format("scannet", other)


def test_some_shards_alone(nuscenes: str, command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", out, "--shards", "scene-01*")
    assert [file.name for file in (out / "lidarseg/val").iterdir()] == ["b1_lidarseg.bin"]
    done = command(
        "export", nuscenes, "--format", "pointcept", "--out", tmp_path / "none", "--shards", "x*", exit_code=1
    )
    assert "no shard that matches 'x*' has all of the groups" in done.stderr


def test_what_is_left_out_is_counted(nuscenes: str, command, tmp_path: Path) -> None:
    cache = Cache(nuscenes, "a")
    record = cache.shard_records(["scene-0061-000"])["scene-0061-000"]
    bad = QuarantinedSample(sample="a0", stage="points", reason="short", inputs="1")
    cache.write_shard_record("scene-0061-000", record.model_copy(update={"quarantined": (bad,)}))
    cache.remove_group(GroupPath("scene-0103-000", "labels"))
    done = command("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", tmp_path / "out")
    assert "2 samples of 1 shards" in done.stdout
    assert "left out: 1 quarantined samples, 1 unfinished shards" in done.stdout


def test_a_corrected_file_is_not_replaced(nuscenes: str, command, tmp_path: Path) -> None:
    arguments = ("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", tmp_path / "out")
    command(*arguments)
    file = tmp_path / "out/lidarseg/val/a2_lidarseg.bin"
    written = file.read_bytes()
    file.write_bytes(b"\x01" + written[1:])
    corrected = file.read_bytes()
    assert corrected != written
    done = command(*arguments, exit_code=1)
    assert f"{file}: is there already and was not written here, or has been changed since" in done.stderr
    assert file.read_bytes() == corrected
    command(*arguments, "--overwrite")
    assert file.read_bytes() == written


def test_files_of_an_earlier_export_are_replaced_and_those_of_others_kept(
    nuscenes: str, command, tmp_path: Path
) -> None:
    arguments = ("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", tmp_path / "out")
    command(*arguments)
    before = (tmp_path / "out/lidarseg/val/a1_lidarseg.bin").read_bytes()
    command(*arguments, "--labels", "raw")
    assert (tmp_path / "out/lidarseg/val/a1_lidarseg.bin").read_bytes() != before
    mine = tmp_path / "mine/lidarseg/val/a1_lidarseg.bin"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    done = command("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", tmp_path / "mine", exit_code=1)
    assert str(mine) in done.stderr and mine.read_text() == "mine"


def test_a_stop_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = OutputFolder(tmp_path / "out")
    folder.write(["a", "x.bin"], b"old")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        for name, content in (("x.bin", b"new"), ("y.bin", b"new")):
            with pytest.raises(KeyboardInterrupt):
                folder.write(["a", name], content)
    assert (tmp_path / "out/a/x.bin").read_bytes() == b"old"
    assert not (tmp_path / "out/a/y.bin").exists()
    again = OutputFolder(tmp_path / "out")
    again.write(["a", "x.bin"], b"new")
    again.write(["a", "y.bin"], b"new")
    assert sorted(file.name for file in (tmp_path / "out/a").iterdir()) == ["x.bin", "y.bin"]


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", "a\\b", "a\nb"])
def test_names_never_lead_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(LabelFileError, match="which is not a name"):
        OutputFolder(tmp_path / "out").write(["a", name], b"x")
    assert not (tmp_path / "out/a").exists()


def test_files_are_not_written_through_links_below_the_folder(nuscenes: str, command, tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (out / "lidarseg").symlink_to(outside)
    done = command("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", out, exit_code=1)
    assert f"{out / 'lidarseg'}: is a link" in done.stderr and not list(outside.iterdir())
    (out / "lidarseg").unlink()
    (out / WRITTEN).unlink(missing_ok=True)
    (out / WRITTEN).symlink_to(outside / "log")
    done = command("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", out, exit_code=1)
    assert str(out / WRITTEN) in done.stderr and not list(outside.iterdir())


def test_the_folder_itself_may_be_a_link(nuscenes: str, command, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    command("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", tmp_path / "out")
    assert list((tmp_path / "real/lidarseg").rglob("*_lidarseg.bin"))


def test_what_is_there_and_is_no_file_is_not_read(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    (tmp_path / "out/a").mkdir()
    (tmp_path / "out/a/x.bin").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "out/a/y.bin")
    for name in ("x.bin", "y.bin"):
        with pytest.raises(LabelFileError, match="is there already"):
            folder.write(["a", name], b"new")


@pytest.mark.parametrize("place", ["", "shards", "shards/new"])
def test_nothing_is_exported_into_a_cache(nuscenes: str, command, place: str) -> None:
    before = sorted(Path(nuscenes).rglob("*"))
    done = command("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", Path(nuscenes) / place, exit_code=1)
    assert "lies in the cache" in done.stderr and sorted(Path(nuscenes).rglob("*")) == before


def test_a_folder_that_cannot_be_written_is_named(nuscenes: str, command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command("export", nuscenes, "--format", "pointcept", "--out", tmp_path / "file/out", exit_code=1)
    assert f"{tmp_path / 'file'}" in done.stderr and "cannot be written" in done.stderr


def test_clouds_without_official_names_are_refused_before_anything_is_written(
    nuscenes: str, command, tmp_path: Path
) -> None:
    cache = Cache(nuscenes, "a")
    record = cache.shard_records(["scene-0103-000"])["scene-0103-000"]
    cache.write_shard_record("scene-0103-000", record.model_copy(update={"clouds": ()}))
    done = command("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", tmp_path / "out", exit_code=1)
    assert "sample b1 of scene scene-0103: the cache does not have the names of its clouds" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_group_stops_the_export(nuscenes: str, command, tmp_path: Path) -> None:
    shutil.rmtree(Path(nuscenes) / "shards/scene-0103-000/labels/point/c")
    done = command(
        "export", nuscenes, "--format", "pointcept", "--out", tmp_path / "out", "--shards", "scene-01*", exit_code=1
    )
    assert "scene-0103-000" in done.stderr or "no shard that matches" in done.stderr
