"""The sparse convolutions that MinkUNet and SPVCNN are made of."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from trainer.networks.sparse import ALGORITHM, spconv

Norm = Callable[[int], nn.Module]
"""Makes the norm of a layer from its channels."""


class Block(spconv.SparseModule):  # type: ignore[misc]  # spconv has no types
    """A residual block of two convolutions; the input is projected where its number of channels differs."""

    def __init__(self, before: int, after: int, key: str, norm: Norm) -> None:
        """Build the block; blocks with the same `key` share the tables of neighbouring voxels."""
        super().__init__()
        self.first, self.norm1 = convolution(before, after, 3, key), norm(after)
        self.second, self.norm2 = convolution(after, after, 3, key), norm(after)
        self.project = (
            nn.Sequential(nn.Linear(before, after, bias=False), norm(after)) if before != after else nn.Identity()
        )

    def forward(self, x: spconv.SparseConvTensor) -> spconv.SparseConvTensor:
        """Return features of the same voxels."""
        y = self.first(x)
        y = self.second(y.replace_feature(self.norm1(y.features).relu()))
        return y.replace_feature((self.norm2(y.features) + self.project(x.features)).relu())


def residual_blocks(before: int, after: int, blocks: int, key: str, norm: Norm) -> list[Block]:
    """Return `blocks` residual blocks, the first of which changes the number of channels."""
    widths = [before] + [after] * blocks
    return [Block(one, other, key, norm) for one, other in pairwise(widths)]


def convolution(before: int, after: int, kernel: int, key: str) -> nn.Module:
    """Return a convolution that keeps the voxels of `key`."""
    # The table of neighbouring voxels depends on the kernel size as well as on the level.
    layer: nn.Module = spconv.SubMConv3d(
        before, after, kernel, padding=kernel // 2, bias=False, indice_key=f"{key}-{kernel}", algo=ALGORITHM
    )
    return layer


def halving_stage(before: int, width: int, blocks: int, level: int, norm: Norm) -> nn.Module:
    """Return what maps voxels of stride 2^level to those of twice that stride, with residual blocks there."""
    stage: nn.Module = spconv.SparseSequential(
        spconv.SparseConv3d(before, before, 2, stride=2, bias=False, indice_key=f"half{level}", algo=ALGORITHM),
        norm(before),
        nn.ReLU(inplace=True),
        *residual_blocks(before, width, blocks, f"level{level + 1}", norm),
    )
    return stage


def doubling(before: int, after: int, level: int, norm: Norm) -> nn.Module:
    """Return what maps voxels back to those of stride 2^level, from which `halving_stage` made them."""
    up = spconv.SparseInverseConv3d(before, after, 2, indice_key=f"half{level}", bias=False, algo=ALGORITHM)
    stage: nn.Module = spconv.SparseSequential(up, norm(after), nn.ReLU(inplace=True))
    return stage


def sparse_tensor(features: Tensor, voxels: Tensor, samples: int, halvings: int) -> spconv.SparseConvTensor:
    """Return features (V, K) at voxels (V, 4) i32 as (sample, z, y, x), for networks that halve the resolution.

    A convolution of stride 2 drops the last plane of an odd extent. With extents that stay even, each voxel has a
    parent at every level, and samples do not depend on the largest one of their batch.
    """
    multiple = 2**halvings
    highest = voxels[:, 1:].amax(dim=0).tolist()
    extent = [(side // multiple + 1) * multiple for side in highest]
    return spconv.SparseConvTensor(features, voxels, extent, samples)


def join(x: spconv.SparseConvTensor, skip: spconv.SparseConvTensor) -> spconv.SparseConvTensor:
    """Return a tensor with the channels of both; they have the same voxels."""
    return x.replace_feature(torch.cat([x.features, skip.features], dim=1))
