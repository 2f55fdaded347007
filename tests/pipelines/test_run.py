"""The real `labelgen run` on a made nuScenes and real Ray: the whole job, bad input, kills, resume."""

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
from cache_schemas.validate import validate
from labelgen.datasets import ADAPTERS
from tests.pipelines.processes import users_of, wait_for

GROUPS = ("images", "clip", "sam", "points", "pairs", "labels", "truth")


def checksums(cache: Path) -> dict[str, str]:
    """Return the checksum of every array of a cache's shards, by path."""
    store = Cache(str(cache))
    return {
        f"{key}/{group}/{name}": array.crc32c
        for key in store.shard_keys()
        for group, seal in store.shard_seals(key).items()
        for name, array in seal.arrays.items()
    }


def problems(cache: Path) -> list[str]:
    return [f"{problem.path}: {problem.message}" for problem in validate(*Cache.open(str(cache)))]


def make_non_rigid(tables: Path, reading: str) -> None:
    """Double the ego pose's quaternion of the reading whose file is named."""
    rows = json.loads((tables / "sample_data.json").read_text())
    (token,) = (row["ego_pose_token"] for row in rows if row["filename"] == reading)
    poses = json.loads((tables / "ego_pose.json").read_text())
    for pose in poses:
        if pose["token"] == token:
            pose["rotation"] = [2.0, 0.0, 0.0, 0.0]
    (tables / "ego_pose.json").write_text(json.dumps(poses))


def test_the_cache_is_whole_and_says_what_made_it(finished: Path, labelgen) -> None:
    assert problems(finished) == []
    assert labelgen("verify", str(finished)).returncode == 0
    found = labelgen.inspect(finished)
    assert found["shards"] == {"sealed": 3, "stale": 0, "quarantined": 0, "unfinished": 0}
    assert found["samples"]["labelled"] == 5
    assert found["teachers"]["preset"] == "untrained"
    assert found["teachers"]["untrained"] is True
    assert found["groups_sealed"] == dict.fromkeys(sorted(GROUPS), 3)
    assert found["truth"]["image"] is None
    for kind in ("raw", "refined"):
        scores = found["truth"]["point"][kind]
        assert set(scores) >= {"miou", "accuracy", "iou"}
        assert len(scores["iou"]) == 16
    assert "UNTRAINED" in labelgen("inspect", str(finished)).stdout


def test_pairs_agree_with_the_stored_calibration(finished: Path) -> None:
    """Anyone can redo the pairing from the cache: cam_from_cloud and intrinsics project each point onto its pixel."""
    store = Cache(str(finished))
    for key in store.shard_keys():
        images, points, pairs = (store.read(GroupPath(key, group)) for group in ("images", "points", "pairs"))
        xyz, view = points["xyz"][pairs["point"]].astype(np.float64), pairs["image"]
        camera = np.einsum("nij,nj->ni", images["cam_from_cloud"][view, :3, :3], xyz)
        camera += images["cam_from_cloud"][view, :3, 3]
        pixel = np.einsum("nij,nj->ni", images["intrinsics"][view], camera / camera[:, 2:])[:, :2]
        assert len(pixel) > 0
        assert np.abs(pixel - np.stack([pairs["col"], pairs["row"]], axis=1)).max() <= 0.5 + 1e-6


def test_labels_follow_from_the_other_groups_by_plain_loops(finished: Path) -> None:
    """Redo one image's eq 1 to 4 and its points' transfer with loops, from the cached scores, masks and pairs."""
    import torch

    store = Cache(str(finished))
    key = store.shard_keys()[0]
    clip, sam, pairs, labels = (store.read(GroupPath(key, group)) for group in ("clip", "sam", "pairs", "labels"))
    logits = torch.from_numpy(clip["logits"].astype(np.float32))
    ids = sam["mask_ids"]
    scores = torch.nn.functional.interpolate(logits, ids.shape[1:], mode="bilinear", align_corners=False).numpy()
    raw = scores.argmax(axis=1)
    top_two = np.sort(scores, axis=1)[:, -2:]
    clear = top_two[:, 1] - top_two[:, 0] > 1e-5  # elsewhere float rounding may choose
    assert clear.mean() > 0.9
    assert (labels["image_raw"] == raw)[clear].all()
    for image in range(len(ids)):
        for mask in np.unique(ids[image]):
            inside = ids[image] == mask
            own = labels["image_raw"][image][inside]
            voted = labels["image"][image][inside]
            if mask == 0:
                assert (voted == own).all()
                continue
            votes = np.bincount(own, minlength=16)
            best = [c for c in range(16) if votes[c] == votes.max()]
            assert len(np.unique(voted)) == 1
            assert voted[0] in best
            if len(best) == 1:
                assert voted[0] == best[0]
    seen = {}
    for point, image, row, col in zip(*(pairs[n] for n in ("point", "image", "row", "col")), strict=True):
        score = scores[image, :, row, col].max()
        if point not in seen or score > seen[point][0] + 1e-6:
            seen[point] = (score, labels["image_raw"][image, row, col], labels["image"][image, row, col])
    unseen = np.setdiff1d(np.arange(len(labels["point"])), list(seen))
    assert (labels["point"][unseen] == 255).all()
    agree = [labels["point_raw"][p] == raw and labels["point"][p] == voted for p, (_, raw, voted) in seen.items()]
    assert np.mean(agree) > 0.99  # two cameras within rounding of each other may swap


def test_a_second_run_does_nothing_and_takes_no_cluster(made: Path, cache: Path, labelgen) -> None:
    before = checksums(cache)
    done = labelgen.run(made / "nuscenes", cache, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["shards_done"], summary["shards_kept"], summary["groups_sealed"]) == (0, 3, {})
    assert summary["samples_labelled"] == 5
    assert summary["wall_over_teachers"] is None
    assert checksums(cache) == before


def test_new_prompts_redo_clip_and_labels_and_say_so_first(made: Path, cache: Path, labelgen) -> None:
    prompts = made / "other.yaml"
    prompts.write_text((made / "prompts.yaml").read_text().replace("[road]", "[street, lane]"))
    before = checksums(cache)
    done = labelgen.run(made / "nuscenes", cache, "--json", "--set", f"prompts={prompts}")
    assert done.returncode == 0, done.stderr
    announced = done.stderr.splitlines()
    assert "  clip   3 to redo, since something changed" in announced
    assert "  labels 3 to redo, since something changed" in announced
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


def test_bad_samples_are_left_out_with_their_reasons_and_come_back_once_mended(
    made: Path, data: Path, finished: Path, tmp_path: Path, labelgen
) -> None:
    samples = [sample for scene in ADAPTERS["nuscenes"](data).scenes("all", None) for sample in scene.samples]
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
    assert "no multiple of 5 floats" in reasons[cut_cloud.token]
    assert "rotation [2.0, 0.0, 0.0, 0.0] is not a unit quaternion" in reasons[bent.token]
    assert "ego_pose.json" in reasons[bent.token]
    assert problems(cache) == []

    shutil.copytree(made / "nuscenes", data, dirs_exist_ok=True)
    mended = labelgen.run(data, cache)
    assert mended.returncode == 0, mended.stderr
    assert checksums(cache) == checksums(finished)
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
    samples = [sample for scene in ADAPTERS["nuscenes"](data).scenes("all", None) for sample in scene.samples]
    kills_reader, kills_sam, fails_sam = samples[1], samples[3], samples[4]
    picture = data / kills_reader.cameras[3].image_path
    picture.write_bytes(picture.read_bytes() + b"KILLS ITS READER")
    for sample, colour in ((kills_sam, (255, 0, 255)), (fails_sam, (0, 255, 255))):
        coloured = data / sample.cameras[0].image_path
        Image.new("RGB", Image.open(coloured).size, colour).save(coloured, quality=100, subsampling=0)

    cache = tmp_path / "cache.zarr"
    done = labelgen.run(data, cache, "--json")
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["samples_labelled"], summary["samples_quarantined"]) == (2, 3), summary["quarantined_by_reason"]
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


def test_a_cluster_that_does_not_answer_is_one_error(made: Path, tmp_path: Path, labelgen) -> None:
    done = labelgen.run(made / "nuscenes", tmp_path / "cache.zarr", "--ray-address", "127.0.0.1:1")
    assert done.returncode == 1
    assert "no Ray cluster answers at '127.0.0.1:1'" in done.stderr


def test_a_dataset_whose_files_are_all_missing_is_refused(data: Path, tmp_path: Path, labelgen) -> None:
    shutil.rmtree(data / "samples")
    done = labelgen.run(data, tmp_path / "cache.zarr")
    assert done.returncode == 1
    assert "none of the 5 samples to be read has its files" in done.stderr
    assert "is the disk mounted" in done.stderr


def test_an_object_store_without_its_package_is_one_error(labelgen) -> None:
    done = labelgen("inspect", "gs://bucket/cache.zarr")
    assert done.returncode == 1
    assert "install the fsspec package of this protocol" in done.stderr


def test_nothing_is_left_in_home(finished: Path, labelgen) -> None:
    assert list((labelgen.made / "home").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--split", "mini_val"], "holds split 'all', not 'mini_val'; give another cache folder"),
        (["--split", "vla"], "no split 'vla' of nuScenes; choose all, mini_train"),
        (["--set", "version=v1.0-trainval"], "no version folder 'v1.0-trainval'; it holds v1.0-mini"),
        (["--set", "prompts=absent"], "prompts 'absent': no such file"),
        (["--shards", "scene-9*"], "--shards 'scene-9*' matches no shard; keys look like scene-0061-000"),
        (["--teachers", "paper"], "weights clip-vit-b-16 are not at"),
    ],
)
def test_a_run_that_cannot_start_says_why_and_harms_nothing(
    made: Path, cache: Path, labelgen, arguments: list[str], said: str
) -> None:
    before = checksums(cache)
    done = labelgen.run(made / "nuscenes", cache, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in done.stderr
    assert checksums(cache) == before


def test_wrong_class_count_names_the_classes(made: Path, cache: Path, tmp_path: Path, labelgen) -> None:
    prompts = tmp_path / "short.yaml"
    prompts.write_text((made / "prompts.yaml").read_text().replace("  terrain: [grass]\n", ""))
    done = labelgen.run(made / "nuscenes", cache, "--set", f"prompts={prompts}")
    assert done.returncode == 1
    assert "15 classes, taxonomy nuscenes16 has 16: it lacks terrain" in done.stderr


def test_another_schema_version_is_refused(made: Path, cache: Path, labelgen) -> None:
    document = json.loads((cache / "zarr.json").read_text())
    document["attributes"]["schema_version"] = 2
    (cache / "zarr.json").write_text(json.dumps(document))
    for command in (["inspect", str(cache)], ["verify", str(cache)]):
        done = labelgen(*command)
        assert done.returncode == 1
        assert "schema version 2, this software reads and writes version 1" in done.stderr
    assert "schema version 2" in labelgen.run(made / "nuscenes", cache).stderr


def test_a_cache_of_another_dataset_is_refused(made: Path, cache: Path, labelgen) -> None:
    document = json.loads((cache / "zarr.json").read_text())
    document["attributes"]["dataset"] = "scannet"
    (cache / "zarr.json").write_text(json.dumps(document))
    done = labelgen.run(made / "nuscenes", cache)
    assert done.returncode == 1
    assert "holds dataset 'scannet', not 'nuscenes'; give another cache folder" in done.stderr


def test_a_place_that_cannot_be_written_is_one_error(made: Path, tmp_path: Path, labelgen) -> None:
    (tmp_path / "file").write_text("")
    done = labelgen.run(made / "nuscenes", tmp_path / "file" / "cache.zarr")
    assert done.returncode == 1
    assert "choose another cache folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_and_verify_refuse_what_is_no_cache(tmp_path: Path, labelgen) -> None:
    for command in ("inspect", "verify"):
        done = labelgen(command, str(tmp_path / "absent.zarr"))
        assert done.returncode == 1
        assert "no cache here" in done.stderr


def test_verify_finds_a_flipped_byte(cache: Path, labelgen) -> None:
    (chunk,) = (cache / "shards" / "scene-0103-000" / "points" / "xyz").glob("c/*/*")
    damaged = bytearray(chunk.read_bytes())
    damaged[100] ^= 1
    chunk.write_bytes(damaged)
    done = labelgen("verify", str(cache), "--json")
    assert done.returncode == 1
    assert [problem["path"] for problem in json.loads(done.stdout)["problems"]] == ["shards/scene-0103-000/points/xyz"]


def test_repair_lets_the_next_run_redo_just_what_was_bad(made: Path, cache: Path, finished: Path, labelgen) -> None:
    bad = sorted((cache / "shards").iterdir())[0].name
    (file,) = (path for path in (cache / "shards" / bad / "pairs/row/c").rglob("*") if path.is_file())
    file.write_bytes(file.read_bytes()[:-5])
    (cache / "notes.txt").write_text("mine")
    sealed = {p: p.stat().st_mtime_ns for p in cache.glob("shards/*/*/zarr.json") if p.parent.name in ("sam", "clip")}

    done = labelgen("verify", str(cache), "--repair", "--json")
    assert done.returncode == 0
    assert sorted(json.loads(done.stdout)["removed"]) == ["notes.txt", f"shards/{bad}/pairs"]
    assert labelgen.run(made / "nuscenes", cache).returncode == 0
    assert labelgen("verify", str(cache)).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in sealed} == sealed, "no teacher ran again"
    whole, again = (Cache(str(place)).read(GroupPath(bad, "labels")) for place in (finished, cache))
    for name, values in whole.items():
        np.testing.assert_array_equal(again[name], values)


def test_inspect_names_a_damaged_group_and_the_cure(cache: Path, labelgen) -> None:
    (chunk,) = (cache / "shards" / "scene-0103-000" / "labels" / "image").glob("c/*/*/*")
    chunk.write_bytes(chunk.read_bytes()[:-40])
    done = labelgen("inspect", str(cache))
    assert done.returncode == 1
    assert "shards/scene-0103-000/labels: damaged" in done.stderr
    assert "remove this folder, then run the same" in done.stderr


def test_pictures_are_drawn(finished: Path, tmp_path: Path, labelgen) -> None:
    done = labelgen("inspect", str(finished), "--pictures", str(tmp_path / "pictures"), "--show", "2")
    assert done.returncode == 0, done.stderr
    confusion, *samples = sorted((tmp_path / "pictures").iterdir())
    assert confusion.name == "confusion-point.png"
    assert len(samples) == 2
    assert Image.open(samples[0]).size[0] == 6 * 112
