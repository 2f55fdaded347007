"""Scores of a run beside those of the cached labels, and predictions in the data set's file format."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from tests.trainer.runs import history, overrides, run_cli
from trainer.networks.model import SceneNetworks


@pytest.mark.slow
def test_both_networks_learn_what_tells_the_classes(lidarseg: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_cli(
        "fit",
        lidarseg,
        "--out",
        run,
        *overrides("optimiser.epochs=30", "schedule.stage2_epoch=15", "optimiser.lr=0.05"),
    )
    rows = history(run)
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    found = json.loads(run_cli("evaluate", run, lidarseg, "--json").stdout)
    assert found["image"]["miou"] > 0.85
    assert found["point"]["miou"] > 0.85
    assert found["agreement"]["accuracy"] > 0.85
    run_cli("predict", run, lidarseg, "--out", tmp_path)
    files = sorted((tmp_path / "lidarseg/val").glob("*_lidarseg.bin"))
    labels = np.concatenate([np.fromfile(file, np.uint8) for file in files]) - 1
    truth = np.concatenate(
        [Cache(lidarseg).read(GroupPath(key, "truth"))["point"] for key in Cache(lidarseg).shard_keys()]
    )
    assert (labels == truth).mean() > 0.85


def test_held_out_scenes_of_the_training_cache_are_scored_by_default(small_run: Path, toy: str) -> None:
    found = json.loads(run_cli("evaluate", small_run, toy, "--json").stdout)
    assert found["scenes"] == "held-out" and found["samples"] == 2
    assert set(found["point"]["iou"]) == {"car", "road", "tree"}
    refined = json.loads(run_cli("evaluate", small_run, toy, "--json", "--refine").stdout)
    assert refined["refined_predictions"] and refined["image"] != found["image"]


@pytest.mark.parametrize("spelling", ["slash", "dot", "copy", "grown"])
def test_training_scenes_are_recognised_wherever_the_cache_lies(
    small_run: Path, toy: str, tmp_path: Path, make_cache, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(Path(toy).parent)
    cache = {"slash": f"{toy}/", "dot": f"./{Path(toy).name}", "copy": str(tmp_path / "copy"), "grown": ""}[spelling]
    if spelling == "copy":
        shutil.copytree(toy, cache)
    if spelling == "grown":
        cache = make_cache(tmp_path / "grown", scenes=6)  # with its six scenes, hold_out=3 would hold out another too
    found = json.loads(run_cli("evaluate", small_run, cache, "--json").stdout)
    assert (found["scenes"], found["samples"]) == ("held-out", 2)
    (record,) = json.loads((small_run / "run.json").read_text())["caches"]
    assert list(record["held_out"]) == ["scene-2"]
    assert sorted(record["trained"]) == ["scene-0", "scene-1", "scene-3", "scene-4"]


def test_a_cache_that_the_run_was_not_trained_on_is_scored_as_a_whole(
    small_run: Path, make_cache, tmp_path: Path
) -> None:
    other = make_cache(tmp_path / "other", scenes=2, seed=7)  # its scenes have the names of trained ones
    assert json.loads(run_cli("evaluate", small_run, other, "--json").stdout)["scenes"] == "all"
    refused = run_cli("evaluate", small_run, other, "--scenes", "training", exit_code=1)
    assert "trained on none of them" in refused.stderr


def test_cached_labels_are_scored_beside_the_networks(small_run: Path, toy: str) -> None:
    found = json.loads(run_cli("evaluate", small_run, toy, "--json", "--scenes", "all").stdout)
    cache = Cache(toy)
    right = counted = 0
    for key in cache.shard_keys():
        labels, truth = cache.read(GroupPath(key, "labels")), cache.read(GroupPath(key, "truth"))
        right += int((labels["image_raw"] == truth["image"]).sum())
        counted += labels["image_raw"].size
    assert found["labels"]["raw"]["image"]["accuracy"] == pytest.approx(right / counted)
    assert found["labels"]["refined"]["image"]["miou"] == 1
    assert found["labels"]["refined"]["point_seen"]["miou"] == 1
    assert found["samples"] == 10
    assert found["point"]["scored"] == 2400
    assert found["point_seen"]["scored"] == found["labels"]["raw"]["point_seen"]["scored"] < 2400


def test_scores_do_not_depend_on_how_many_images_the_network_takes_at_once(
    small_run: Path, toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = json.loads(run_cli("evaluate", small_run, toy, "--json").stdout)
    taken: list[int] = []
    apply = SceneNetworks.apply_to_images
    monkeypatch.setattr(
        SceneNetworks, "apply_to_images", lambda model, rgb: taken.append(len(rgb)) or apply(model, rgb)
    )
    monkeypatch.setattr("trainer.evaluation.predictor.IMAGES_AT_ONCE", 1)
    alone = json.loads(run_cli("evaluate", small_run, toy, "--json").stdout)
    assert taken == [1] * 4
    assert alone["image"]["accuracy"] == pytest.approx(together["image"]["accuracy"], abs=0.001)
    assert alone["point"] == together["point"]


def test_cached_labels_are_scored_by_a_rule(small_run: Path, toy: str) -> None:
    arguments = ("evaluate", small_run, toy, "--scenes", "all", "--unlabelled", "miss", "--absent", "zero")
    found = json.loads(run_cli(*arguments, "--json").stdout)
    assert (found["unlabelled"], found["absent"]) == ("miss", "zero")
    refined = found["labels"]["refined"]["point_seen"]
    seen = json.loads(run_cli("evaluate", small_run, toy, "--scenes", "all", "--json").stdout)["point_seen"]["scored"]
    assert refined["scored"] == 2400, "all points of ten samples"
    assert refined["accuracy"] == pytest.approx(seen / 2400), "labels are right where they are"
    assert "SemanticKITTI's rule (no label: a miss; absent class: IoU 0)" in " ".join(
        run_cli(*arguments).stdout.split()
    )


def test_evaluate_prints_a_table_with_a_row_for_each_class(small_run: Path, toy: str) -> None:
    table = run_cli("evaluate", small_run, toy).stdout
    found = json.loads(run_cli("evaluate", small_run, toy, "--json").stdout)
    for word in ("2D network", "3D network", "3D, seen", "raw image", "voted point", "held-out"):
        assert word in table
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.strip()}
    assert rows["mIoU"][0] == f"{100 * found['image']['miou']:.1f}"
    assert rows["tree"][1] == f"{100 * found['point']['iou']['tree']:.1f}"


def test_predictions_are_written_in_the_official_format(lidarseg_run: Path, lidarseg: str, tmp_path: Path) -> None:
    run_cli("predict", lidarseg_run, lidarseg, "--out", tmp_path)
    files = sorted((tmp_path / "lidarseg/val").glob("*_lidarseg.bin"))
    assert [file.name for file in files][:2] == ["scene-0-c0_lidarseg.bin", "scene-0-c1_lidarseg.bin"]
    assert len(files) == 10
    labels = np.stack([np.fromfile(file, np.uint8) for file in files])
    assert labels.shape == (10, 240) and labels.min() >= 1 and labels.max() <= 16
    assert json.loads((tmp_path / "val/submission.json").read_text())["meta"]["use_lidar"] is True


def test_each_scene_is_predicted_under_its_own_split(lidarseg_run: Path, lidarseg: str, tmp_path: Path) -> None:
    both = str(shutil.copytree(lidarseg, tmp_path / "both"))
    record = Cache(both).shard_records(["scene-0-000"])["scene-0-000"]
    Cache(both, "a").write_shard_record("scene-0-000", record.model_copy(update={"split": "train"}))
    run_cli("predict", lidarseg_run, both, "--out", tmp_path / "out")
    counts = {split: len(list((tmp_path / "out/lidarseg" / split).iterdir())) for split in ("train", "val")}
    assert counts == {"train": 2, "val": 8}
    assert all((tmp_path / "out" / split / "submission.json").is_file() for split in counts)


def test_prediction_needs_points_alone(lidarseg_run: Path, lidarseg: str, tmp_path: Path) -> None:
    bare = str(shutil.copytree(lidarseg, tmp_path / "bare"))
    for group in Path(bare).glob("shards/*/*"):
        if group.is_dir() and group.name != "points":
            shutil.rmtree(group)
    shutil.rmtree(Path(bare) / "text")
    run_cli("predict", lidarseg_run, bare, "--out", tmp_path / "bare-labels")
    run_cli("predict", lidarseg_run, lidarseg, "--out", tmp_path / "labels")
    files = sorted((tmp_path / "labels/lidarseg/val").iterdir())
    assert len(files) == 10
    for file in files:
        assert (tmp_path / "bare-labels/lidarseg/val" / file.name).read_bytes() == file.read_bytes()


def test_predictions_of_other_classes_are_written_for_pointcept(small_run: Path, toy: str, tmp_path: Path) -> None:
    assert "30 files" in run_cli("predict", small_run, toy, "--out", tmp_path).stdout
    folder = tmp_path / "all/scene-0-s1"
    segment, coord, strength = (np.load(folder / f"{name}.npy") for name in ("segment", "coord", "strength"))
    points = Cache(toy).read(GroupPath("scene-0-000", "points"))
    np.testing.assert_array_equal(coord, points["xyz"][240:])
    np.testing.assert_array_equal(strength, points["intensity"][240:, None])
    assert segment.dtype == np.int16 and set(np.unique(segment)) <= {0, 1, 2}


@pytest.mark.parametrize("other", ["split", "classes"])
def test_what_the_official_format_does_not_have_is_not_predicted(
    lidarseg_run: Path, small_run: Path, lidarseg: str, toy: str, tmp_path: Path, other: str
) -> None:
    run, cache = lidarseg_run, str(shutil.copytree(lidarseg, tmp_path / "cache"))
    if other == "split":
        document = Path(cache) / "zarr.json"
        document.write_text(document.read_text().replace('"val"', '"all"'))
    else:  # three classes under the name of the official sixteen
        run, cache = tmp_path / "run", str(shutil.copytree(toy, tmp_path / "three"))
        shutil.copytree(small_run, run)
        for document in (Path(cache) / "zarr.json", run / "run.json"):
            text = document.read_text()
            document.write_text(text.replace('"name": "toy"', '"name": "nuscenes16"'))
    done = run_cli("predict", run, cache, "--out", tmp_path / "out", "--format", "nuscenes-lidarseg", exit_code=1)
    assert ("has no split 'all'" if other == "split" else "no id for class 'road' of 'nuscenes16'") in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["split", "clouds", "samples", "scene"])
@pytest.mark.parametrize("name", ["../../mine", "{outside}", "..", "."])
def test_predictions_stay_in_their_folder_whatever_a_cache_calls_things(
    small_run: Path, own: str, tmp_path: Path, place: str, name: str
) -> None:
    outside = tmp_path / "mine"
    (outside / "all").mkdir(parents=True)
    (outside / "submission.json").write_text("mine")
    (outside / "c_lidarseg.bin").write_text("mine")
    name = name.format(outside=outside)
    document = Path(own) / "zarr.json" if place == "split" else min(Path(own).glob("shards/*/zarr.json"))
    content = json.loads(document.read_text())
    held = content["attributes"]["sources"][0] if place == "split" else content["attributes"]
    held[place] = [name, *held[place][1:]] if isinstance(held[place], list) else name
    document.write_text(json.dumps(content))
    done = run_cli("predict", small_run, own, "--out", tmp_path / "a/b/out", exit_code=1)
    assert "never a path" in done.stderr and repr(name) in done.stderr and place in done.stderr
    assert (outside / "submission.json").read_text() == "mine" == (outside / "c_lidarseg.bin").read_text()
    assert not (tmp_path / "a").exists()


def test_a_cache_with_other_classes_is_not_scored(small_run: Path, make_cache, tmp_path: Path) -> None:
    other = make_cache(tmp_path / "other", names=("car", "road", "house"))
    done = run_cli("evaluate", small_run, other, exit_code=1)
    assert "car, road, house" in done.stderr and "car, road, tree" in done.stderr


def test_a_cache_without_truth_is_not_scored(small_run: Path, own: str) -> None:
    for key in Cache(own).shard_keys():
        Cache(own, "a").remove_group(GroupPath(key, "truth"))
    assert "truth: not sealed" in run_cli("evaluate", small_run, own, exit_code=1).stderr


def test_samples_without_truth_are_left_out_and_counted(small_run: Path, own: str) -> None:
    whole = json.loads(run_cli("evaluate", small_run, own, "--json", "--scenes", "all").stdout)
    key = Cache(own).shard_keys()[-1]
    without = len(Cache(own).shard_records([key])[key].samples)
    Cache(own, "a").remove_group(GroupPath(key, "truth"))
    found = json.loads(run_cli("evaluate", small_run, own, "--json", "--scenes", "all").stdout)
    assert (found["samples"], found["samples_without_truth"]) == (whole["samples"] - without, without)
    assert 0 < found["point"]["scored"] < whole["point"]["scored"]
    table = run_cli("evaluate", small_run, own, "--scenes", "all").stdout
    assert f"Left out: {without} samples without truth." in table


def test_a_missing_checkpoint_is_refused(small_run: Path, toy: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes((small_run / "run.json").read_bytes())
    done = run_cli("evaluate", tmp_path, toy, exit_code=1)
    assert "last.pt: no such checkpoint" in done.stderr and "--resume" in done.stderr
