"""Imported labels are a source of their own: equal to what was exported, scored against, and never the cache's own."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.audit import audit
from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.problems import ProblemKind
from cache_schemas.store import Cache
from tests.made_labels import read_points, write_label_cache

PAIRS = [
    ("nuscenes16", "nuscenes-lidarseg"),
    ("semantickitti19", "semantickitti"),
    ("scannet20", "scannet"),
    ("nuscenes16", "pointcept"),
]


@pytest.mark.parametrize("taxonomy, file_format", PAIRS)
@pytest.mark.parametrize("labels, array", [("refined", "point"), ("raw", "point_raw")])
def test_an_export_comes_back_equal(
    command, tmp_path: Path, taxonomy: str, file_format: str, labels: str, array: str
) -> None:
    cache = write_label_cache(str(tmp_path / "c.zarr"), taxonomy)
    command("export", cache, "--format", file_format, "--out", tmp_path / "out", "--labels", labels)
    command("import-labels", cache, tmp_path / "out", "--format", file_format, "--name", "back")
    exported, imported = read_points(cache, "labels", array), read_points(cache, "labels.back", "point")
    assert exported.keys() == imported.keys()
    for token in exported:
        np.testing.assert_array_equal(imported[token], exported[token])
    assert "sound" in command("verify", cache).stdout


def test_the_seal_says_where_labels_come_from(nuscenes: str, command, tmp_path: Path) -> None:
    command("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", tmp_path / "out")
    before = read_points(nuscenes, "labels", "point")
    done = command(
        "import-labels", nuscenes, tmp_path / "out", "--format", "nuscenes-lidarseg", "--name", "back", "--json"
    )
    found = json.loads(done.stdout)
    assert (found["clouds"], found["clouds_without_file"], found["points"]) == (3, 0, 1200)
    assert found["equal"] == found["compared"] == found["labelled"]
    seal = Cache(nuscenes).shard_seals("scene-0061-000")
    path = GroupPath("scene-0061-000", "labels.back")
    own = Cache(nuscenes).seals([path])[path]
    assert own.origin is not None
    assert (own.origin.format, own.origin.folder) == ("nuscenes-lidarseg", str(tmp_path / "out"))
    assert own.upstream == {"points": seal["points"].fingerprint} and own.counts == {"clouds": 2}
    after = read_points(nuscenes, "labels", "point")
    assert all(np.array_equal(before[token], after[token]) for token in before)


def test_raw_ids_of_semantickitti_are_read_as_its_table_says(semantickitti: str, command, tmp_path: Path) -> None:
    raw = np.array([252, 10, 60, 255, 259, 13, 16, 0, 1, 52, 99, 300, 81], "<u4")
    expected = [0, 0, 8, 7, 4, 4, 4, 255, 255, 255, 255, 255, 18]
    instances = np.arange(len(raw), dtype="<u4") << 16
    for folder, labels in (("predictions", np.full(400, 10, "<u4")), ("labels", np.resize(raw | instances, 400))):
        place = tmp_path / "out/sequences/08" / folder
        place.mkdir(parents=True)
        labels.astype("<u4").tofile(place / "000000.label")
    done = command("import-labels", semantickitti, tmp_path / "out", "--format", "semantickitti", "--name", "fixed")
    assert "unknown ids, taken as no label: 300" in done.stdout
    assert "1 clouds have no file" in done.stdout
    imported = read_points(semantickitti, "labels.fixed", "point")
    assert imported["08_000000"].tolist() == np.resize(expected, 400).tolist(), "labels/ comes before predictions/"
    assert (imported["08_000001"] == 255).all()


def test_a_file_of_another_length_stores_nothing(nuscenes: str, command, tmp_path: Path) -> None:
    command("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", tmp_path / "out")
    file = tmp_path / "out/lidarseg/val/b1_lidarseg.bin"
    file.write_bytes(file.read_bytes()[:-1])
    done = command(
        "import-labels", nuscenes, tmp_path / "out", "--format", "nuscenes-lidarseg", "--name", "cut", exit_code=1
    )
    assert f"{file}: has labels of 399 points, its cloud has 400" in done.stderr
    assert not list(Path(nuscenes).glob("shards/*/labels.cut"))


@pytest.mark.parametrize(
    "taxonomy, file_format, file, content",
    [
        ("semantickitti19", "semantickitti", "sequences/08/labels/000001.label", b"abc"),
        ("scannet20", "scannet", "scene0000_00.txt", b"1\nwall\n"),
        ("scannet20", "pointcept", "val/scene0000_00/segment.npy", b"\x93NUMPY"),
    ],
)
def test_a_malformed_file_is_named(
    command, tmp_path: Path, taxonomy: str, file_format: str, file: str, content: bytes
) -> None:
    cache = write_label_cache(str(tmp_path / "c.zarr"), taxonomy)
    place = tmp_path / "out" / file
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    done = command("import-labels", cache, tmp_path / "out", "--format", file_format, "--name", "bad", exit_code=1)
    assert f"{place}: not a label file of format {file_format}" in done.stderr


def test_a_folder_without_any_file_says_what_it_should_have(nuscenes: str, command, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = command(
        "import-labels", nuscenes, tmp_path / "out", "--format", "nuscenes-lidarseg", "--name", "x", exit_code=1
    )
    assert f"the first would be {tmp_path / 'out/lidarseg/val/a1_lidarseg.bin'}" in done.stderr


def test_a_source_is_replaced_only_when_that_is_asked_for(nuscenes: str, command, tmp_path: Path) -> None:
    for labels in ("raw", "refined"):
        command("export", nuscenes, "--format", "pointcept", "--out", tmp_path / labels, "--labels", labels)
    arguments = ("--format", "pointcept", "--name", "mine")
    command("import-labels", nuscenes, tmp_path / "raw", *arguments)
    done = command("import-labels", nuscenes, tmp_path / "refined", *arguments, exit_code=1)
    assert "has labels of source 'mine' already" in done.stderr
    command("import-labels", nuscenes, tmp_path / "refined", *arguments, "--overwrite")
    now, cached = read_points(nuscenes, "labels.mine", "point"), read_points(nuscenes, "labels", "point")
    assert all(np.array_equal(now[token], cached[token]) for token in cached)


@pytest.mark.parametrize("name", ["..", "a/b", "", "UP", "a.b"])
def test_a_source_has_a_plain_name(nuscenes: str, command, tmp_path: Path, name: str) -> None:
    done = command("import-labels", nuscenes, tmp_path, "--format", "pointcept", "--name", name, exit_code=1)
    assert "not a name for a source" in done.stderr


def test_the_name_of_the_cached_labels_by_instances_is_reserved(nuscenes: str, command, tmp_path: Path) -> None:
    done = command("import-labels", nuscenes, tmp_path, "--format", "pointcept", "--name", "instances", exit_code=1)
    assert "reserved for the cached labels by instances" in done.stderr


def test_labels_of_points_that_were_made_again_are_stale(nuscenes: str, command, tmp_path: Path) -> None:
    command("export", nuscenes, "--format", "pointcept", "--out", tmp_path / "out")
    command("import-labels", nuscenes, tmp_path / "out", "--format", "pointcept", "--name", "old")
    cache, manifest = Cache.open(nuscenes, "a")
    path = GroupPath("scene-0061-000", "points")
    seal, arrays = cache.seals([path])[path], cache.read(path)
    cache.write_group(path, arrays, Provenance("new", samples=seal.samples))
    stale = [p.path for part in audit(cache, manifest) for p in part.problems if p.kind is ProblemKind.STALE_GROUP]
    assert "shards/scene-0061-000/labels.old" in stale
    assert "shards/scene-0103-000/labels.old" not in stale


def test_a_stale_source_is_a_problem_that_no_run_solves(nuscenes: str, command, tmp_path: Path) -> None:
    command("export", nuscenes, "--format", "pointcept", "--out", tmp_path / "out")
    command("import-labels", nuscenes, tmp_path / "out", "--format", "pointcept", "--name", "old")
    path = GroupPath("scene-0061-000", "labels.old")
    cache = Cache(nuscenes, "a")
    provenance = replace(cache.seals([path])[path].provenance, upstream={"points": "before"})
    cache.write_group(path, cache.read(path), provenance)
    found = json.loads(command("inspect", nuscenes, "--json", exit_code=1).stdout)
    assert found["shards"]["stale"] == 0
    (problem,) = found["problems"]
    assert problem["path"] == str(path)
    assert "`labelgen import-labels --name old --overwrite`" in problem["remedy"]


def test_the_cache_is_scored_by_a_source(nuscenes: str, command, tmp_path: Path) -> None:
    command("export", nuscenes, "--format", "pointcept", "--out", tmp_path / "out", "--labels", "raw")
    command("import-labels", nuscenes, tmp_path / "out", "--format", "pointcept", "--name", "raw")
    found = json.loads(command("inspect", nuscenes, "--against-source", "raw", "--json").stdout)
    labels, raw = (np.concatenate(list(read_points(nuscenes, "labels", a).values())) for a in ("point", "point_raw"))
    both = (labels != 255) & (raw != 255)
    assert found["scoring"] == {"source": "raw", "unlabelled": "ignore", "absent": "leave"}
    assert found["truth"]["image"] is None
    assert found["truth"]["point"]["raw"]["accuracy"] == 1
    assert found["truth"]["point"]["refined"]["accuracy"] == pytest.approx((labels == raw)[both].mean())
    assert found["truth"]["point"]["refined"]["scored"] == both.sum()
    text = command("inspect", nuscenes, "--against-source", "raw").stdout
    assert "against source raw, labelgen's rule (no label: left out; absent class: not in the mean)" in text
    pictures = tmp_path / "pictures"
    command("inspect", nuscenes, "--against-source", "raw", "--pictures", pictures, "--html", tmp_path / "p.html")
    assert len(list(pictures.glob("*.png"))) == 4, "three samples, and the confusions of points"
    assert "against source raw" in (tmp_path / "p.html").read_text()


def test_an_unknown_source_is_refused_with_the_command_that_makes_it(nuscenes: str, command) -> None:
    done = command("inspect", nuscenes, "--against-source", "mine", exit_code=1)
    assert "no finished shard has labels of source 'mine'; import them with `labelgen import-labels" in done.stderr


def test_files_that_are_no_label_files_are_named_at_once(nuscenes: str, command, tmp_path: Path) -> None:
    command("export", nuscenes, "--format", "nuscenes-lidarseg", "--out", tmp_path / "out")
    file = next((tmp_path / "out/lidarseg").rglob("*_lidarseg.bin"))
    said = {}
    for kind in ("zero", "pipe", "sparse"):
        file.unlink()
        if kind == "zero":
            file.symlink_to("/dev/zero")
        elif kind == "pipe":
            os.mkfifo(file)
        else:
            with file.open("wb") as sparse:
                sparse.truncate(10**12)
        arguments = (nuscenes, tmp_path / "out", "--format", "nuscenes-lidarseg", "--name", "back")
        said[kind] = command("import-labels", *arguments, exit_code=1).stderr
        assert str(file) in said[kind]
    assert "not a regular file" in said["zero"] and "not a regular file" in said["pipe"]
    assert "1,000,000,000,000 bytes, too many for" in said["sparse"]


@pytest.mark.parametrize("content", ["empty", "claims", "columns"])
def test_arrays_that_do_not_hold_an_id_a_point_are_named(nuscenes: str, command, tmp_path: Path, content: str) -> None:
    command("export", nuscenes, "--format", "pointcept", "--out", tmp_path / "out")
    file = next((tmp_path / "out").rglob("segment.npy"))
    if content == "empty":
        file.write_bytes(b"")
    elif content == "columns":
        np.save(file, np.load(file).reshape(-1, 2))
    else:
        file.write_bytes(file.read_bytes().replace(b"(400,)", b"(99999999999999,)"))
    arguments = (nuscenes, tmp_path / "out", "--format", "pointcept", "--name", "back")
    assert f"{file}: not a label file" in command("import-labels", *arguments, exit_code=1).stderr
