"""Affinity3D's transfer of knowledge, by hand: class scores of points at each scale follow those of their pixels."""

from math import log

import pytest
import torch

from cache_schemas.errors import ConfigError
from tests.trainer.test_targets import batch  # noqa: F401  # the fixture
from trainer.data.batch import Batch
from trainer.networks.model import CloudOutputs, ImageOutputs, SceneNetworks
from trainer.networks.point_cloud import PointFeatures
from trainer.settings import load_settings
from trainer.targets import Targets
from trainer.terms.multiscale_kl import MultiscaleKlTerm, kl_of_scores
from trainer.terms.step_values import StepValues


def test_kl_is_the_hand_computed_one_from_the_wanted_to_the_found_distribution() -> None:
    wanted = torch.tensor([[log(3), 0.0], [7.0, 7.0], [0.0, 0.0]])  # 3/4 1/4, 1/2 1/2, 1/2 1/2
    found = torch.tensor([[0.0, 0.0], [-2.0, -2.0], [0.0, log(3)]])  # 1/2 1/2, 1/2 1/2, 1/4 3/4
    expected = [3 / 4 * log(3 / 2) + 1 / 4 * log(1 / 2), 0, 1 / 2 * log(2) + 1 / 2 * log(2 / 3)]
    assert kl_of_scores(wanted, found).item() == pytest.approx(sum(expected), abs=1e-6)


def networks(cloud: str) -> SceneNetworks:
    settings = load_settings("demo", "affinity3d", None, [f"networks.cloud={cloud}", "networks.image_weights=null"])
    return SceneNetworks(settings.networks, torch.eye(2))


def scores_are_first_two_features(term: MultiscaleKlTerm) -> None:
    for head in term.heads:
        torch.nn.init.eye_(head.weight)
        torch.nn.init.zeros_(head.bias)


@pytest.mark.parametrize(("cloud", "scales"), [("spvcnn-2dpass", 4), ("small", 1)])
def test_points_follow_their_pixels_at_each_scale(cloud: str, scales: int, batch: Batch) -> None:  # noqa: F811
    nets = networks(cloud)
    term = MultiscaleKlTerm(nets)
    assert len(term.heads) == scales
    scores_are_first_two_features(term)
    pixels = torch.zeros(1, 2, 2, 3)
    pixels[0, 0, 0, 0] = log(3)  # the pixel of point 0 in its first pair, and of no other pair
    pixels.requires_grad_()
    width = term.heads[0].weight.shape[1]
    rows = torch.zeros(2, width)
    rows[1, 1] = log(3)  # points 1 and 2, and the unseen point 3, share a row
    found = PointFeatures(rows.requires_grad_(), torch.tensor([0, 1, 1, 1]))
    flat = PointFeatures(torch.zeros(1, width), torch.tensor([0, 0, 0, 0]))
    given = (found, *(flat for _ in range(scales - 1)))
    cloud_outputs = CloudOutputs(given[0], given if scales > 1 else (), torch.zeros(4, 2))
    step = StepValues(batch, nets, ImageOutputs(torch.zeros(1, 1, 1, 4), pixels), cloud_outputs, Targets(None, None))

    loss = term(step)["cloud_kl"]

    of_point_0 = 3 / 4 * log(3 / 2) + 1 / 4 * log(1 / 2)  # at all scales: its scores are 0 0
    of_others = 1 / 2 * log(2) + 1 / 2 * log(2 / 3)  # points 1 and 2, at the first scale alone
    assert loss.count == 4
    assert loss.total.item() == pytest.approx(of_point_0 + 2 * of_others / scales, abs=1e-6)
    loss.total.backward()
    assert pixels.grad is None and rows.grad is not None and rows.grad[:, :2].abs().min() > 0
    assert all(head.weight.grad is not None for head in term.heads)


def test_a_missing_network_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"terms.multiscale_kl needs both networks, but networks.image is none"):
        load_settings("demo", "affinity3d", None, ["networks.image=none"])
