"""Several caches in one training: shares of the steps, resuming, held-out scenes, and caches that do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from tests.trainer.runs import SMALL, history, overrides, run_cli
from trainer.data.stream import SampleRef
from trainer.fit import FitRequest, fit
from trainer.settings import load_settings
from trainer.training.plan import Plan
from trainer.training.ranks import Ranks

THREE_EPOCHS = ("stream.images=1", "schedule.stage2_epoch=2", "optimiser.epochs=3")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, make_cache) -> str:
    """A toy cache with other contents and the same names of scenes as `toy`; training takes four of its samples."""
    return make_cache(tmp_path_factory.mktemp("other") / "cache", scenes=3, seed=7)


@pytest.fixture(scope="module")
def joint_run(toy: str, other: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on `toy` and `other` with shares of 1 and 2 of the steps."""
    out = tmp_path_factory.mktemp("runs") / "joint"
    run_cli("fit", toy, other, "--share", 1, "--share", 2, "--out", out, *overrides(*THREE_EPOCHS))
    return out


def plan(shares: tuple[int, ...] = (), rank: int = 0, world: int = 1, batch_samples: int = 2) -> Plan:
    """Return a plan of three epochs over caches of 12 and of 4 samples, in shards of one."""
    settings = load_settings("demo", overrides=["optimiser.epochs=3", f"stream.batch_samples={batch_samples}"])
    caches = [[SampleRef(f"s{n}", 0, f"t{n}", f"scene-{n}") for n in range(size)] for size in (12, 4)]
    return Plan(caches, settings, Ranks(rank, world, torch.device("cpu")), shares)


# The plan


def test_without_shares_an_epoch_takes_every_sample_of_every_cache_once() -> None:
    steps = [plan().steps_of(epoch) for epoch in range(3)]
    for epoch, found in enumerate(steps):
        taken = sorted((step.cache, index) for step in found for index in step.sample_indices)
        assert taken == [(0, n) for n in range(12)] + [(1, n) for n in range(4)]
        assert {step.epoch for step in found} == {epoch}
    orders = [[step.cache for step in found] for found in steps]
    assert orders[0] != sorted(orders[0]) and orders[0] != orders[1], "caches take turns, in another order each epoch"


def test_shares_decide_the_steps_of_each_cache_and_passes_go_on_over_epochs() -> None:
    shared = plan(shares=(1, 3))  # of 6 + 2 steps of two samples, 2 and 6 are theirs
    steps = shared.steps_from(0)
    assert (shared.steps_by_cache, shared.steps_per_epoch, len(steps)) == ((2, 6), 8, 24)
    for epoch in range(3):
        assert [step.cache for step in shared.steps_of(epoch)].count(0) == 2
    large, small = ([step for step in steps if step.cache == cache] for cache in (0, 1))
    assert sorted(index for step in large for index in step.sample_indices) == list(range(12)), "one pass in 3 epochs"
    for number in range(9):
        one_pass = small[2 * number : 2 * number + 2]
        assert sorted(index for step in one_pass for index in step.sample_indices) == list(range(4))
        assert {step.epoch for step in one_pass} == {number}, "the pass, by which repeated samples are augmented"


@pytest.mark.parametrize("shares", [(), (5, 2)])
def test_two_ranks_share_the_samples_of_each_step_of_one_rank(shares: tuple[int, ...]) -> None:
    alone = plan(shares, batch_samples=2).steps_from(3)
    ranks = [plan(shares, rank, world=2, batch_samples=1).steps_from(3) for rank in range(2)]
    for joint, *parts in zip(alone, *ranks, strict=True):
        assert {part.cache for part in parts} == {joint.cache}
        assert [index for part in parts for index in part.sample_indices] == list(joint.sample_indices)


def test_a_small_share_still_gives_a_step() -> None:
    assert plan(shares=(1000, 1)).steps_by_cache == (8, 1)


# Runs


def test_a_run_on_two_caches_resumes_to_the_same_losses(joint_run: Path, toy: str, other: str, tmp_path: Path) -> None:
    settings, broken = load_settings("demo", overrides=[*SMALL, *THREE_EPOCHS]), tmp_path / "broken"
    request = FitRequest(settings, toy, broken, more_caches=(other,), shares=(1, 2))

    def fail_after_two_epochs(line: str) -> None:
        if line.startswith("epoch 2 finished"):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(request, fail_after_two_epochs)
    again = ("--out", broken, "--resume", *overrides(*THREE_EPOCHS))
    refused = run_cli("fit", toy, other, "--share", 2, "--share", 1, *again, exit_code=1)
    assert "(--share 1 --share 2 in the run, --share 2 --share 1 now)" in refused.stderr
    assert "has 2 caches" in run_cli("fit", toy, *again, exit_code=1).stderr
    assert "other cache contents" in run_cli("fit", other, toy, "--share", 1, "--share", 2, *again, exit_code=1).stderr
    run_cli("fit", toy, other, "--share", 1, "--share", 2, *again)
    assert history(broken) == history(joint_run)
    assert len(history(broken)) == 3 * 12, "8 and 4 samples, one in each step"


def test_the_held_out_scenes_of_each_cache_are_scored(joint_run: Path, toy: str, other: str) -> None:
    caches = json.loads((joint_run / "run.json").read_text())["caches"]
    assert [(cache["cache"], cache["share"]) for cache in caches] == [(toy, 1), (other, 2)]
    assert [list(cache["held_out"]) for cache in caches] == [["scene-2"], ["scene-2"]]
    for cache, training in ((toy, 8), (other, 4)):
        found = json.loads(run_cli("evaluate", joint_run, cache, "--json").stdout)
        assert (found["scenes"], found["samples"]) == ("held-out", 2)
        found = json.loads(run_cli("evaluate", joint_run, cache, "--json", "--scenes", "training").stdout)
        assert found["samples"] == training


def test_a_run_of_one_cache_that_an_earlier_version_recorded_is_still_read(
    small_run: Path, toy: str, tmp_path: Path
) -> None:
    record = json.loads((small_run / "run.json").read_text())
    (cache,) = record.pop("caches")
    cache.pop("share")
    (tmp_path / "run.json").write_text(json.dumps(record | cache))
    (tmp_path / "last.pt").write_bytes((small_run / "last.pt").read_bytes())
    assert json.loads(run_cli("evaluate", tmp_path, toy, "--json").stdout)["scenes"] == "held-out"


# Caches that do not fit together


def test_caches_of_other_classes_or_prompts_are_refused(toy: str, lidarseg: str, tmp_path: Path, make_cache) -> None:
    refused = run_cli("fit", toy, lidarseg, "--out", tmp_path / "run", *overrides(), exit_code=1).stderr
    assert f"{toy} and {lidarseg}: cannot be trained on together" in refused
    assert "use caches of one taxonomy" in refused
    prompted = make_cache(tmp_path / "prompted")
    text, embeddings = GroupPath.root("text"), 0.6 * np.eye(3, 8, dtype=np.float32) + 0.8 * np.eye(3, 8, 1, np.float32)
    fingerprint = Cache(prompted).seals([text])[text].fingerprint  # the clip groups name it, so they stay up to date
    Cache(prompted, "a").write_group(text, {"embeddings": embeddings}, Provenance(fingerprint))
    refused = run_cli("fit", toy, prompted, "--out", tmp_path / "run", *overrides(), exit_code=1).stderr
    assert f"{toy} and {prompted}: cannot be trained on together, since their text embeddings differ" in refused


def test_a_number_of_shares_other_than_that_of_caches_is_wrong_usage(toy: str, other: str, tmp_path: Path) -> None:
    refused = run_cli("fit", toy, other, "--share", 2, "--out", tmp_path / "run", *overrides(), exit_code=2).stderr
    assert "--share is given 1 times for 2 caches" in refused
