"""The terms of OpenScene and CLIP2Scene, by hand."""

import math

import numpy as np
import pytest
import torch

from trainer.data.augment import Crop
from trainer.data.sweeps import join_sweeps
from trainer.terms.distillation import cell_positions, distillation_loss
from trainer.terms.spatial_temporal import consistency_loss, points_of_labelled_voxels
from trainer.terms.teacher_features import mean_over_views

# OpenScene


def test_a_point_follows_the_mean_of_its_views() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    mean, seen = mean_over_views(features, torch.tensor([2, 0, 2]), 4)
    assert mean.tolist() == [[0, 1], [0, 0], [0.5, 1], [0, 0]]
    assert seen.tolist() == [True, False, True, False]


def test_distillation_is_one_minus_the_cosine_summed_over_elements() -> None:
    found = distillation_loss(torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 0.0], [0.0, 5.0]]))
    assert found.count == 2
    assert found.total.item() == pytest.approx(1 - math.sqrt(0.5), abs=1e-6)


def test_cells_of_a_mirrored_crop_lie_where_the_original_image_shows_them() -> None:
    crop = Crop((8, 16), top=2, left=4, height=4, width=8, mirrored=True)
    image, position = cell_positions(torch.Size((1, 2, 4, 5)), torch.tensor([crop.box()], dtype=torch.float32))
    assert image.tolist() == [0] * 8
    rows, columns = (position * torch.tensor([8.0, 16.0])).unbind(dim=1)
    assert rows.tolist() == [3] * 4 + [5] * 4
    assert columns.tolist() == [11, 9, 7, 5] * 2


# CLIP2Scene


def test_points_are_those_of_voxels_with_a_label_and_take_the_label_of_the_first_labelled_one() -> None:
    voxel = torch.tensor([0, 1, 0, 1, 2, 0])
    labels = torch.tensor([255, 255, 4, 255, 3, 5], dtype=torch.uint8)
    point, group, label = points_of_labelled_voxels(voxel, labels)
    assert point.tolist() == [0, 2, 5, 4]
    assert group.tolist() == [0, 0, 0, 2]
    assert label.tolist() == [4, 4, 4, 3]


def test_of_a_crowded_voxel_the_first_eight_points_take_part() -> None:
    point, _, _ = points_of_labelled_voxels(torch.zeros(12, dtype=torch.int64), torch.ones(12, dtype=torch.uint8))
    assert point.tolist() == list(range(8))


def test_without_labels_no_point_takes_part_and_the_loss_can_be_differentiated() -> None:
    point, group, label = points_of_labelled_voxels(torch.tensor([0, 0]), torch.tensor([255, 255], dtype=torch.uint8))
    mapped = torch.ones(2, 3, requires_grad=True)
    found = consistency_loss(mapped[point], group, torch.ones(3, 3)[label])
    assert found.count == 0
    found.total.backward()
    assert mapped.grad.abs().sum() == 0


def test_consistency_of_two_points_and_of_one() -> None:
    mapped = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    text = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0], [0.0, 1.0]])
    # Attention of the first voxel is 3/4 and 1/4: f = (0.75, 0.5), whose products with its points are 0.75 and 1.
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    found = consistency_loss(mapped, torch.tensor([0, 0, 1]), text)
    assert found.count == 3
    assert found.total.item() == pytest.approx(3 - sigmoid(0.75) - sigmoid(1) - sigmoid(2), abs=1e-6)


def test_points_of_sweeps_follow_those_of_the_cloud_without_labels() -> None:
    arrays = {
        "points/xyz": np.zeros((2, 3), np.float32),
        "points/intensity": np.array([0.1, 0.2], np.float32),
        "labels/point": np.array([3, 255], np.uint8),
        "sweeps/xyz": np.arange(9, dtype=np.float32).reshape(3, 3),
        "sweeps/lag": np.array([0.05, 0.05, 0.1], np.float32),
        "pairs/point": np.array([1]),
    }
    drawn = [join_sweeps(arrays, 1, "labels/point", np.random.default_rng(seed)) for seed in range(8)]
    assert {len(found["points/xyz"]) for found in drawn} == {3, 4}, "one of the two sweeps, at random"
    both = join_sweeps(arrays, 5, "labels/point", np.random.default_rng(0))
    assert both["points/xyz"][2:].tolist() == arrays["sweeps/xyz"].tolist()
    assert both["points/intensity"].tolist() == pytest.approx([0.1, 0.2, 0, 0, 0])
    assert both["labels/point"].tolist() == [3, 255, 255, 255, 255]
    assert both["pairs/point"].tolist() == [1]
