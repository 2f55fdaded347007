"""SAM's image encoder without its large intermediate: attention is fused, relative positions come in as its bias.

The stock encoder writes the scores of all pairs of tokens and goes over them four times. Here a fused kernel sees a few
rows of queries at a time. Same embeddings as the stock encoder's up to rounding.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CPU_QUERY_ROWS = 2
"""Rows of image tokens that ask at once on a CPU: their bias stays in its cache."""


def apply_block(block: Any, tokens: "Tensor") -> "Tensor":
    """Return the tokens (B, h, w, E) that one of the encoder's blocks makes of `tokens`."""
    tokens = tokens + _attend(block, block.norm1(tokens))
    fed: Tensor = tokens + block.mlp(block.norm2(tokens))
    return fed


def encode(encoder: Any, pixels: "Tensor", apply: "Callable[[Any, Tensor], Tensor]" = apply_block) -> "Tensor":
    """Return the embeddings (B, E, h, w) f32 of normalised square images (B, 3, S, S), as the stock `encoder` would.

    Blocks compute in the precision of the encoder's parameters, the neck, which is little work, in its own. `apply` is
    `apply_block`, or what it was compiled to.
    """
    tokens = encoder.patch_embed(pixels.to(encoder.pos_embed.dtype)) + encoder.pos_embed
    for block in encoder.blocks:
        tokens = apply(block, tokens)
    embeddings: Tensor = encoder.neck(tokens.permute(0, 3, 1, 2).float())
    return embeddings


def _attend(block: Any, tokens: "Tensor") -> "Tensor":
    """Attend among tokens (B, h, w, E), in windows or over the whole image as the block does."""
    from segment_anything.modeling.image_encoder import window_partition, window_unpartition

    if block.window_size == 0:
        return _attention(block.attn, tokens)
    windows, padded = window_partition(tokens, block.window_size)
    mixed = _attention(block.attn, windows)
    whole: Tensor = window_unpartition(mixed, block.window_size, padded, tokens.shape[1:3])
    return whole


def _attention(attention: Any, tokens: "Tensor") -> "Tensor":
    """Attend among tokens (B, h, w, E) with SAM's decomposed relative positions."""
    import torch
    from segment_anything.modeling.image_encoder import get_rel_pos

    batch, height, width, _ = tokens.shape
    heads = attention.num_heads
    query, key, value = attention.qkv(tokens).view(batch, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
    grid = query.unflatten(2, (height, width))  # B h y x d
    by_row = torch.einsum("bhyxd,ykd->bhyxk", grid, get_rel_pos(height, height, attention.rel_pos_h)).contiguous()
    by_col = torch.einsum("bhyxd,xkd->bhyxk", grid, get_rel_pos(width, width, attention.rel_pos_w)).contiguous()
    at_once = CPU_QUERY_ROWS if tokens.device.type == "cpu" else height
    mixed = [
        torch.nn.functional.scaled_dot_product_attention(
            some.flatten(2, 3), key, value, attn_mask=_bias(rows.flatten(2, 3), cols.flatten(2, 3))
        )
        for some, rows, cols in zip(*(part.split(at_once, dim=2) for part in (grid, by_row, by_col)), strict=True)
    ]
    together = torch.cat(mixed, dim=2).transpose(1, 2).reshape(batch, height, width, -1)
    projected: Tensor = attention.proj(together)
    return projected


def _bias(rows: "Tensor", cols: "Tensor") -> "Tensor":
    """Return the bias (B, h, Q, y * x) of queries with scores (B, h, Q, y) and (B, h, Q, x) for rows and columns.

    Each query's begins at a multiple of 16 bytes: as it must for the memory-efficient kernel on a GPU, which would else
    copy all of it.
    """
    import torch

    keys = rows.shape[-1] * cols.shape[-1]
    bias = rows.new_empty(*rows.shape[:-1], -(-keys // 8) * 8)[..., :keys]
    torch.add(rows[..., None], cols[..., None, :], out=bias.unflatten(-1, (rows.shape[-1], cols.shape[-1])))
    return bias
