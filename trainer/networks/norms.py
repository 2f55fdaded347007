"""Batch norms that can be trained on a single value of each channel, such as one picture's mean or a lone voxel.

A batch of one value has no variance. It is normalised by the running statistics, as in evaluation, and does not change
them.
"""

from torch import Tensor, nn
from torch.nn import functional


class BatchNorm1d(nn.BatchNorm1d):
    """`nn.BatchNorm1d` over features (V, C) that takes V = 1."""

    def forward(self, input: Tensor) -> Tensor:
        """Return normalised features (V, C)."""
        return _by_running_statistics(self, input) if _is_single(self, input) else super().forward(input)


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` over features (B, C, h, w) that takes B = h = w = 1."""

    def forward(self, input: Tensor) -> Tensor:
        """Return normalised features (B, C, h, w)."""
        return _by_running_statistics(self, input) if _is_single(self, input) else super().forward(input)


def replace_norms(module: nn.Module) -> None:
    """Replace each `nn.BatchNorm2d` in a new network by ours; weights and statistics start again."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            setattr(module, name, BatchNorm2d(child.num_features, child.eps, child.momentum))
        else:
            replace_norms(child)


def _is_single(norm: nn.Module, values: Tensor) -> bool:
    return norm.training and values.numel() == values.shape[1]


def _by_running_statistics(norm: nn.BatchNorm1d | nn.BatchNorm2d, values: Tensor) -> Tensor:
    return functional.batch_norm(
        values, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
    )
