"""Initial weights of the demo SAM's training stages, set by hand instead of at random."""

from typing import Any

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional

from demo.teachers.sam_answers import encode, predict_masks
from demo.teachers.sam_losses import best_mask
from demo.teachers.sam_squares import Square

POSITION_FREQUENCY, LOOKUP_SHARPNESS = 2.5, 4.0
FEATURE_SCALE, TOKEN_SCALE = 0.5, 0.1


@torch.no_grad()
def start_decoder(model: Sam, squares: list[Square], device: str) -> None:
    """Initialise the decoder's attention so that it compares the picture's features with the one under the point.

    The principal directions of the features are split into those of large and of small variance. In the directions of
    small variance, the point's token attends to its own position by position encoding, with little interference from
    features. In those of large variance it reads the feature at that position, and image tokens attend to the point in
    proportion to the similarity of their features. One direction of small variance marks the other tokens, which keeps
    them neutral.
    """
    features, _ = encode(model, squares, device)
    tokens = features.float().movedim(1, 0).flatten(1)
    scale = FEATURE_SCALE / tokens.square().mean().sqrt()
    tokens, mean = scale * tokens, scale * tokens.mean(dim=1)
    directions = torch.linalg.eigh(torch.cov(tokens)).eigenvectors.T
    heads = model.mask_decoder.transformer.num_heads
    neutral = directions[0]
    minor, major = (half.unflatten(0, (-1, heads)).transpose(0, 1).flatten(0, 1) for half in directions.chunk(2))
    minor = torch.where((minor @ neutral).abs()[:, None] > 0.5, 0, minor)
    # PyTorch has no types for a module's submodules and parameters.
    last_norm: Any = model.image_encoder.neck[-1]
    decoder: Any = model.mask_decoder
    prompts: Any = model.prompt_encoder
    last_norm.weight *= scale
    last_norm.bias *= scale
    prompts.no_mask_embed.weight.zero_()
    for embedding in (decoder.mask_tokens, decoder.iou_token, prompts.not_a_point_embed, prompts.point_embeddings[1]):
        embedding.weight *= TOKEN_SCALE
    first, second = decoder.transformer.layers
    for block in (first, second):
        read, write = block.cross_attn_token_to_image, block.cross_attn_image_to_token
        _set(read.q_proj, LOOKUP_SHARPNESS * minor)
        _set(read.k_proj, LOOKUP_SHARPNESS * minor, mean)
        _set(read.v_proj, major, mean)
        _set(read.out_proj, 2 / FEATURE_SCALE * major.T)
        _set(write.q_proj, major, mean)
        _set(write.k_proj, major)
        _set(block.mlp.lin2, TOKEN_SCALE * block.mlp.lin2.weight)
    _set(second.self_attn.out_proj, TOKEN_SCALE * second.self_attn.out_proj.weight)
    first.norm1.weight.fill_(TOKEN_SCALE)
    first.norm1.bias.copy_(2 * 8**0.5 * neutral)


def grow(small: Sam, model: Sam) -> Sam:
    """Copy the weights of a SAM for smaller pictures into `model`; position embeddings are interpolated."""
    weights = model.state_dict()
    for name, tensor in small.state_dict().items():
        if tensor.ndim == 4 and tensor.shape != weights[name].shape:
            embedding = tensor.permute(0, 3, 1, 2)
            tensor = functional.interpolate(embedding, weights[name].shape[1:3], mode="bicubic").permute(0, 2, 3, 1)
        elif tensor.shape != weights[name].shape:
            tensor = functional.interpolate(tensor.T[None], weights[name].shape[0], mode="linear")[0].T
        weights[name] = tensor
    model.load_state_dict(weights)
    return model


@torch.no_grad()
def revive_masks(model: Sam, squares: list[Square], rng: np.random.Generator, device: str) -> None:
    """Reset the three mask outputs to the one that is best most often, with small random differences.

    Only the best of three masks is trained, so in time one is the best everywhere and the other two learn nothing.
    """
    features, segments = encode(model, squares, device)
    wins = torch.zeros(3, dtype=torch.long)
    for feature, ids, square in zip(features, segments, squares, strict=True):
        masks, _, target, _ = predict_masks(model, feature, ids, square, device)
        wins += best_mask(masks, target).cpu().bincount(minlength=3)
    decoder: Any = model.mask_decoder
    busiest, ious = 1 + int(wins.argmax()), decoder.iou_prediction_head.layers[-1]
    for mask in {1, 2, 3} - {busiest}:
        decoder.mask_tokens.weight[mask] = _perturbed(decoder.mask_tokens.weight[busiest], rng)
        for to, of in zip(*(decoder.output_hypernetworks_mlps[m].parameters() for m in (mask, busiest)), strict=True):
            to.copy_(_perturbed(of, rng))
        ious.weight[mask], ious.bias[mask] = ious.weight[busiest], ious.bias[busiest]


def _perturbed(weights: Tensor, rng: np.random.Generator) -> Tensor:
    """Return weights that each differ by a few percent."""
    noise = torch.from_numpy(rng.standard_normal(weights.shape, np.float32)).to(weights.device)
    return weights * (1 + 0.05 * noise)


def _set(layer: torch.nn.Linear, weight: Tensor, centre: Tensor | None = None) -> None:
    """Set a layer to project its input, minus `centre`, by `weight`."""
    layer.weight.copy_(weight)
    layer.bias.copy_(torch.zeros_like(layer.bias) if centre is None else -weight @ centre)
