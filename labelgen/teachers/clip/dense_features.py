"""Dense CLIP features (MaskCLIP): one feature for each patch, through the value path of the last attention.

CLIP's last attention mixes all patches into one image feature. MaskCLIP skips that mixing. In a ViT, the attention of
the last block is replaced by its value and output projections; the residual connections and the MLP stay. In a ResNet,
the attention pool is replaced by its value and output projections at every position. Other ways for a ViT are in
`attention`.

Source: Zhou et al., "Extract Free Dense Labels from CLIP", 2022.
"""

from typing import TYPE_CHECKING

from labelgen.settings import ClipSettings
from labelgen.teachers.clip.attention import Guides, keeps_residual, mix_patches, mixes

if TYPE_CHECKING:
    from open_clip.model import ModifiedResNet, VisionTransformer
    from torch import Tensor


def dense_features(
    visual: "VisionTransformer | ModifiedResNet", images: "Tensor", settings: ClipSettings, guides: Guides
) -> "tuple[Tensor, Tensor]":
    """Return the features of an open_clip image tower at each patch, and the keys of its last attention.

    Args:
        visual: a VisionTransformer or a ModifiedResNet.
        images: normalised images (B, 3, H, W).
        settings: how a ViT mixes the patches of its last block; a ResNet never mixes them.
        guides: what SAM says about the patches, where the settings use it.

    Returns:
        Features (B, D, h, w), not normalised, in the space of the text embeddings; keys (B, K, h, w).
    """
    if hasattr(visual, "transformer"):
        return _vit_features(visual, images, settings, guides)
    return _resnet_features(visual, images)


def _vit_features(
    visual: "VisionTransformer", images: "Tensor", settings: ClipSettings, guides: Guides
) -> "tuple[Tensor, Tensor]":
    import torch
    from torch.nn import functional

    x = visual.conv1(images)
    grid = (x.shape[2], x.shape[3])
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = visual.ln_pre(x + interpolate_positions(visual.positional_embedding, visual.grid_size, grid).to(x.dtype))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    normed = last.ln_1(x)
    query_weight, key_weight, value_weight = last.attn.in_proj_weight.chunk(3)
    query_bias, key_bias, value_bias = last.attn.in_proj_bias.chunk(3)
    value, key = functional.linear(normed, value_weight, value_bias), functional.linear(normed, key_weight, key_bias)
    if mixes(settings):
        query = functional.linear(normed, query_weight, query_bias)
        value = mix_patches(query, key, value, last.attn.num_heads, grid, settings, guides)
        x = x[:, 1:]
    mixed = last.ls_1(last.attn.out_proj(value))
    if keeps_residual(settings):
        x = x + mixed
        x = x + last.ls_2(last.mlp(last.ln_2(x)))
    else:
        x = mixed
    features, keys = visual.ln_post(x)[:, -grid[0] * grid[1] :] @ visual.proj, key[:, 1:]
    features, keys = (tokens.transpose(1, 2).unflatten(2, grid) for tokens in (features, keys))
    return features, keys


def _resnet_features(visual: "ModifiedResNet", images: "Tensor") -> "tuple[Tensor, Tensor]":
    x = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    x = x.movedim(1, -1)
    features = visual.attnpool.c_proj(visual.attnpool.v_proj(x))
    return features.movedim(-1, 1), visual.attnpool.k_proj(x).movedim(-1, 1)


def interpolate_positions(positions: "Tensor", trained_grid: tuple[int, int], grid: tuple[int, int]) -> "Tensor":
    """Return position embeddings for another grid of patches, by bicubic interpolation.

    Args:
        positions: (1 + gh * gw, E), the class token's first.
        trained_grid: (gh, gw), the grid that the network was trained on.
        grid: (h, w), the grid of the images.

    Returns:
        Position embeddings (1 + h * w, E); the class token's is unchanged.
    """
    import torch
    from torch.nn import functional

    if tuple(trained_grid) == tuple(grid):
        return positions
    class_position, patch_positions = positions[:1], positions[1:].float()
    maps = patch_positions.T.reshape(1, -1, *trained_grid)
    maps = functional.interpolate(maps, size=tuple(grid), mode="bicubic", align_corners=False)
    return torch.cat([class_position.float(), maps.flatten(2)[0].T])
