"""SAM's image encoder with a fused attention kernel, which takes the relative positions as its bias.

The stock encoder writes the attention scores of all pairs of tokens to memory and passes over them four times. Here a
fused kernel processes a few rows of queries at a time. The embeddings equal those of the stock encoder up to rounding.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from segment_anything.modeling import ImageEncoderViT
    from segment_anything.modeling.image_encoder import Attention, Block
    from torch import Tensor

CPU_QUERY_ROWS = 2
"""Rows of tokens that are queries at once on a CPU, so that their bias stays in its cache."""


def apply_block(block: "Block", tokens: "Tensor") -> "Tensor":
    """Apply one block of the encoder to tokens (B, h, w, E)."""
    tokens = tokens + _windowed_attention(block, block.norm1(tokens))
    output: Tensor = tokens + block.mlp(block.norm2(tokens))
    return output


def encode(
    encoder: "ImageEncoderViT", pixels: "Tensor", apply: "Callable[[Block, Tensor], Tensor]" = apply_block
) -> "Tensor":
    """Return the embeddings (B, E, h, w) f32 that the stock `encoder` computes.

    The blocks compute in the precision of the encoder's parameters. The neck, which is little work, has its own.

    Args:
        encoder: SAM's image encoder.
        pixels: normalised square images (B, 3, S, S).
        apply: `apply_block`, compiled or not.
    """
    if encoder.pos_embed is None:
        raise ValueError("the image encoder has no position embedding; every SAM architecture has one")
    tokens = encoder.patch_embed(pixels.to(encoder.pos_embed.dtype)) + encoder.pos_embed
    for block in cast("Iterable[Block]", encoder.blocks):
        tokens = apply(block, tokens)
    embeddings: Tensor = encoder.neck(tokens.permute(0, 3, 1, 2).float())
    return embeddings


def _windowed_attention(block: "Block", tokens: "Tensor") -> "Tensor":
    """Apply a block's attention to tokens (B, h, w, E), in windows or over the whole image as the block does."""
    from segment_anything.modeling.image_encoder import window_partition, window_unpartition

    if block.window_size == 0:
        return _attention(block.attn, tokens)
    windows, padded_size = window_partition(tokens, block.window_size)
    attended = _attention(block.attn, windows)
    return window_unpartition(attended, block.window_size, padded_size, (tokens.shape[1], tokens.shape[2]))


def _attention(attention: "Attention", tokens: "Tensor") -> "Tensor":
    """Apply attention to tokens (B, h, w, E), with SAM's decomposed relative positions."""
    import torch
    from segment_anything.modeling.image_encoder import get_rel_pos

    batch, height, width, _ = tokens.shape
    heads = attention.num_heads
    query, key, value = attention.qkv(tokens).view(batch, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
    grid = query.unflatten(2, (height, width))  # (B, heads, y, x, d)
    row_scores = torch.einsum("bhyxd,ykd->bhyxk", grid, get_rel_pos(height, height, attention.rel_pos_h)).contiguous()
    col_scores = torch.einsum("bhyxd,xkd->bhyxk", grid, get_rel_pos(width, width, attention.rel_pos_w)).contiguous()
    rows_at_once = CPU_QUERY_ROWS if tokens.device.type == "cpu" else height
    batches = zip(*(part.split(rows_at_once, dim=2) for part in (grid, row_scores, col_scores)), strict=True)
    attended = [
        torch.nn.functional.scaled_dot_product_attention(
            queries.flatten(2, 3), key, value, attn_mask=_position_bias(rows.flatten(2, 3), cols.flatten(2, 3))
        )
        for queries, rows, cols in batches
    ]
    merged = torch.cat(attended, dim=2).transpose(1, 2).reshape(batch, height, width, -1)
    projected: Tensor = attention.proj(merged)
    return projected


def _position_bias(rows: "Tensor", cols: "Tensor") -> "Tensor":
    """Return the attention bias (B, heads, Q, y * x) of Q queries.

    `rows` (B, heads, Q, y) and `cols` (B, heads, Q, x) are the scores of the queries for relative rows and columns. The
    bias of each query begins at a multiple of 16 bytes: the memory-efficient kernel of a GPU requires it, and copies
    the whole bias otherwise.
    """
    import torch

    keys = rows.shape[-1] * cols.shape[-1]
    aligned_keys = -(-keys // 8) * 8
    bias = rows.new_empty(*rows.shape[:-1], aligned_keys)[..., :keys]
    torch.add(rows[..., None], cols[..., None, :], out=bias.unflatten(-1, (rows.shape[-1], cols.shape[-1])))
    return bias
