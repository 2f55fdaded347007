"""What a run of two weeks needs: kept checkpoints, scores on the way, other settings on resume, and one writer."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.trainer.runs import history, overrides, run_cli
from trainer.run_folder import RunFolder


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return shutil.copytree(small_run, tmp_path / "run")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


def test_checkpoints_are_kept_and_held_out_scenes_scored_without_a_change_of_the_training(
    toy: str, small_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = run_cli("fit", toy, "--out", out, *overrides("keep_checkpoints=epoch", "score_epochs=3"))
    assert history(out) == history(small_run)
    assert {f"epoch-{n:04d}" for n in (1, 2, 3, 4)} < set(RunFolder(out).checkpoints())
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["step"]) for row in rows] == [(3, 23), (4, 31)]
    for row, name in zip(rows, ("epoch-0003", "last"), strict=True):
        found = json.loads(run_cli("evaluate", out, toy, "--json", "--checkpoint", name).stdout)
        for part in ("image", "point", "point_seen"):
            assert row[part] == pytest.approx(found[part]["miou"], abs=1e-9)
    assert f"epoch 4: mIoU on held-out scenes: image {100 * rows[1]['image']:.1f} %" in done.stderr


def test_the_end_of_stage_1_is_kept(toy: str, tmp_path: Path) -> None:
    run_cli("fit", toy, "--out", tmp_path / "run", *overrides("optimiser.epochs=3", "keep_checkpoints=stage"))
    assert RunFolder(tmp_path / "run").checkpoints() == ["best", "epoch-0002", "last", "previous"]


def test_scores_without_held_out_scenes_are_refused(toy: str, tmp_path: Path) -> None:
    words = overrides("stream.hold_out=0", "score_epochs=1")
    assert "score_epochs needs held-out scenes" in run_cli("fit", toy, "--out", tmp_path, *words, exit_code=1).stderr


@pytest.mark.parametrize("from_file", [False, True])
def test_a_run_starts_from_the_weights_of_another(toy: str, small_run: Path, tmp_path: Path, from_file: bool) -> None:
    start = small_run / "best.pt" if from_file else small_run
    run_cli("fit", toy, "--out", tmp_path / "run", "--init", start, *overrides("optimiser.epochs=1"))
    assert history(tmp_path / "run")[0]["loss"] < 0.8 * history(small_run)[0]["loss"]
    assert json.loads((tmp_path / "run/run.json").read_text())["init"] == str(start)


def test_weights_of_other_networks_are_refused(toy: str, small_run: Path, tmp_path: Path) -> None:
    words = overrides("networks.cloud=minkunet14a")
    done = run_cli("fit", toy, "--out", tmp_path / "run", "--init", small_run, *words, exit_code=1)
    assert "missing or have another shape, such as networks.cloud." in done.stderr


def test_workers_precision_and_more_epochs_may_change_on_resume(toy: str, run: Path) -> None:
    more = ("optimiser.epochs=5", "optimiser.precision=bf16", "checkpoint_minutes=5")
    run_cli("fit", toy, "--out", run, "--resume", *overrides(*more))
    assert [row["step"] for row in history(run)] == list(range(40))
    assert json.loads((run / "run.json").read_text())["settings"]["optimiser"]["epochs"] == 5
    fewer = run_cli("fit", toy, "--out", run, "--resume", *overrides("optimiser.epochs=3"), exit_code=1)
    assert "has finished 5 epochs and optimiser.epochs = 3 is less" in fewer.stderr
    other = run_cli("fit", toy, "--out", run, "--resume", *overrides(*more, "augment.relight=0"), exit_code=1)
    assert "augment.relight = 0.3 in the run, 0.0 now" in other.stderr


def test_a_finished_run_says_so(toy: str, run: Path) -> None:
    done = run_cli("fit", toy, "--out", run, "--resume", *overrides())
    assert "all 4 epochs are done; raise optimiser.epochs" in done.stderr


def test_two_trainings_do_not_write_one_run(toy: str, run: Path) -> None:
    before = (run / "last.pt").read_bytes()
    with RunFolder(run).locked():
        done = run_cli("fit", toy, "--out", run, "--resume", *overrides("optimiser.epochs=5"), exit_code=1)
    assert "is training this run; wait for it to end" in done.stderr and "process " in done.stderr
    assert (run / "last.pt").read_bytes() == before


def test_a_damaged_last_checkpoint_falls_back_to_the_latest_good_one(toy: str, run: Path) -> None:
    whole, best, previous = history(run), run / "best.pt", run / "previous.pt"
    steps = {file: torch.load(file, weights_only=True)["step"] for file in (best, previous)}
    cut(run / "last.pt")
    evaluated = run_cli("evaluate", run, toy, exit_code=1)
    assert "last.pt: not a checkpoint" in evaluated.stderr and "other checkpoints: best, previous" in evaluated.stderr
    latest = max(steps, key=steps.__getitem__)
    done = run_cli("fit", toy, "--out", run, "--resume", *overrides())
    assert "last.pt: not a checkpoint" in done.stderr
    assert f"going on from {latest.name}, after step {steps[latest]}" in done.stderr and steps[latest] > 20
    assert history(run) == whole
    assert torch.load(run / "last.pt", weights_only=True)["step"] == 32
    for file in (run / "last.pt", best):
        file.unlink()
    assert "going on from previous.pt" in run_cli("fit", toy, "--out", run, "--resume", *overrides()).stderr
    assert history(run) == whole
    assert torch.load(run / "last.pt", weights_only=True)["step"] == 32


def test_a_run_without_a_good_checkpoint_is_not_begun_again(toy: str, run: Path) -> None:
    for file in run.glob("*.pt"):
        cut(file)
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file() and file.name != "run.lock"}
    done = run_cli("fit", toy, "--out", run, "--resume", *overrides(), exit_code=1)
    assert "no other can be read; start a new run with --out another folder" in done.stderr
    assert all((run / name).read_bytes() == data for name, data in before.items())


def test_a_record_of_another_version_is_refused(toy: str, run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    for version in (None, 99):
        record["version"] = version
        (run / "run.json").write_text(json.dumps(record))
        assert f"run.json: version {version} of the record" in run_cli("evaluate", run, toy, exit_code=1).stderr
