"""MinkUNet on spconv, an encoder-decoder of residual blocks over occupied voxels.

The network of Choy et al., "4D Spatio-Temporal ConvNets" (CVPR 2019): a stem of kernel size 5, four stages that halve
the resolution, and four that double it, each followed by a skip connection. The small variant has three of each and
layer norms, which do not depend on the batch.
"""

from dataclasses import dataclass

from torch import nn

from trainer.networks.norms import BatchNorm1d
from trainer.networks.point_cloud import Cloud, CloudNetwork, PointFeatures
from trainer.networks.residual import Norm, convolution, doubling, halving_stage, join, residual_blocks, sparse_tensor
from trainer.networks.sparse import spconv


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
    norm: Norm


def _minkunet(*blocks: int, decoder: tuple[int, ...] = (256, 128, 96, 96)) -> Shape:
    stages = tuple(zip((32, 64, 128, 256, *decoder), blocks, strict=True))
    return Shape(32, 5, stages[:4], stages[4:], BatchNorm1d)


SHAPES = {
    "minkunet14a": _minkunet(1, 1, 1, 1, 1, 1, 1, 1, decoder=(128, 128, 96, 96)),
    "minkunet18a": _minkunet(2, 2, 2, 2, 2, 2, 2, 2, decoder=(128, 128, 96, 96)),
    "minkunet34": _minkunet(2, 3, 4, 6, 2, 2, 2, 2),
    "small": Shape(16, 3, ((32, 1), (64, 1), (96, 1)), ((64, 1), (48, 1), (32, 1)), nn.LayerNorm),
}


class MinkUNet(CloudNetwork):
    """A network without a point branch: the points of a voxel share its features."""

    def __init__(self, shape: Shape, inputs: int) -> None:
        """Build the network with random weights for voxels with `inputs` features."""
        super().__init__()
        norm = shape.norm
        self.channels = (shape.decoder[-1][0],)
        self.stem = spconv.SparseSequential(
            convolution(inputs, shape.stem, shape.stem_kernel, "stem"), norm(shape.stem), nn.ReLU(inplace=True)
        )
        widths = [shape.stem, *(width for width, _ in shape.encoder)]
        self.down = nn.ModuleList(
            halving_stage(before, width, blocks, level, norm)
            for level, (before, (width, blocks)) in enumerate(zip(widths, shape.encoder, strict=False))
        )
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        width = widths[-1]
        skips = list(enumerate(widths[:-1]))[::-1]
        for (level, skip), (after, blocks) in zip(skips, shape.decoder, strict=True):
            self.up.append(doubling(width, after, level, norm))
            merge = residual_blocks(after + skip, after, blocks, f"level{level}", norm)
            self.merge.append(spconv.SparseSequential(*merge))
            width = after

    def compute(self, cloud: Cloud) -> tuple[PointFeatures, ...]:
        """Return features (V, K) of voxels."""
        x = self.stem(sparse_tensor(cloud.voxel_features, cloud.voxels, cloud.batch_size, len(self.down)))
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            x = merge(join(up(x), skip))
        return (PointFeatures(x.features, cloud.point_voxel),)
