"""Parts of a training run: its learning rate, plan, progress, stop requests, and settings."""

import re

import pytest
import torch

from trainer.data.stream import SampleRef
from trainer.settings import load_settings
from trainer.training import stop
from trainer.training.optimiser import learning_rate
from trainer.training.plan import Plan
from trainer.training.progress import ProgressReport, open_display
from trainer.training.ranks import Ranks

REPORT = ProgressReport(
    epoch=2,
    epochs=3,
    step=20,
    steps=30,
    losses={"loss": 1.5, "image": 0.5, "cloud": 1.0},
    images_per_s=12.3,
    points_per_s=45_600,
    waiting_share=0.017,
    memory_gb=1.26,
    seconds_left=90,
)


def test_the_learning_rate_warms_up_linearly_and_falls_along_a_cosine_to_zero() -> None:
    settings = load_settings("nuscenes", overrides=["optimiser.lr=0.8", "optimiser.warmup_steps=4"]).optimiser
    assert [learning_rate(step, 104, settings) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert learning_rate(54, 104, settings) == pytest.approx(0.4)
    assert learning_rate(104, 104, settings) == pytest.approx(0)


def test_a_plan_numbers_the_steps_of_all_epochs() -> None:
    settings = load_settings("nuscenes", overrides=["optimiser.epochs=3", "stream.batch_samples=2"])
    samples = [SampleRef(f"s{n}", 0, f"t{n}", f"scene-{n}") for n in range(9)]
    plan = Plan([samples], settings, Ranks(0, 1, torch.device("cpu")))
    assert (plan.steps_per_epoch, plan.total_steps) == (4, 12)
    assert [step for step in range(12) if plan.ends_epoch(step)] == [3, 7, 11]
    assert plan.epoch_and_step(6) == (1, 2)
    assert plan.steps_from(5) == [*plan.steps_of(1)[1:], *plan.steps_of(2)]


def test_a_log_has_messages_and_the_last_line_of_progress() -> None:
    lines: list[str] = []
    with open_display(lines.append, live=False) as display:
        display.update(REPORT)
        display.message("epoch 2 finished")
        display.update(ProgressReport(**{**vars(REPORT), "epoch": 3, "step": 30, "seconds_left": 0}))
    assert lines == [
        "epoch 2 finished",
        "epoch 3/3 step 30/30 | loss 1.50 (image 0.50, cloud 1.00) | 12.3 images/s, 46 k points/s | "
        "waiting for data 1.7 % | 1.3 GB | 0.0 min left",
    ]


def test_a_live_display_shows_progress_and_keeps_messages(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    with open_display(pytest.fail, live=True) as display:
        display.update(REPORT)
        display.message("epoch 2 finished: [100 %]")
    shown = re.sub(r"\x1b\[[0-9;?]*\w", "", capsys.readouterr().err)
    for text in ("epoch 2/3", "20/30", "1.5 min left", "loss 1.50", "epoch 2 finished: [100 %]"):
        assert text in shown


def test_a_second_stop_request_stops_at_once_unless_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    request = stop.StopRequest()
    assert not request.requested
    request.handle_signal(15, None)
    request.handle_signal(15, None)
    assert request.requested
    monkeypatch.setattr(stop, "SAME_REQUEST_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        request.handle_signal(15, None)
