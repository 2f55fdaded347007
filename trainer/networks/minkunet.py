"""MinkUNet on spconv, an encoder-decoder of residual blocks over occupied voxels.

The network of Choy et al., "4D Spatio-Temporal ConvNets" (CVPR 2019): a stem of kernel size 5, four stages that halve
the resolution, and four that double it, each followed by a skip connection. The small variant has three of each and
layer norms, which do not depend on the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from trainer.networks.norms import BatchNorm1d
from trainer.networks.point_cloud import Cloud, CloudNetwork, PointFeatures
from trainer.networks.sparse import ALGORITHM, spconv


@dataclass(frozen=True)
class Shape:
    """The architecture of a MinkUNet.

    Attributes:
        stem, stem_kernel: channels and kernel size of the first convolution.
        encoder, decoder: (channels, residual blocks) of each stage.
        norm: makes the norm of a layer from its channels.
    """

    stem: int
    stem_kernel: int
    encoder: tuple[tuple[int, int], ...]
    decoder: tuple[tuple[int, int], ...]
    norm: Callable[[int], nn.Module]


_BATCH = partial(BatchNorm1d, eps=1e-5, momentum=0.1)


def _minkunet(*blocks: int, decoder: tuple[int, ...] = (256, 128, 96, 96)) -> Shape:
    encoder, decoder = (
        zip((32, 64, 128, 256), blocks[:4], strict=True),
        zip(decoder, blocks[4:], strict=True),
    )
    return Shape(32, 5, tuple(encoder), tuple(decoder), _BATCH)


SHAPES = {
    "minkunet14": _minkunet(1, 1, 1, 1, 1, 1, 1, 1),
    "minkunet18": _minkunet(2, 2, 2, 2, 2, 2, 2, 2),
    "minkunet34": _minkunet(2, 3, 4, 6, 2, 2, 2, 2),
    "small": Shape(16, 3, ((32, 1), (64, 1), (96, 1)), ((64, 1), (48, 1), (32, 1)), nn.LayerNorm),
}


class MinkUNet(CloudNetwork):
    """A network without a point branch: the points of a voxel share its features."""

    def __init__(self, shape: Shape, inputs: int) -> None:
        """Build the network with random weights for voxels with `inputs` features."""
        super().__init__()
        norm, self._inputs = shape.norm, inputs
        self.channels = (shape.decoder[-1][0],)
        self.stem = spconv.SparseSequential(
            _conv(inputs, shape.stem, shape.stem_kernel, "stem"), norm(shape.stem), nn.ReLU(inplace=True)
        )
        widths = [shape.stem, *(width for width, _ in shape.encoder)]
        self.down = nn.ModuleList(
            spconv.SparseSequential(
                spconv.SparseConv3d(before, before, 2, stride=2, bias=False, indice_key=f"half{level}", algo=ALGORITHM),
                norm(before),
                nn.ReLU(inplace=True),
                *_blocks(before, width, blocks, f"level{level + 1}", norm),
            )
            for level, (before, (width, blocks)) in enumerate(zip(widths, shape.encoder, strict=False))
        )
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        width = widths[-1]
        skips = list(enumerate(widths[:-1]))[::-1]
        for (level, skip), (after, blocks) in zip(skips, shape.decoder, strict=True):
            up = spconv.SparseInverseConv3d(width, after, 2, indice_key=f"half{level}", bias=False, algo=ALGORITHM)
            self.up.append(spconv.SparseSequential(up, norm(after), nn.ReLU(inplace=True)))
            self.merge.append(spconv.SparseSequential(*_blocks(after + skip, after, blocks, f"level{level}", norm)))
            width = after

    def forward(self, cloud: Cloud) -> tuple[PointFeatures, ...]:
        """Return features (V, K) of voxels."""
        return (PointFeatures(self._of_voxels(cloud), cloud.point_voxel),)

    def _of_voxels(self, cloud: Cloud) -> Tensor:
        features, voxels = cloud.voxel_features, cloud.voxels
        if not len(voxels):  # spconv needs a voxel; all layers run, so that ranks and gradients stay in step
            alone = replace(cloud, voxel_features=features.new_zeros(1, self._inputs), voxels=voxels.new_zeros(1, 4))
            return self._of_voxels(alone)[:0]
        # A convolution of stride 2 drops the last plane of an odd extent. With extents that stay even, each voxel has a
        # parent at every level, and samples do not depend on the largest one of their batch.
        multiple = 2 ** len(self.down)
        highest = voxels[:, 1:].amax(dim=0).tolist()
        extent = [(side // multiple + 1) * multiple for side in highest]
        x = spconv.SparseConvTensor(features, voxels, extent, cloud.batch_size)
        x = self.stem(x)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            x = up(x)
            x = merge(x.replace_feature(torch.cat([x.features, skip.features], dim=1)))
        output: Tensor = x.features
        return output


class Block(spconv.SparseModule):  # type: ignore[misc]  # spconv has no types
    """A residual block of two convolutions; the input is projected where its number of channels differs."""

    def __init__(self, before: int, after: int, key: str, norm: Callable[[int], nn.Module]) -> None:
        """Build the block; blocks with the same `key` share the tables of neighbouring voxels."""
        super().__init__()
        self.first, self.norm1 = _conv(before, after, 3, key), norm(after)
        self.second, self.norm2 = _conv(after, after, 3, key), norm(after)
        self.project = (
            nn.Sequential(nn.Linear(before, after, bias=False), norm(after)) if before != after else nn.Identity()
        )

    def forward(self, x: spconv.SparseConvTensor) -> spconv.SparseConvTensor:
        """Return features of the same voxels."""
        y = self.first(x)
        y = self.second(y.replace_feature(self.norm1(y.features).relu()))
        return y.replace_feature((self.norm2(y.features) + self.project(x.features)).relu())


def _blocks(before: int, after: int, blocks: int, key: str, norm: Callable[[int], nn.Module]) -> list[Block]:
    widths = [before] + [after] * blocks
    return [Block(one, other, key, norm) for one, other in pairwise(widths)]


def _conv(before: int, after: int, kernel: int, key: str) -> nn.Module:
    # The table of neighbouring voxels depends on the kernel size as well as on the level.
    layer: nn.Module = spconv.SubMConv3d(
        before, after, kernel, padding=kernel // 2, bias=False, indice_key=f"{key}-{kernel}", algo=ALGORITHM
    )
    return layer
