"""A raw dataset that is incomplete, or whose disk fails: no sample is condemned for it, and nothing sealed is lost."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from cache_schemas.store import Cache
from pipelines.resolve import open_dataset
from tests.pipelines.caches import checksums, problems

FAILURES = [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES, errno.ETIMEDOUT, errno.EPERM]


def errors_of(done) -> list[str]:
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def quarantined(cache: Path) -> list[str]:
    records = Cache(str(cache)).shard_records(Cache(str(cache)).shard_keys()).values()
    return [entry.sample for record in records for entry in record.quarantined]


# Before any work


def test_half_a_dataset_is_told_by_folder_with_its_archive_and_what_is_complete(
    data: Path, tmp_path: Path, labelgen_here
) -> None:
    for cloud in (data / "samples/LIDAR_TOP").glob("scene-0061*"):
        cloud.unlink()
    for more in ([], ["--limit", "1"], ["--shards", "scene-0061-*"]):
        (error,) = errors_of(done := labelgen_here.run(data, tmp_path / "cache.zarr", *more))
        assert done.returncode == 1
        assert "lack files" in error or "has its files" in error
        assert "in samples/LIDAR_TOP" in error and "CAM_" not in error
        assert "1 scene is complete (scene-0103): --only-complete" in error and "--shards 'scene-0103-*'" in error
        assert "extract v1.0-mini.tgz into the folder that holds v1.0-mini/" in error
        assert "loading" not in done.stderr
    assert labelgen_here.run(data, tmp_path / "cache.zarr").stderr.count("scene-0061__LIDAR_TOP") == 1


def test_parts_in_the_wrong_place_are_found(data: Path, tmp_path: Path, labelgen_here) -> None:
    (data / "v1.0-trainval01_blobs").mkdir()
    (data / "samples").rename(data / "v1.0-trainval01_blobs/samples")
    (error,) = errors_of(labelgen_here.run(data, tmp_path / "cache.zarr"))
    assert "v1.0-trainval01_blobs/samples/" in error and f"move what it holds to {data}/samples/" in error


def test_samples_that_were_labelled_are_never_left_out_for_missing_files(
    data: Path, cache: Path, labelgen_here
) -> None:
    before = checksums(cache)
    whole = data.rename(data.with_name("whole"))
    shutil.copytree(whole, data)
    (data / "samples").rename(data / "gone")
    for more in ([], ["--only-complete"]):
        (error,) = errors_of(labelgen_here.run(data, cache, *more, "--set", "sam.pred_iou_thresh=0.1"))
        assert "5 of them were labelled before and stay as they are" in error and "is the disk mounted?" in error
    shutil.rmtree(data)
    shutil.copytree(whole, data)
    min((data / "samples/CAM_BACK").iterdir()).unlink()
    (error,) = errors_of(labelgen_here.run(data, cache, "--set", "images.height=48"))
    assert "1 of the 5 samples to be read lacks files: 1 in samples/CAM_BACK" in error
    assert "to give up their labels, remove shards/scene-0061-00" in error
    assert checksums(cache) == before and quarantined(cache) == []


@pytest.mark.parametrize("number", FAILURES, ids=errno.errorcode.get)
@pytest.mark.parametrize("part", ["samples/CAM_BACK/", "lidarseg/", "v1.0-mini/scene.json"])
def test_a_failing_disk_is_one_error_when_the_work_is_planned(
    made: Path, cache: Path, labelgen_here, monkeypatch: pytest.MonkeyPatch, number: int, part: str
) -> None:
    real = os.stat

    def stat(path, *rest, **more):
        if part in os.fspath(path) if isinstance(path, (str, Path)) else False:
            raise OSError(number, os.strerror(number), os.fspath(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "stat", stat)
    before = checksums(cache)
    done = labelgen_here.run(made / "nuscenes", cache, "--set", "images.height=48")
    (error,) = errors_of(done)
    assert done.returncode == 1
    assert f"cannot be read ({os.strerror(number)})" in error and "run the same command again" in error
    assert checksums(cache) == before and quarantined(cache) == []


def test_a_disk_that_fails_while_a_table_is_read_is_one_error(data: Path, cache: Path, labelgen_here) -> None:
    table = data / "v1.0-mini/sample_data.json"
    table.unlink()
    table.symlink_to("/proc/self/mem")  # the system answers EIO to whoever reads its first bytes
    done = labelgen_here.run(data, cache)
    (error,) = errors_of(done)
    assert done.returncode == 1
    assert f"{table}: cannot be read ({os.strerror(errno.EIO)}); the disk or the network fails, check both" in error


# During the work


BREAKS = """
import os, pathlib

really_read = pathlib.Path.read_bytes

def read_bytes(self):
    kind, _, number = os.environ["BREAKS"].partition(" ")
    if kind in str(self):
        raise OSError(int(number), os.strerror(int(number)), str(self))
    return really_read(self)

pathlib.Path.read_bytes = read_bytes
"""
"""A sitecustomize: reading raw files of one kind fails, in whatever process."""


@pytest.mark.ray
@pytest.mark.parametrize(("kind", "number"), [("CAM_FRONT__", errno.EIO), ("LIDAR_TOP__", errno.ENOENT)])
def test_a_disk_that_fails_during_a_run_stops_it_and_condemns_no_sample(
    made: Path,
    built: Path,
    tmp_path: Path,
    labelgen,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    number: int,
) -> None:
    """ENOENT is what a disk says that was unmounted: the files were there when the work was planned."""
    (tmp_path / "sitecustomize.py").write_text(BREAKS)
    cache = tmp_path / "cache.zarr"
    with monkeypatch.context() as broken:
        broken.setenv("PYTHONPATH", str(tmp_path))
        broken.setenv("BREAKS", f"{kind} {number}")
        done = labelgen.run(made / "nuscenes", cache)
    (error,) = errors_of(done)
    assert done.returncode == 1 and f"cannot be read ({os.strerror(number)})" in error and kind in error
    assert quarantined(cache) == []
    assert labelgen.run(made / "nuscenes", cache).returncode == 0
    assert checksums(cache) == checksums(built) and problems(cache) == []


@pytest.mark.ray
def test_a_labelled_sample_whose_file_broke_is_reported_and_keeps_its_shard(data: Path, cache: Path, labelgen) -> None:
    sample = open_dataset("nuscenes", data).scenes("all", None)[0].samples[0]
    picture = data / sample.cameras[0].image_path
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-400] + bytes(399))
    done = labelgen.run(data, cache)
    (error,) = errors_of(done)
    assert done.returncode == 1
    assert "1 sample labelled before cannot be used now" in error and picture.name in error
    assert sample.token in Cache(str(cache)).shard_seals("scene-0061-000")["labels"].samples
    assert quarantined(cache) == []
    picture.write_bytes(whole)
    assert labelgen.run(data, cache).returncode == 0


@pytest.mark.ray
def test_what_is_complete_is_labelled_on_request_and_the_rest_later(
    made: Path, data: Path, built: Path, tmp_path: Path, labelgen
) -> None:
    for cloud in sorted((data / "samples/LIDAR_TOP").iterdir())[:2]:
        cloud.unlink()
    cache = tmp_path / "cache.zarr"
    assert labelgen.run(data, cache).returncode == 1
    done = labelgen.run(data, cache, "--only-complete", "--json")
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert summary["samples_labelled"] == 3
    assert summary["quarantined_by_reason"] == {"files: No such file in samples/LIDAR_TOP": 2}
    assert problems(cache) == []
    shutil.copytree(made / "nuscenes", data, dirs_exist_ok=True)
    assert labelgen.run(data, cache).returncode == 0
    assert checksums(cache) == checksums(built)
