"""Runs on caches that exist, on bad input, and on other clusters: what is redone, quarantined or kept."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from pipelines.resolve import open_dataset
from tests.pipelines.caches import checksums, problems
from tests.pipelines.processes import users_of, wait_for

pytestmark = pytest.mark.ray


def make_non_rigid(tables: Path, reading: str) -> None:
    """Double the ego pose's quaternion of the reading whose file is named."""
    rows = json.loads((tables / "sample_data.json").read_text())
    (token,) = (row["ego_pose_token"] for row in rows if row["filename"] == reading)
    poses = json.loads((tables / "ego_pose.json").read_text())
    for pose in poses:
        if pose["token"] == token:
            pose["rotation"] = [2.0, 0.0, 0.0, 0.0]
    (tables / "ego_pose.json").write_text(json.dumps(poses))


def test_new_prompts_redo_clip_and_labels_and_say_so_first(made: Path, cache: Path, labelgen) -> None:
    prompts = made / "other.yaml"
    prompts.write_text((made / "prompts.yaml").read_text().replace("[road]", "[street, lane]"))
    before = checksums(cache)
    done = labelgen.run(made / "nuscenes", cache, "--json", "--set", f"prompts={prompts}")
    assert done.returncode == 0, done.stderr
    announced = done.stderr.splitlines()
    assert f"changed since the last run: prompts {made / 'prompts.yaml'} -> {prompts}" in announced
    assert "  text   1 to redo, since settings changed" in announced
    assert "  clip   3 to redo, since text changed" in announced
    assert "  labels 3 to redo, since clip changed" in announced
    summary = json.loads(done.stdout)
    assert summary["groups_sealed"] == {"clip": 3, "labels": 3, "text": 1}
    work = summary["stage_seconds"]
    assert "sam" not in work
    assert summary["wall_over_teachers"] == pytest.approx(summary["seconds"] / work["clip"])
    after = checksums(cache)
    assert all(after[path] == value for path, value in before.items() if path.split("/")[1] not in ("clip", "labels"))
    assert any(after[path] != value for path, value in before.items() if "/clip/" in path)
    assert problems(cache) == []
    assert Cache.open(str(cache))[1].prompts.class_names["driveable_surface"] == ("street", "lane")


def test_class_embeddings_that_are_missing_are_made_again_though_all_shards_are_up_to_date(
    made: Path, cache: Path, labelgen
) -> None:
    shutil.rmtree(cache / "text")
    done = labelgen.run(made / "nuscenes", cache, "--json")
    assert done.returncode == 0, done.stderr
    assert "  text 1 to make" in done.stderr.splitlines()
    assert json.loads(done.stdout)["groups_sealed"] == {"text": 1}
    assert problems(cache) == []


def test_bad_samples_are_left_out_with_their_reasons_and_come_back_once_mended(
    made: Path, data: Path, built: Path, tmp_path: Path, labelgen
) -> None:
    samples = [sample for scene in open_dataset("nuscenes", data).scenes("all", None) for sample in scene.samples]
    truncated, cut_cloud, missing, bent = samples[0], samples[2], samples[3], samples[4]
    picture = data / truncated.cameras[1].image_path
    picture.write_bytes(picture.read_bytes()[:-400])
    (data / missing.cameras[2].image_path).unlink()
    cloud = data / cut_cloud.cloud_path
    cloud.write_bytes(cloud.read_bytes()[:-6])
    make_non_rigid(data / "v1.0-mini", bent.cloud_path)

    cache = tmp_path / "cache.zarr"
    done = labelgen.run(data, cache, "--json")
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["samples_labelled"], summary["samples_quarantined"]) == (1, 4)
    reasons = {entry["sample"]: entry["reason"] for entry in labelgen.inspect(cache)["samples"]["reasons"]}
    assert picture.name in reasons[truncated.token]
    assert "not a whole picture" in reasons[truncated.token]
    assert "No such file" in reasons[missing.token]
    assert "not a multiple of 5 floats" in reasons[cut_cloud.token]
    assert "rotation [2.0, 0.0, 0.0, 0.0] is not a unit quaternion" in reasons[bent.token]
    assert "ego_pose.json" in reasons[bent.token]
    assert problems(cache) == []

    shutil.copytree(made / "nuscenes", data, dirs_exist_ok=True)
    mended = labelgen.run(data, cache)
    assert mended.returncode == 0, mended.stderr
    assert checksums(cache) == checksums(built)
    assert problems(cache) == []


KILLER = """
import os, signal, sys
import numpy
from PIL import Image

really_open, really_stack = Image.open, numpy.stack

def open(file, *rest, **more):
    if getattr(file, "getvalue", bytes)().endswith(b"KILLS ITS READER"):
        os.kill(os.getpid(), signal.SIGKILL)
    return really_open(file, *rest, **more)

def stack(arrays, *rest, **more):
    pictures = list(arrays)
    for picture in pictures if "segment_anything" in sys.modules else ():
        red, green, blue = picture[0, 0] if picture.ndim == 3 else (0, 0, 0)
        if blue > 245 and {red > 245, green > 245} == {True, False}:
            if red > green:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("CUDA out of memory")
    return really_stack(pictures, *rest, **more)

Image.open, numpy.stack = open, stack
"""
"""A sitecustomize for the workers: one kind of picture kills whoever decodes it; SAM's actor dies of a magenta one and
raises at a cyan one."""


def test_samples_that_kill_or_fail_their_workers_are_left_out_and_the_run_goes_on(
    made: Path, data: Path, tmp_path: Path, labelgen, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    samples = [sample for scene in open_dataset("nuscenes", data).scenes("all", None) for sample in scene.samples]
    kills_reader, kills_sam, fails_sam = samples[1], samples[3], samples[4]
    picture = data / kills_reader.cameras[3].image_path
    picture.write_bytes(picture.read_bytes() + b"KILLS ITS READER")
    for sample, colour in ((kills_sam, (255, 0, 255)), (fails_sam, (0, 255, 255))):
        coloured = data / sample.cameras[0].image_path
        with Image.open(coloured) as drawn:
            size = drawn.size
        Image.new("RGB", size, colour).save(coloured, quality=100, subsampling=0)

    cache = tmp_path / "cache.zarr"
    done = labelgen.run(data, cache, "--json")
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["samples_labelled"], summary["samples_quarantined"]) == (2, 3), summary["quarantined_by_reason"]
    assert summary["retries"].keys() == {"teacher_failures", "bad_samples"}
    assert summary["actor_restarts"] >= 2
    reasons = {entry["sample"]: entry for entry in labelgen.inspect(cache)["samples"]["reasons"]}
    assert reasons[kills_reader.token]["stage"] == "read"
    assert "kills the worker" in reasons[kills_reader.token]["reason"]
    assert reasons[kills_sam.token]["stage"] == "sam"
    assert "its worker died" in reasons[kills_sam.token]["reason"]
    assert reasons[fails_sam.token]["reason"] == "sam: RuntimeError: CUDA out of memory (2 tries)"
    assert problems(cache) == []


def test_part_of_a_cache_made_under_other_settings_shows(made: Path, cache: Path, labelgen) -> None:
    done = labelgen.run(made / "nuscenes", cache, "--limit", "1", "--set", "sam.weights=untrained:1")
    assert done.returncode == 0, done.stderr
    assert labelgen.inspect(cache)["shards"]["stale"] == 2
    assert "STALE     2 shards" in labelgen("inspect", str(cache)).stdout
    assert {line.split(":")[0] for line in problems(cache)} == {
        f"shards/{key}/{group}" for key in ("scene-0061-001", "scene-0103-000") for group in ("sam", "labels")
    }


def test_teachers_that_do_not_load_leave_the_cache_as_it_was(made: Path, cache: Path, tmp_path, labelgen) -> None:
    before, manifest = checksums(cache), Cache.open(str(cache))[1]
    (tmp_path / "fake.pth").write_text("no weights")
    for settings, said in (
        (["images.height=50"], "images of 50x112 do not divide into patches of 16 pixels"),
        ([f"sam.weights={tmp_path / 'fake.pth'}"], "no weights file that can be read safely"),
    ):
        done = labelgen.run(made / "nuscenes", cache, *(word for setting in settings for word in ("--set", setting)))
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert checksums(cache) == before
        assert Cache.open(str(cache))[1] == manifest


def test_both_teachers_fit_on_one_gpu(made: Path, tmp_path: Path, temp: Path, labelgen) -> None:
    """A cluster that says it has one GPU, and more CLIP calls than its shares of that GPU: SAM must find its place."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--port=6391", "--block"]
    ray += ["--num-cpus=2", "--num-gpus=1", "--include-dashboard=false", f"--temp-dir={temp / 'ray'}"]
    environment = labelgen.environment() | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    cluster = subprocess.Popen(ray, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: any("raylet/raylet " in named for named in users_of(temp / "ray").values()))
        cache = tmp_path / "cache.zarr"
        more = ["--ray-address", "127.0.0.1:6391", "--set", "ray.clip.samples_per_call=1"]
        done = labelgen.run(made / "nuscenes", cache, *more)
        assert done.returncode == 0, done.stderr
    finally:
        cluster.terminate()
        cluster.wait()
    wait_for(lambda: not users_of(temp / "ray"))
    assert problems(cache) == []


def test_repair_lets_the_next_run_redo_just_what_was_bad(made: Path, cache: Path, built: Path, labelgen) -> None:
    bad = sorted((cache / "shards").iterdir())[0].name
    (file,) = (path for path in (cache / "shards" / bad / "pairs/row/c").rglob("*") if path.is_file())
    file.write_bytes(file.read_bytes()[:-5])
    (cache / "shards/notes.txt").write_text("stray")
    sealed = {p: p.stat().st_mtime_ns for p in cache.glob("shards/*/*/zarr.json") if p.parent.name in ("sam", "clip")}

    done = labelgen("verify", str(cache), "--repair", "--json")
    assert done.returncode == 0
    assert sorted(json.loads(done.stdout)["removed"]) == sorted(["shards/notes.txt", f"shards/{bad}/pairs"])
    assert labelgen.run(made / "nuscenes", cache).returncode == 0
    assert labelgen("verify", str(cache)).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in sealed} == sealed, "no teacher ran again"
    whole, again = (Cache(str(place)).read(GroupPath(bad, "labels")) for place in (built, cache))
    for name, values in whole.items():
        np.testing.assert_array_equal(again[name], values)
