"""The model: class scores, and what it imports."""

import subprocess
import sys

import torch

from trainer.networks.model import class_scores


def test_scores_are_dot_products_of_mapped_features_with_text() -> None:
    torch.manual_seed(0)
    features, text = torch.randn(2, 7, 6), torch.randn(5, 8)
    layer = torch.nn.Linear(6, 8)
    expected = torch.stack([(layer(features) * t).sum(dim=-1) for t in text], dim=-1)
    torch.testing.assert_close(class_scores(features, layer, text), expected)


def test_the_model_imports_no_loader() -> None:
    code = "import sys, trainer.networks.model; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if name.startswith("trainer.data.")} == {"trainer.data.batch"}
