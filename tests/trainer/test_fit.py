"""Training by the real command: it learns, resumes exactly, splits over ranks exactly, and fails with its work kept."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache

REPOSITORY = Path(__file__).parents[2]
SMALL = ["networks.voxel_m=1.0", "networks.image_weights=null", "stream.images=2", "stream.hold_out=3"]
SMALL += ["optimiser.kind=sgd", "optimiser.lr=0.1", "optimiser.weight_decay=0.0001", "optimiser.epochs=2"]


def trainer(*arguments: object, launcher: tuple[str, ...] = ("-m", "trainer.cli")) -> list[str]:
    return [sys.executable, *launcher, *map(str, arguments)]


def overrides(*more: str) -> list[str]:
    return [word for setting in (*SMALL, *more) for word in ("--set", setting)]


def run(command: list[str], *, ok: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240)
    assert (done.returncode == 0) == ok, done.stderr
    return done


def history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(toy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 epochs on the toy world, whose bands and heights tell the classes."""
    out = tmp_path_factory.mktemp("runs") / "cns"
    settings = overrides("optimiser.epochs=30", "method.stage2_epoch=15", "optimiser.lr=0.05")
    done = run(trainer("fit", toy, "--out", out, *settings))
    assert "images/s" in done.stderr and "waiting for data" in done.stderr
    return out


def test_both_networks_learn_what_tells_the_classes(trained: Path, toy: str) -> None:
    rows = history(trained)
    steps = len(rows) // 30
    assert [row["step"] for row in rows] == list(range(30 * steps))
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    sources = {row["image_source"] for row in rows if row["epoch"] >= 15}
    assert sources == {"clip-2d", "clip-3d", "own-2d", "own-3d"}
    found = json.loads(run(trainer("evaluate", trained, toy, "--json")).stdout)
    assert found["scenes"] == "held-out" and found["samples"] == 2
    assert found["image"]["miou"] > 0.85
    assert found["point"]["miou"] > 0.85
    assert set(found["point"]["iou"]) == {"car", "road", "tree"}
    assert found["agreement"]["accuracy"] > 0.85


def test_cached_labels_are_scored_beside_the_networks(trained: Path, toy: str) -> None:
    found = json.loads(run(trainer("evaluate", trained, toy, "--json", "--scenes", "all")).stdout)
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


def test_evaluate_prints_a_table(trained: Path, toy: str) -> None:
    table = run(trainer("evaluate", trained, toy)).stdout
    for word in ("mIoU", "2D network", "3D network", "refined", "tree", "held-out", "agree on"):
        assert word in table


def test_predictions_are_written_in_the_official_format(trained: Path, toy: str, tmp_path: Path) -> None:
    run(trainer("predict", trained, toy, "--out", tmp_path))
    files = sorted((tmp_path / "lidarseg/all").glob("*_lidarseg.bin"))
    assert [file.name for file in files][:2] == ["scene-0-c0_lidarseg.bin", "scene-0-c1_lidarseg.bin"]
    assert len(files) == 10
    labels = np.stack([np.fromfile(file, np.uint8) for file in files])
    assert labels.shape == (10, 240) and labels.min() >= 1 and labels.max() <= 3
    truth = np.concatenate([Cache(toy).read(GroupPath(key, "truth"))["point"] for key in Cache(toy).shard_keys()])
    assert (labels.ravel() - 1 == truth).mean() > 0.85
    assert json.loads((tmp_path / "all/submission.json").read_text())["meta"]["use_lidar"] is True


def test_tensorboard_has_the_losses(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    scalars = [event.value for event in events.Scalars("loss/image")]
    assert scalars == pytest.approx([row["image"] for row in history(trained)], rel=1e-5)
    assert "agreement" in events.Tags()["scalars"]
    assert any(tag.startswith("pictures") for tag in events.Tags()["images"])


# Resuming


def test_killed_and_resumed_gives_the_undisturbed_curve(toy: str, tmp_path: Path) -> None:
    settings = overrides("optimiser.epochs=8", "method.stage2_epoch=3", "checkpoint_minutes=0.0001")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(trainer("fit", toy, "--out", whole, *settings))
    process = subprocess.Popen(
        trainer("fit", toy, "--out", killed, *settings),
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not (killed / "last.pt").exists() or len(history(killed)) < 12:
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped = len(history(killed))
    run(trainer("fit", toy, "--out", killed, "--resume", *settings))
    assert stopped < len(history(whole)), "the kill came too late to tell"
    assert history(killed) == history(whole)
    states = [torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (whole, killed)]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def as_a_background_job() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize(
    "number, start", [(signal.SIGINT, None), (signal.SIGINT, as_a_background_job), (signal.SIGTERM, None)]
)
def test_a_run_that_is_asked_to_stop_keeps_all_steps_made(
    toy: str, tmp_path: Path, number: signal.Signals, start: Callable[[], None] | None
) -> None:
    settings = overrides("optimiser.epochs=40", "stream.workers=1")
    command = trainer("fit", toy, "--out", tmp_path / "run", *settings)
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, preexec_fn=start, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(history(tmp_path / "run") if (tmp_path / "run/history.jsonl").exists() else []) < 20:
        assert process.poll() is None and time.monotonic() < deadline, "no step came"
        time.sleep(0.01)
    if number == signal.SIGINT:  # a terminal tells all processes, `kill` one
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert "--resume" in said and "Traceback" not in said
    assert process.returncode == 130
    state = torch.load(tmp_path / "run/last.pt", weights_only=True)
    assert state["step"] == len(history(tmp_path / "run")) >= 20


def test_a_folder_with_a_run_is_not_overwritten(trained: Path, toy: str) -> None:
    before = (trained / "last.pt").read_bytes()
    assert "--resume" in run(trainer("fit", toy, "--out", trained), ok=False).stderr
    changed = run(trainer("fit", toy, "--out", trained, "--resume", *overrides("optimiser.lr=0.2")), ok=False)
    assert "other settings" in changed.stderr
    assert (trained / "last.pt").read_bytes() == before


def test_a_changed_cache_is_not_resumed(make_cache, tmp_path: Path) -> None:
    own = make_cache(tmp_path / "cache")
    run(trainer("fit", own, "--out", tmp_path / "run", *overrides("optimiser.epochs=1")))
    path = GroupPath("scene-0-000", "labels")
    arrays = Cache(own).read(path)
    upstream = Cache(own).seals([path])[path].upstream
    tokens = ("scene-0-s0", "scene-0-s1")
    Cache(own, "a").write_group(path, arrays, Provenance("new", upstream=upstream, samples=tokens))
    again = run(trainer("fit", own, "--out", tmp_path / "run", "--resume", *overrides("optimiser.epochs=1")), ok=False)
    assert "other cache contents" in again.stderr


# Ranks


def test_two_ranks_give_the_losses_of_one_with_the_joint_batch(toy: str, tmp_path: Path) -> None:
    settings = ["optimiser.epochs=2", "method.stage2_epoch=1", "augment.images=false", "optimiser.lr=0.01"]
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "trainer.cli")
    run(trainer("fit", toy, "--out", tmp_path / "one", *overrides(*settings, "stream.samples=2")))
    two = trainer("fit", toy, "--out", tmp_path / "two", *overrides(*settings, "stream.samples=1"), launcher=torchrun)
    run(two)
    one, two = history(tmp_path / "one"), history(tmp_path / "two")
    assert len(one) == len(two) > 5
    for alone, joint in zip(one, two, strict=True):
        assert joint["loss"] == pytest.approx(alone["loss"], rel=2e-3)
        assert joint["image_source"] == alone["image_source"]
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)


# Trouble


def test_a_loss_that_is_no_number_stops_with_the_last_good_checkpoint(toy: str, tmp_path: Path) -> None:
    wild = ["optimiser.lr=1e12", "optimiser.clip_norm=null", "optimiser.warmup_steps=1"]
    settings = overrides("optimiser.epochs=6", "checkpoint_minutes=0.0001", *wild)
    done = run(trainer("fit", toy, "--out", tmp_path / "run", *settings), ok=False)
    assert "the loss is nan" in done.stderr and "lower optimiser.lr" in done.stderr
    if (tmp_path / "run/last.pt").exists():
        state = torch.load(tmp_path / "run/last.pt", weights_only=True)
        assert all(tensor.isfinite().all() for tensor in state["model"].values())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_flipped_bit_stops_with_one_sentence(make_cache, tmp_path: Path, workers: int) -> None:
    own = make_cache(tmp_path / "cache")
    file = Path(own) / "shards/scene-0-000/sam/features/c/0/0/0/0"
    data = bytearray(file.read_bytes())
    data[500] ^= 1
    file.write_bytes(bytes(data))
    settings = overrides(f"stream.workers={workers}")
    done = run(trainer("fit", own, "--out", tmp_path / "run", *settings), ok=False)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "scene-0-000/sam/features: damaged" in line and "labelgen run" in line
    assert "Traceback" not in done.stderr


def test_pictures_without_pairs_and_absent_classes_are_no_trouble(make_cache, tmp_path: Path) -> None:
    own = make_cache(tmp_path / "cache")
    cache = Cache(own, "a")
    for key in cache.shard_keys():
        pairs_path, labels_path = GroupPath(key, "pairs"), GroupPath(key, "labels")
        pairs, labels = cache.read(pairs_path), cache.read(labels_path)
        tokens = tuple(cache.shard_records([key])[key].samples)
        none = {name: array[:0] if name != "offsets" else array * 0 for name, array in pairs.items()}
        upstream = cache.seals([pairs_path])[pairs_path].upstream
        cache.write_group(pairs_path, none, Provenance("f-pairs", upstream=upstream, samples=tokens))
        upstream = cache.seals([labels_path])[labels_path].upstream
        only = {name: np.zeros_like(array) + (255 if "point" in name else 0) for name, array in labels.items()}
        cache.write_group(labels_path, only, Provenance("f-labels", upstream=upstream, samples=tokens))
    run(trainer("fit", own, "--out", tmp_path / "run", *overrides("method.stage2_epoch=1")))
    assert all(np.isfinite(row["loss"]) for row in history(tmp_path / "run"))


def test_caches_of_other_classes_are_not_scored(trained: Path, make_cache, tmp_path: Path) -> None:
    other = make_cache(tmp_path / "other", names=("car", "road", "house"))
    done = run(trainer("evaluate", trained, other), ok=False)
    assert "car, road, house" in done.stderr and "car, road, tree" in done.stderr


def test_a_cache_without_truth_is_not_scored_but_labelled(trained: Path, make_cache, tmp_path: Path) -> None:
    own = make_cache(tmp_path / "cache")
    for key in Cache(own).shard_keys():
        Cache(own, "a").remove_group(GroupPath(key, "truth"))
    assert "truth: not sealed" in run(trainer("evaluate", trained, own), ok=False).stderr
    assert "6 files" in run(trainer("predict", trained, own, "--out", tmp_path / "labels")).stdout


def test_wrong_settings_are_named_with_the_nearest_right_one(toy: str, tmp_path: Path) -> None:
    done = run(trainer("fit", toy, "--out", tmp_path / "run", "--set", "optimiser.epoch=3"), ok=False)
    assert "optimiser.epoch'; did you mean 'optimiser.epochs'?" in done.stderr
    assert not (tmp_path / "run").exists()


def test_training_needs_neither_labelgen_nor_ray(toy: str, tmp_path: Path) -> None:
    code = (
        "import sys; from trainer.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "bad = {name.split('.')[0] for name in sys.modules} & {'labelgen', 'ray', 'PIL', 'nuscenes', 'pipelines'}\n"
        "assert not bad - {'PIL'}, bad"
    )
    settings = overrides("optimiser.epochs=1")
    run(trainer("fit", toy, "--out", tmp_path / "run", *settings, launcher=("-c", code)))
