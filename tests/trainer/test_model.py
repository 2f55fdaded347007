"""The model: class scores, and what it imports."""

import subprocess
import sys
from dataclasses import replace

import torch
from torch.nn import functional

from tests.trainer.test_builder import batches, toy_settings
from trainer.data.sampler import Step
from trainer.method_settings import Source
from trainer.networks.model import class_scores
from trainer.schedule import TargetSources
from trainer.training.model import TrainingModel


def test_scores_are_dot_products_of_mapped_features_with_text() -> None:
    torch.manual_seed(0)
    features, text = torch.randn(2, 7, 6), torch.randn(5, 8)
    layer = torch.nn.Linear(6, 8)
    expected = torch.stack([(layer(features) * t).sum(dim=-1) for t in text], dim=-1)
    torch.testing.assert_close(class_scores(features, layer, text), expected)


def test_frozen_features_are_taken_from_the_valid_part_of_their_grid(toy: str) -> None:
    torch.manual_seed(0)
    batch = batches(toy)[0][Step(0, 0, (0,))]
    model = TrainingModel(toy_settings("networks.image_weights=null"), torch.eye(3, 8), {"sam": 16}).eval()
    padded = replace(batch, features={"sam": functional.pad(batch.features["sam"], (0, 0, 0, 3, 0, 2), value=127)})
    sources = TargetSources(Source.CLIP_2D, Source.CLIP_3D)
    found, expected = (model(part, sources).losses for part in (padded, batch))
    for network in ("image_sam", "cloud_sam"):
        torch.testing.assert_close(found[network].total, expected[network].total)


def test_the_model_imports_no_loader() -> None:
    code = "import sys, trainer.networks.model; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if name.startswith("trainer.data.")} == {"trainer.data.batch"}
