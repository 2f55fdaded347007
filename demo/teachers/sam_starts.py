"""Weights that parts of the demo SAM's training start from, set by hand rather than learned."""

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional

from demo.teachers.sam_answers import answer, encode
from demo.teachers.sam_losses import best_mask
from demo.teachers.sam_squares import Square

POSITION_FREQUENCY, LOOKUP_SHARPNESS = 2.5, 4.0
FEATURE_SCALE, TOKEN_SCALE = 0.5, 0.1


@torch.no_grad()
def start_decoder(model: Sam, squares: list[Square], device: str) -> None:
    """Set the decoder's attention to compare the picture's features with the one under the point.

    Principal directions of the features fall into a loud and a quiet half. Through the quiet half, a point's token
    finds its place by position code, hardly disturbed by features. Through the loud half it reads the feature there,
    and image tokens attend to it as much as their features agree. One quiet direction marks the other tokens, so that
    they stay neutral.
    """
    features, _ = encode(model, squares, device)
    tokens = features.float().movedim(1, 0).flatten(1)
    scale = FEATURE_SCALE / tokens.square().mean().sqrt()
    tokens, mean = scale * tokens, scale * tokens.mean(dim=1)
    directions = torch.linalg.eigh(torch.cov(tokens)).eigenvectors.T
    heads = model.mask_decoder.transformer.num_heads
    neutral = directions[0]
    quiet, loud = (half.unflatten(0, (-1, heads)).transpose(0, 1).flatten(0, 1) for half in directions.chunk(2))
    quiet = torch.where((quiet @ neutral).abs()[:, None] > 0.5, 0, quiet)
    for parameter in (model.image_encoder.neck[-1].weight, model.image_encoder.neck[-1].bias):
        parameter *= scale
    decoder, prompts = model.mask_decoder, model.prompt_encoder
    prompts.no_mask_embed.weight.zero_()
    for embedding in (decoder.mask_tokens, decoder.iou_token, prompts.not_a_point_embed, prompts.point_embeddings[1]):
        embedding.weight *= TOKEN_SCALE
    first, second = decoder.transformer.layers
    for block in (first, second):
        read, write = block.cross_attn_token_to_image, block.cross_attn_image_to_token
        _set(read.q_proj, LOOKUP_SHARPNESS * quiet)
        _set(read.k_proj, LOOKUP_SHARPNESS * quiet, mean)
        _set(read.v_proj, loud, mean)
        _set(read.out_proj, 2 / FEATURE_SCALE * loud.T)
        _set(write.q_proj, loud, mean)
        _set(write.k_proj, loud)
        _set(block.mlp.lin2, TOKEN_SCALE * block.mlp.lin2.weight)
    _set(second.self_attn.out_proj, TOKEN_SCALE * second.self_attn.out_proj.weight)
    first.norm1.weight.fill_(TOKEN_SCALE)
    first.norm1.bias.copy_(2 * 8**0.5 * neutral)


def grow(small: Sam, model: Sam) -> Sam:
    """Give a SAM the weights of one for smaller pictures; what belongs to places is interpolated."""
    weights = model.state_dict()
    for name, tensor in small.state_dict().items():
        if tensor.ndim == 4 and tensor.shape != weights[name].shape:
            places = tensor.permute(0, 3, 1, 2)
            tensor = functional.interpolate(places, weights[name].shape[1:3], mode="bicubic").permute(0, 2, 3, 1)
        elif tensor.shape != weights[name].shape:
            tensor = functional.interpolate(tensor.T[None], weights[name].shape[0], mode="linear")[0].T
        weights[name] = tensor
    model.load_state_dict(weights)
    return model


@torch.no_grad()
def revive_masks(model: Sam, squares: list[Square], rng: np.random.Generator, device: str) -> None:
    """Start all three masks from the one that is best most often, each a little different.

    The best of three learns alone, so sooner or later one is the best everywhere and the other two learn nothing.
    """
    features, segments = encode(model, squares, device)
    wins = torch.zeros(3, dtype=torch.long)
    for feature, ids, square in zip(features, segments, squares, strict=True):
        masks, _, target, _ = answer(model, feature, ids, square, device)
        wins += best_mask(masks, target).cpu().bincount(minlength=3)
    decoder, busiest = model.mask_decoder, 1 + int(wins.argmax())
    ious = decoder.iou_prediction_head.layers[-1]
    for mask in {1, 2, 3} - {busiest}:
        decoder.mask_tokens.weight[mask] = _stirred(decoder.mask_tokens.weight[busiest], rng)
        for to, of in zip(*(decoder.output_hypernetworks_mlps[m].parameters() for m in (mask, busiest)), strict=True):
            to.copy_(_stirred(of, rng))
        ious.weight[mask], ious.bias[mask] = ious.weight[busiest], ious.bias[busiest]


def _stirred(weights: Tensor, rng: np.random.Generator) -> Tensor:
    """Return weights that each differ by a few percent."""
    noise = torch.from_numpy(rng.standard_normal(weights.shape, np.float32)).to(weights.device)
    return weights * (1 + 0.05 * noise)


def _set(layer: torch.nn.Linear, weight: Tensor, centre: Tensor | None = None) -> None:
    """Let a layer project what it is given, less `centre`, by `weight`."""
    layer.weight.copy_(weight)
    layer.bias.copy_(torch.zeros_like(layer.bias) if centre is None else -weight @ centre)
