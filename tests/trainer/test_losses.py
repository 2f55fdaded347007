"""Equations 5 to 7, by hand."""

import math

import pytest
import torch

from trainer.terms.latent import latent_loss
from trainer.terms.semantic import semantic_loss

# Eq 5 and 6


def test_semantic_loss_is_the_hand_computed_cross_entropy_of_labelled_elements() -> None:
    scores = torch.tensor([[0.0, math.log(3)], [5.0, -5.0], [math.log(4), 0.0]])
    found = semantic_loss(scores, torch.tensor([1, 255, 1], dtype=torch.uint8))
    assert found.count == 2
    assert found.total.item() == pytest.approx(-math.log(3 / 4) - math.log(1 / 5), abs=1e-6)


def test_elements_count_as_much_as_their_class_weighs() -> None:
    scores = torch.tensor([[0.0, math.log(3)], [5.0, -5.0], [math.log(4), 0.0]])
    found = semantic_loss(scores, torch.tensor([1, 255, 0], dtype=torch.uint8), torch.tensor([0.5, 3.0]))
    assert found.count == 3.5
    assert found.total.item() == pytest.approx(-3 * math.log(3 / 4) - 0.5 * math.log(4 / 5), abs=1e-6)


def test_elements_count_as_much_as_their_labels_are_sure() -> None:
    scores = torch.tensor([[0.0, math.log(3)], [5.0, -5.0], [math.log(4), 0.0]])
    labels, confidence = torch.tensor([1, 255, 1], dtype=torch.uint8), torch.tensor([51, 255, 255], dtype=torch.uint8)
    found = semantic_loss(scores, labels, None, confidence)
    assert found.count.item() == pytest.approx(1.2)
    assert found.total.item() == pytest.approx(-0.2 * math.log(3 / 4) - math.log(1 / 5), abs=1e-6)
    found = semantic_loss(scores, labels, torch.tensor([7.0, 3.0]), confidence)
    assert found.count.item() == pytest.approx(3.6)
    assert found.total.item() == pytest.approx(-0.6 * math.log(3 / 4) - 3 * math.log(1 / 5), abs=1e-6)


def test_no_labels_give_a_zero_that_can_be_differentiated() -> None:
    scores = torch.zeros(4, 3, requires_grad=True)
    found = semantic_loss(scores, torch.full((4,), 255, dtype=torch.uint8))
    assert found.total.item() == 0 and found.count == 0
    found.total.backward()
    assert scores.grad.abs().sum() == 0


# Eq 7


def test_latent_loss_is_one_minus_cosine_summed_over_pairs() -> None:
    features = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, -3.0]])
    teacher = torch.tensor([[5.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = latent_loss(features, teacher)
    assert found.count == 3
    assert found.total.item() == pytest.approx(0 + (1 - math.sqrt(0.5)) + 2, abs=1e-6)
