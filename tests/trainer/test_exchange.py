"""The exchange of features between points and voxels, by values computed by hand."""

import pytest
import torch

from trainer.networks.exchange import VoxelTable, halve, mean_of_rows, trilinear

VOXELS = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.int32)
"""Two neighbours along x in sample 0, in the reverse order, and one voxel of sample 1."""
FEATURES = torch.tensor([[8.0], [4], [100]])


def features_at(position: list[float], sample: int = 0, stride: int = 1) -> float:
    found = trilinear(VoxelTable(VOXELS), torch.tensor([sample]), torch.tensor([position]), stride)
    return float(found(FEATURES))


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (0.5, 4),  # the centre of the left voxel
        (0.75, 0.75 * 4 + 0.25 * 8),
        (1.0, 6),  # the face between the two
        (1.5, 8),
        (0.1, 4),  # beyond the outer centres there is no other voxel to share with
        (1.9, 8),
    ],
)
def test_points_between_centres_get_features_between(x: float, expected: float) -> None:
    assert features_at([0.5, 0.5, x]) == pytest.approx(expected)
    assert features_at([1.0, 1.0, 2 * x], stride=2) == pytest.approx(expected)


def test_weights_of_voxels_that_do_not_exist_go_to_the_others() -> None:
    # Of the eight voxels around this point two exist, with the weights 0.6 * 0.9 * 0.75 and 0.6 * 0.9 * 0.25.
    assert features_at([0.9, 0.6, 0.75]) == pytest.approx(0.75 * 4 + 0.25 * 8)


def test_points_get_nothing_from_other_samples() -> None:
    assert features_at([0.5, 0.5, 0.9], sample=1) == pytest.approx(100)


def test_a_voxel_gets_the_mean_of_its_points() -> None:
    values = torch.tensor([[1.0, 0], [3, 0], [5, 7]])
    row = torch.tensor([2, 2, 0])
    found = mean_of_rows(values, row, 3)
    assert found[[0, 2]].tolist() == [[5, 7], [2, 0]]
    weighted = mean_of_rows(values, torch.tensor([0, 0, 1]), 2, torch.tensor([3.0, 1, 2]))
    assert weighted.tolist() == [[1.5, 0], [5, 7]]


def test_voxels_of_twice_the_stride_contain_those_of_a_stride() -> None:
    voxels = torch.tensor([[1, 4, 0, 7], [0, 3, 2, 1], [0, 2, 3, 0], [1, 5, 1, 6], [0, 0, 0, 0]], dtype=torch.int32)
    coarse, row = halve(voxels)
    assert coarse.tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [1, 2, 0, 3]] and coarse.dtype == torch.int32
    assert row.tolist() == [2, 1, 1, 2, 0]
