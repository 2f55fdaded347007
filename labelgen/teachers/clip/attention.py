"""How the last block of a ViT mixes its patches, where that is not MaskCLIP's way (which mixes nothing).

The output of a patch is a weighted sum of the values of all patches. The weights come from the queries and keys of the
block (SCLIP, ClearCLIP, NACLIP), from SAM's image embedding (ProxyCLIP), or from SAM's masks alone. Axes: B images,
P = h x w patches, d the width of a head. Tokens are the class token, then the patches.

Sources: Wang et al., "SCLIP", 2023; Lan et al., "ClearCLIP", 2024; Hajimiri et al., "Pay Attention to Your Neighbours"
(NACLIP), 2024; Lan et al., "ProxyCLIP", 2024; Zhang et al., "CorrCLIP", 2024 (attention within masks).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelgen.settings import ClipSettings

if TYPE_CHECKING:
    from torch import Tensor

GAUSSIAN_PATCHES = 5.0
"""NACLIP's standard deviation of the Gaussian over the distance of two patches, in patches."""

PROXY_SHARPNESS, PROXY_THRESHOLD = 3.0, 1.2
"""ProxyCLIP's factor on similarities, and the multiple of their mean below which two patches are not mixed."""

LAST_BLOCK_ALONE = frozenset({"clearclip", "naclip"})
"""Attentions after which the residual connections and the MLP of the last block are left out."""


@dataclass(frozen=True)
class Guides:
    """What SAM says about the patches of B images; None where the settings do not use it.

    `masks` (B, h, w) i64: the mask of each patch, 0 for none. `embedding` (B, E, h, w) f32: SAM's image embedding at
    the patches.
    """

    masks: "Tensor | None" = None
    embedding: "Tensor | None" = None

    def to(self, device: str) -> "Guides":
        """Return the guides on a device."""
        return Guides(*(None if part is None else part.to(device) for part in (self.masks, self.embedding)))

    def crop(self, image: int, rows: slice, cols: slice) -> "Guides":
        """Return the guides of a window of one image, B = 1; `rows` and `cols` count patches."""
        return Guides(
            None if self.masks is None else self.masks[image : image + 1, rows, cols],
            None if self.embedding is None else self.embedding[image : image + 1, :, rows, cols],
        )


NO_GUIDES = Guides()


def mixes(settings: ClipSettings) -> bool:
    """Tell whether the last block mixes patches at all under these settings."""
    return settings.attention != "value" or settings.reads_sam


def keeps_residual(settings: ClipSettings) -> bool:
    """Tell whether the residual connections and the MLP of the last block stay."""
    return settings.attention not in LAST_BLOCK_ALONE and settings.proxy == "none"


def mix_patches(
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    heads: int,
    grid: tuple[int, int],
    settings: ClipSettings,
    guides: Guides,
) -> "Tensor":
    """Return the values (B, P, E) of the patches after mixing.

    Args:
        query: (B, 1 + P, E) of the last block.
        key: (B, 1 + P, E).
        value: (B, 1 + P, E).
        heads: E is divided into so many heads.
        grid: (h, w).
        settings: which attention, within which scope.
        guides: SAM's masks if `scope` needs them, its embedding if `proxy` does.
    """
    query, key, value = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    forbidden = _forbidden(settings, guides, grid, key)
    all_scores = _scores(query, key, grid, settings, guides)
    weights = [scores.float().masked_fill(forbidden, float("-inf")).softmax(dim=-1) for scores in all_scores]
    mixed: Tensor = sum(weights[1:], weights[0]).to(value.dtype) @ value
    return mixed.transpose(1, 2).flatten(2)


def _scores(
    query: "Tensor", key: "Tensor", grid: tuple[int, int], settings: ClipSettings, guides: Guides
) -> "list[Tensor]":
    """Return scores of patches against tokens, (B, heads or 1, P, 1 + P) each; their softmaxes are added."""
    from torch.nn import functional

    def among(tokens: "Tensor") -> "Tensor":
        scores: Tensor = tokens[:, :, 1:] @ tokens.transpose(2, 3) / tokens.shape[3] ** 0.5
        return scores

    if guides.embedding is not None:
        return [functional.pad(_proxy_scores(guides.embedding), (1, 0))[:, None]]
    if settings.attention == "sclip":
        return [among(query), among(key)]
    if settings.attention == "clearclip":
        return [among(query)]
    if settings.attention == "naclip":
        return [among(key) + functional.pad(_closeness(grid, key), (1, 0))]
    patches = grid[0] * grid[1]
    return [key.new_zeros(1, 1, patches, 1 + patches)]


def _proxy_scores(embedding: "Tensor") -> "Tensor":
    """Return ProxyCLIP's scores (B, P, P) from an embedding (B, E, h, w): -inf for patches that are not alike.

    A patch is always like itself, so that no row is empty.
    """
    import torch
    from torch.nn import functional

    unit = functional.normalize(embedding.flatten(2), dim=1)
    similarity = torch.einsum("bei,bej->bij", unit, unit)
    mean = similarity.mean(dim=(1, 2), keepdim=True)
    scores = PROXY_SHARPNESS * (similarity - PROXY_THRESHOLD * mean)
    itself = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    return scores.masked_fill((scores < 0) & ~itself, float("-inf"))


def _closeness(grid: tuple[int, int], like: "Tensor") -> "Tensor":
    """Return NACLIP's Gaussian of the distance of each two patches, (P, P)."""
    import torch

    places = torch.cartesian_prod(*(torch.arange(side, device=like.device) for side in grid)).float()
    squared = (places[:, None] - places).square().sum(dim=2)
    return torch.exp(-squared / (2 * GAUSSIAN_PATCHES**2)).to(like.dtype)


def _forbidden(settings: ClipSettings, guides: Guides, grid: tuple[int, int], like: "Tensor") -> "Tensor":
    """Return which tokens a patch may not attend to, (B or 1, 1, P, 1 + P).

    A patch under a mask attends within the mask. One under no mask attends as without `scope`: with `value` to itself.
    The class token belongs to no mask.
    """
    import torch
    from torch.nn import functional

    patches = grid[0] * grid[1]
    if settings.proxy != "none":
        free = functional.pad(torch.zeros(1, patches, patches, dtype=torch.bool), (1, 0), value=True)
    elif settings.attention == "value":
        free = functional.pad(~torch.eye(patches, dtype=torch.bool)[None], (1, 0), value=True)
    else:
        free = torch.zeros(1, patches, 1 + patches, dtype=torch.bool)
    free = free.to(like.device)
    if settings.scope == "none" or guides.masks is None:
        return free[:, None]
    masks = guides.masks.flatten(1)
    outside = functional.pad(masks[:, :, None] != masks[:, None], (1, 0), value=True)
    return torch.where((masks > 0)[:, :, None], outside, free)[:, None]
