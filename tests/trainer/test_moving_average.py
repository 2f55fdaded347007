"""Targets from a moving average of the networks' weights."""

from pathlib import Path

import pytest
import torch

from tests.trainer.runs import overrides, run_cli
from tests.trainer.test_builder import batches, toy_settings
from trainer.data.sampler import Step
from trainer.method_settings import Source
from trainer.schedule import TargetSources
from trainer.terms.semantic import semantic_loss
from trainer.training.model import TrainingModel

OWN = TargetSources(Source.OWN_2D, Source.OWN_3D)


def averaged(decay: float) -> TrainingModel:
    settings = toy_settings("networks.image_weights=null", f"schedule.ema_decay={decay}", "schedule.refine=false")
    return TrainingModel(settings, torch.eye(3, 8), {"sam": 16})


def test_weights_of_the_average_keep_their_share_at_each_step() -> None:
    model, weights = averaged(0.75), []
    for value in (1.0, 3.0, 7.0):
        torch.nn.init.constant_(model.networks.phi_s.bias, value)
        model.update_average()
        weights.append(model.average.module.phi_s.bias[0].item())
    assert weights == pytest.approx([1, 0.75 * 1 + 0.25 * 3, 0.75 * 1.5 + 0.25 * 7])
    assert not any(parameter.requires_grad for parameter in model.average.parameters())


def test_targets_are_predictions_of_the_average(toy: str) -> None:
    batch = batches(toy, "augment.images=false")[0][Step(0, 0, (0,))]
    model = averaged(0.9).train()
    assert not model.average.training
    torch.nn.init.zeros_(model.average.module.phi_s.weight)
    with torch.no_grad():
        model.average.module.phi_s.bias[:3] = torch.tensor([0.0, 5.0, 0.0])  # it calls all points 1
    seen = torch.zeros(len(batch.point_labels), dtype=torch.bool)
    seen[batch.pair_point] = True
    found = model(batch, OWN)
    scores = model.networks(batch)[1].scores
    expected = semantic_loss(scores, torch.where(seen, 1, 255).to(torch.uint8))
    torch.testing.assert_close(found.losses["cloud"].total, expected.total)
    assert (found.predictions.points != 1).any(), "the networks themselves call some another class"


def test_a_checkpoint_holds_the_average_and_a_run_starts_it_from_given_weights(toy: str, tmp_path: Path) -> None:
    words = overrides("schedule.ema_decay=0.9", "schedule.stage2_epoch=0", "optimiser.epochs=1")
    run_cli("fit", toy, "--out", tmp_path / "run", *words)
    state = torch.load(tmp_path / "run/last.pt", weights_only=True)["model"]
    own, average = state["networks.phi_s.weight"], state["average.module.phi_s.weight"]
    assert 0 < (own - average).abs().max() < own.abs().max()
    run_cli("evaluate", tmp_path / "run", toy)
    run_cli("fit", toy, "--out", tmp_path / "next", "--init", tmp_path / "run", *words)
