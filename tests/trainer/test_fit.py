"""Training by the command, in this process: the loss curve, resuming, and errors that keep what was done."""

import errno
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from tests.trainer import conftest
from tests.trainer.runs import SMALL, history, overrides, run_cli
from trainer.data import stream
from trainer.errors import UnfitCacheError
from trainer.fit import FitRequest, fit
from trainer.settings import load_settings


def test_a_run_records_every_step_with_its_losses_and_sources(small_run: Path) -> None:
    rows = history(small_run)
    assert [row["step"] for row in rows] == list(range(32))
    assert [row["epoch"] for row in rows] == [step // 8 for step in range(32)]
    assert sum(row["loss"] for row in rows[8:16]) < sum(row["loss"] for row in rows[:8]), "stage 1 lowers the loss"
    for row in rows:
        parts = sum(row[name] for name in ("image", "cloud", "image_sam", "cloud_sam"))
        assert row["loss"] == pytest.approx(parts)
    assert {(row["image_source"], row["cloud_source"]) for row in rows[:16]} == {("clip-2d", "clip-3d")}
    assert len({row["image_source"] for row in rows[16:]}) == 4


def test_tensorboard_has_the_losses(small_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(small_run / "tensorboard"))
    events.Reload()
    scalars = [event.value for event in events.Scalars("loss/image")]
    assert scalars == pytest.approx([row["image"] for row in history(small_run)], rel=1e-5)
    assert "agreement" in events.Tags()["scalars"]
    assert any(tag.startswith("pictures") for tag in events.Tags()["images"])


# Resuming


def test_a_resumed_run_has_the_loss_curve_and_weights_of_an_undisturbed_one(
    small_run: Path, toy: str, tmp_path: Path
) -> None:
    settings, broken = load_settings("demo", overrides=SMALL), tmp_path / "broken"

    def fail_after_two_epochs(line: str) -> None:
        if line.startswith("epoch 2 finished"):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(FitRequest(settings, toy, broken), fail_after_two_epochs)
    assert 8 <= torch.load(broken / "last.pt", weights_only=True)["step"] < len(history(broken)) < 32
    fit(FitRequest(settings, toy, broken, resume=True), lambda line: None)
    assert history(broken) == history(small_run)
    states = [torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (small_run, broken)]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


@pytest.mark.slow
def test_a_resumed_run_draws_the_same_dropout(toy: str, tmp_path: Path) -> None:
    deeplab = ("networks.image=deeplabv3-mobilenet", "stream.batch_samples=2", "optimiser.epochs=3")
    settings = load_settings("demo", overrides=[*SMALL, *deeplab])

    def fail_after_two_epochs(line: str) -> None:
        if line.startswith("epoch 2 finished"):
            raise InterruptedError

    fit(FitRequest(settings, toy, tmp_path / "whole"), lambda line: None)
    with pytest.raises(InterruptedError):
        fit(FitRequest(settings, toy, tmp_path / "broken"), fail_after_two_epochs)
    assert torch.load(tmp_path / "broken/last.pt", weights_only=True)["step"] == 4
    fit(FitRequest(settings, toy, tmp_path / "broken", resume=True), lambda line: None)
    assert history(tmp_path / "broken") == history(tmp_path / "whole")


def test_a_folder_with_a_run_is_not_overwritten(small_run: Path, toy: str) -> None:
    before = (small_run / "last.pt").read_bytes()
    assert "--resume" in run_cli("fit", toy, "--out", small_run, exit_code=1).stderr
    changed = run_cli("fit", toy, "--out", small_run, "--resume", *overrides("optimiser.lr=0.2"), exit_code=1)
    assert "other settings (optimiser.lr = 0.01 in the run, 0.2 now)" in changed.stderr
    assert (small_run / "last.pt").read_bytes() == before


def test_a_run_is_not_resumed_on_a_changed_cache(toy: str, small_run: Path, tmp_path: Path) -> None:
    changed = str(shutil.copytree(toy, tmp_path / "cache"))
    path = GroupPath("scene-0-000", "labels")
    arrays, seal = Cache(changed).read(path), Cache(changed).seals([path])[path]
    tokens = ("scene-0-s0", "scene-0-s1")
    Cache(changed, "a").write_group(path, arrays, Provenance("new", upstream=seal.upstream, samples=tokens))
    again = run_cli("fit", changed, "--out", small_run, "--resume", *overrides(), exit_code=1)
    assert "other cache contents" in again.stderr


@pytest.mark.parametrize("found", ["after some seconds", "in place of damage"])
def test_labels_that_are_made_again_meanwhile_stop_the_training(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    monkeypatch.setattr(stream, "CONFIRM_SECONDS", 0.0 if found == "after some seconds" else 1e9)
    settings = load_settings("demo", overrides=SMALL)

    def make_labels_again(line: str) -> None:
        if line.startswith("epoch 1 finished"):
            for key in Cache(own).shard_keys():
                path = GroupPath(key, "labels")
                arrays, seal = Cache(own).read(path), Cache(own).seals([path])[path]
                if found == "in place of damage":
                    rng = np.random.default_rng(0)
                    arrays = {name: rng.integers(0, 3, array.shape).astype(np.uint8) for name, array in arrays.items()}
                again = Provenance("new", upstream=seal.upstream, samples=seal.samples)
                Cache(own, "a").write_group(path, arrays, again)

    with pytest.raises(UnfitCacheError, match=r"labels: made again or removed since the run started.*--out another"):
        fit(FitRequest(settings, own, tmp_path / "run"), make_labels_again)
    last_epoch = history(tmp_path / "run")[-1]["epoch"] if history(tmp_path / "run") else 0
    assert last_epoch <= 1


# Errors


def test_a_loss_that_is_not_a_number_stops_with_the_last_good_checkpoint(toy: str, tmp_path: Path) -> None:
    diverging = ["optimiser.lr=1e12", "optimiser.max_gradient_norm=null", "optimiser.warmup_steps=1"]
    settings = overrides("optimiser.epochs=6", *diverging)
    done = run_cli("fit", toy, "--out", tmp_path / "run", *settings, exit_code=1)
    assert "the loss is nan" in done.stderr
    assert "lower optimiser.lr" in done.stderr and "optimiser.max_gradient_norm" in done.stderr
    if (tmp_path / "run/last.pt").exists():
        state = torch.load(tmp_path / "run/last.pt", weights_only=True)
        assert all(tensor.isfinite().all() for tensor in state["model"].values())


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_bit_stops_with_one_sentence(own: str, tmp_path: Path, workers: int) -> None:
    file = Path(own) / "shards/scene-0-000/sam/features/c/0/0/0/0"
    data = bytearray(file.read_bytes())
    data[500] ^= 1
    file.write_bytes(bytes(data))
    done = run_cli("fit", own, "--out", tmp_path / "run", *overrides(f"stream.workers={workers}"), exit_code=1)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "scene-0-000/sam/features: damaged" in line and "labelgen run" in line
    assert "Traceback" not in done.stderr


def test_samples_without_pairs_and_absent_classes_can_be_trained_on(own: str, tmp_path: Path) -> None:
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
    run_cli("fit", own, "--out", tmp_path / "run", *overrides("optimiser.epochs=2", "schedule.stage2_epoch=1"))
    assert all(np.isfinite(row["loss"]) for row in history(tmp_path / "run"))


@pytest.mark.parametrize(("points", "network"), [(0, "spvcnn"), (1, "spvcnn-2dpass")])
def test_empty_clouds_and_single_points_can_be_trained_on_and_scored(
    tmp_path: Path, make_cache, monkeypatch: pytest.MonkeyPatch, points: int, network: str
) -> None:
    monkeypatch.setattr(conftest, "POINTS", points)
    cache = make_cache(tmp_path / "cache")
    networks = [f"networks.cloud={network}", "optimiser.epochs=2", "schedule.stage2_epoch=1", "stream.images=1"]
    run_cli("fit", cache, "--out", tmp_path / "run", *overrides(*networks))
    rows = history(tmp_path / "run")
    assert len(rows) == 8 and all(np.isfinite(row["loss"]) for row in rows)
    assert "3D network" in run_cli("evaluate", tmp_path / "run", cache).stdout


def test_a_wrong_setting_is_named_with_the_nearest_valid_key(toy: str, tmp_path: Path) -> None:
    done = run_cli("fit", toy, "--out", tmp_path / "run", "--set", "optimiser.epoch=3", exit_code=1)
    assert "optimiser.epoch'; did you mean 'optimiser.epochs'?" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [("stream.samples", "stream.batch_samples"), ("optimiser.clip_norm", "optimiser.max_gradient_norm")],
)
def test_a_setting_of_an_earlier_version_is_refused_with_its_new_name(
    old: str, new: str, toy: str, small_run: Path, tmp_path: Path
) -> None:
    done = run_cli("fit", toy, "--out", tmp_path / "run", "--set", f"{old}=1", exit_code=1)
    assert f"key {old!r} is now called {new!r}" in done.stderr
    earlier = tmp_path / "earlier"
    shutil.copytree(small_run, earlier)
    record = json.loads((earlier / "run.json").read_text())
    section = record["settings"][new.split(".")[0]]
    section[old.split(".")[1]] = section.pop(new.split(".")[1])
    (earlier / "run.json").write_text(json.dumps(record))
    done = run_cli("evaluate", earlier, toy, exit_code=1)
    assert "written by an earlier version" in done.stderr and f"{old!r} to {new!r}" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("part", ["tensorboard", "history.jsonl"])
def test_what_a_training_cannot_write_is_one_error(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, number: int
) -> None:
    real_makedirs, real_open = os.makedirs, io.open

    def refuse(real):
        def checked(path, *rest, **more):
            if isinstance(path, (str, Path)) and str(path).startswith(str(tmp_path)) and part in str(path):
                raise OSError(number, os.strerror(number), str(path))
            return real(path, *rest, **more)

        return checked

    monkeypatch.setattr(os, "makedirs", refuse(real_makedirs))
    monkeypatch.setattr(io, "open", refuse(real_open))
    done = run_cli("fit", toy, "--out", tmp_path / "run", *overrides("optimiser.epochs=2"), exit_code=1)
    assert f"{part}: cannot be written ({os.strerror(number)})" in done.stderr and "--resume" in done.stderr
    assert "Traceback" not in done.stderr
