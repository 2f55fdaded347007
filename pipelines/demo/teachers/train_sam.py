"""Train the demo's SAM on rendered segments: `python -m pipelines.demo.teachers.train_sam --out FILE`.

First the encoder alone learns to tell segments apart: features of two pixels shall be alike if, and only if, one
segment covers both. Then point prompts join: the decoder's three masks answer each, the best of them is taught the mask
of the object or stuff segment under the point (dice and balanced cross-entropy), and the IoU head learns how good all
three are. The decoder starts from weights that compare features with that under the point, and the attention that does
so is taught along; from random weights, thousands of steps go by in which masks ignore their prompts. No class is ever
shown.

All that happens on pictures of 256 pixels; then the weights go on learning at the full size, where small things show.
Last they learn outlines. Balanced cross-entropy, without which masks stay empty at first, calls as many pixels of the
rest a segment as it takes to be as right inside as outside, and masks of small things spill over their edges; so in
the end every pixel counts alike, by the size of the segment and its mask.

What each part makes is kept beside FILE, and parts that are there are not trained again.

SAM pads pictures to a square. Half of the squares are drawn so; the other half show a second picture in the place of
the padding, since a step costs the same either way.
"""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional

from labelgen.teachers.masks import nearest_index
from labelgen.teachers.sam import demo_sam
from pipelines.demo.teachers.loop import half_precision, parse_arguments, train, training_views
from pipelines.demo.teachers.views import Light, Views, relight

PAIRS_A_SQUARE, NEAREST_PAIR_PX = 2000, 3
PAIR_WEIGHT = ATTENTION_WEIGHT = 0.5
PADDING = -1
"""Segment id of pixels that show no picture."""

LEAST_AREA_PX = 4
"""Below which a mask and its segment together do not count as smaller."""

SURELY_OFF = -20.0
"""Logit of pixels that are no part of the prompted picture."""

POINT_TOKEN = 5
"""Place of the point among the decoder's tokens, after one for the IoU and four for masks."""

POSITION_FREQUENCY, LOOKUP_SHARPNESS = 2.5, 4.0
FEATURE_SCALE, TOKEN_SCALE = 0.5, 0.1


@dataclass(frozen=True)
class Course:
    """A `part` of the training: so many `steps`, each with `squares` of `side` pixels and `points` on each.

    The last part has no name, for what it makes is what the script shall write.

    Points are on segments of `smallest` pixels and more; a share `by_segment` of them falls on segments chosen evenly,
    the rest on pixels chosen evenly, as a grid's points would. `iou_weight` is that of the IoU head's loss. In the loss
    of masks a segment weighs as much as the rest of the picture, or, if `even`, all pixels alike.
    """

    part: str
    steps: int
    side: int
    squares: int
    points: int = 20
    smallest: int = 30
    by_segment: float = 0.75
    iou_weight: float = 1
    even: bool = False


ENCODER = Course("encoder", 4000, side=256, squares=3)
PROMPTS = Course("prompts", 3500, side=256, squares=3)
FULL_SIZE = Course("full-size", 2800, side=384, squares=2)
OUTLINES = Course("", 1100, side=384, squares=2, points=40, smallest=60, by_segment=0.5, iou_weight=4, even=True)


@dataclass(frozen=True)
class Square:
    """A training input: `rgb` (S, S, 3) u8, `segments` (S, S) i64, and prompts (P,) at `rows` and `columns`.

    `pictures` (S, S) says which of its pictures each pixel shows, PADDING for none.
    """

    rgb: NDArray[np.uint8]
    pictures: NDArray[np.int64]
    segments: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def main() -> None:
    """Draw the training views, train, and write the weights as safetensors."""
    args = parse_arguments(__doc__)
    torch.manual_seed(0)
    small = demo_sam(ENCODER.side)
    small.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix *= POSITION_FREQUENCY
    small.to(args.device).train()
    views = training_views(args)
    pictures = _at_width(views, ENCODER.side)
    teach_encoder(small, pictures, np.random.default_rng([0, 0]), args)
    rng = np.random.default_rng([0, 1])
    start_decoder(small, _squares(pictures, ENCODER, rng) + _squares(pictures, ENCODER, rng), args.device)
    teach_prompts(small, PROMPTS, pictures, rng, args)
    model = grow(small, demo_sam()).to(args.device).train()
    pictures = _at_width(views, FULL_SIZE.side)
    teach_prompts(model, FULL_SIZE, pictures, np.random.default_rng([0, 2]), args)
    rng = np.random.default_rng([0, 3])
    revive_masks(model, _squares(pictures, OUTLINES, rng), rng, args.device)
    teach_prompts(model, OUTLINES, pictures, rng, args)


def teach_encoder(model: Sam, pictures: Views, rng: np.random.Generator, args: Namespace) -> None:
    """Train a SAM's encoder to tell segments apart on pictures of the course's width."""

    def step() -> tuple[Tensor, float]:
        return _encoder_loss(model, _squares(pictures, ENCODER, rng), rng, args.device)

    train(model, step, "pairs right", ENCODER.steps, rng, args, part=ENCODER.part)


def teach_prompts(model: Sam, course: Course, pictures: Views, rng: np.random.Generator, args: Namespace) -> None:
    """Train all of a SAM to answer points on pictures of the course's width."""

    def step() -> tuple[Tensor, float]:
        return _prompt_loss(model, _squares(pictures, course, rng), course, rng, args.device)

    train(model, step, "IoU", course.steps, rng, args, part=course.part)


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
def start_decoder(model: torch.nn.Module, squares: list[Square], device: str) -> None:
    """Set the decoder's attention to compare the picture's features with the one under the point.

    Principal directions of the features fall into a loud and a quiet half. Through the quiet half, a point's token
    finds its place by position code, hardly disturbed by features. Through the loud half it reads the feature there,
    and image tokens attend to it as much as their features agree. One quiet direction marks the other tokens, so that
    they stay neutral.
    """
    features, _ = _encode(model, squares, device)
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


@torch.no_grad()
def revive_masks(model: Sam, squares: list[Square], rng: np.random.Generator, device: str) -> None:
    """Start all three masks from the one that is best most often, each a little different.

    The best of three learns alone, so sooner or later one is the best everywhere and the other two learn nothing.
    """
    features, segments = _encode(model, squares, device)
    wins = torch.zeros(3, dtype=torch.long)
    for feature, ids, square in zip(features, segments, squares, strict=True):
        masks, _, target, _ = _answer(model, feature, ids, square, device)
        wins += _best(masks, target).cpu().bincount(minlength=3)
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


def _at_width(views: Views, width: int) -> Views:
    """Return the views (N, H, W) at SAM's input width: pictures averaged, ids of the nearest pixel."""
    height, columns = views.rgb.shape[1] * width // views.rgb.shape[2], nearest_index(views.rgb.shape[2], width)
    rows = nearest_index(views.rgb.shape[1], height)
    rgb = np.stack([Image.fromarray(picture).resize((width, height), Image.Resampling.BOX) for picture in views.rgb])
    return Views(rgb, *(ids[:, rows][:, :, columns] for ids in (views.class_ids, views.instance_ids)))


def _squares(views: Views, course: Course, rng: np.random.Generator) -> list[Square]:
    """Draw a step's squares from pictures of the course's width."""
    return [_draw(views, course, rng) for _ in range(course.squares)]


def _draw(views: Views, course: Course, rng: np.random.Generator) -> Square:
    """Draw a square with one or two pictures, maybe mirrored, and prompts on its segments."""
    side = course.side
    rgb = np.zeros((side, side, 3), np.uint8)
    pictures, segments = np.full((side, side), PADDING), np.full((side, side), PADDING)
    top = 0
    for number in range(int(rng.integers(1, 3))):
        picture, ids = _picture(views, rng)
        rows = slice(top, min(side, top + len(picture)))
        rgb[rows] = picture[: rows.stop - top]
        pictures[rows] = number
        segments[rows] = ids[: rows.stop - top] + (segments.max() + 1)
        top = rows.stop
    _, flat, sizes = np.unique(segments, return_inverse=True, return_counts=True)
    flat = flat.ravel()
    usable = sizes >= course.smallest
    usable[0] &= segments.min() != PADDING
    order, ends = np.argsort(flat, kind="stable"), np.cumsum(sizes)
    chosen = rng.choice(np.flatnonzero(usable), int(course.points * course.by_segment))
    on_segments = order[ends[chosen] - 1 - (rng.random(len(chosen)) * sizes[chosen]).astype(np.int64)]
    anywhere = rng.choice(np.flatnonzero(usable[flat]), course.points - len(chosen))
    return Square(rgb, pictures, segments, *np.divmod(np.concatenate([on_segments, anywhere]), side))


def _picture(views: Views, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw a picture (H, W, 3) and its segments (H, W), mirrored and relit at random."""
    index, flip = int(rng.integers(len(views.rgb))), slice(None, None, int(rng.choice([-1, 1])))
    rgb = relight(views.rgb[index][:, flip], rng, Light(contrast=0.2, brightness=12))
    return rgb, views.instance_ids[index][:, flip].astype(np.int64)


def _encoder_loss(
    model: torch.nn.Module, squares: list[Square], rng: np.random.Generator, device: str
) -> tuple[Tensor, float]:
    """Return the pair loss of the squares' features, and the share of pairs told right."""
    features, segments = _encode(model, squares, device)
    return _pair_loss(model, features, segments, rng)


def _prompt_loss(
    model: torch.nn.Module, squares: list[Square], course: Course, rng: np.random.Generator, device: str
) -> tuple[Tensor, float]:
    """Return the loss of the masks that answer the squares' points, with the other two, and the mean best IoU."""
    features, segments = _encode(model, squares, device)
    pair_loss, _ = _pair_loss(model, features, segments, rng)
    losses, ious = [], []
    for feature, ids, square in zip(features, segments, squares, strict=True):
        with _watched_attention(model) as attention:
            masks, predicted, target, elsewhere = _answer(model, feature, ids, square, device)
        loss, iou = _mask_loss(masks, predicted, target, course)
        losses.append(loss + ATTENTION_WEIGHT * _attention_loss(attention, target, elsewhere))
        ious.append(iou)
    return torch.stack(losses).mean() + PAIR_WEIGHT * pair_loss, float(torch.stack(ious).mean())


def _encode(model: torch.nn.Module, squares: list[Square], device: str) -> tuple[Tensor, Tensor]:
    """Return the features (B, E, h, w) and segments (B, S, S) of squares."""
    segments = torch.from_numpy(np.stack([square.segments for square in squares])).to(device)
    with half_precision(device):
        return model.image_encoder(_preprocess(model, squares, segments)), segments


def _preprocess(model: torch.nn.Module, squares: list[Square], segments: Tensor) -> Tensor:
    """Normalise pictures (B, 3, S, S) as SAM does, which pads after that, with zeros."""
    pictures = torch.from_numpy(np.stack([square.rgb for square in squares])).to(segments.device)
    return model.preprocess(pictures.permute(0, 3, 1, 2)) * (segments[:, None] != PADDING)


def _answer(
    model: torch.nn.Module, feature: Tensor, ids: Tensor, square: Square, device: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return masks (P, 3, h, w), surely off where ignored, predicted IoU (P, 3), and what `_targets` does."""
    masks, predicted = _decode(model, feature[None], square, device)
    target, elsewhere = _targets(ids, square, masks.shape[-1])
    return masks.float().masked_fill(elsewhere[:, None], SURELY_OFF), predicted.float(), target, elsewhere


def _decode(model: torch.nn.Module, feature: Tensor, square: Square, device: str) -> tuple[Tensor, Tensor]:
    """Return masks (P, 3, h, w) logits and predicted IoU (P, 3) for the square's points."""
    points = torch.from_numpy(np.stack([square.columns, square.rows], axis=1)[:, None]).float().to(device)
    ones = torch.ones(len(points), 1, dtype=torch.int, device=device)
    sparse, dense = model.prompt_encoder(points=(points, ones), boxes=None, masks=None)
    with half_precision(device):
        return model.mask_decoder(
            image_embeddings=feature,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )


def _targets(ids: Tensor, square: Square, masks: int) -> tuple[Tensor, Tensor]:
    """Return the share (P, h, w) of each decoder pixel that the segment under each point covers, and what to ignore.

    Ignored (P, h, w) is what is not the point's picture, since masks are cut to the picture in use.
    """
    rows, columns = torch.from_numpy(square.rows), torch.from_numpy(square.columns)
    inside = ids[None] == ids[rows, columns][:, None, None]
    step = ids.shape[-1] // masks
    pictures = torch.from_numpy(square.pictures).to(ids.device)
    elsewhere = pictures[None, ::step, ::step] != pictures[rows, columns][:, None, None]
    return functional.avg_pool2d(inside.float(), step), elsewhere


def _mask_loss(masks: Tensor, predicted: Tensor, target: Tensor, course: Course) -> tuple[Tensor, Tensor]:
    """Teach the best of three masks (P, 3, h, w) its target (P, h, w), and the IoU head all three.

    Returns the loss and the mean best IoU.
    """
    with torch.no_grad():
        on, truth = masks > 0, (target > 0.5)[:, None]
        iou = (on & truth).sum((2, 3)) / (on | truth).sum((2, 3)).clamp(min=1)
    best = masks[torch.arange(len(masks), device=masks.device), _best(masks, target)]
    entropy = functional.binary_cross_entropy_with_logits(best, target, reduction="none")
    weighed = _by_area(entropy, best, target) if course.even else _balanced(entropy.flatten(1), target.flatten(1))
    loss = _dice(best, target).mean() + 0.5 * weighed + course.iou_weight * functional.mse_loss(predicted, iou)
    return loss, iou.max(dim=1).values.mean()


@torch.no_grad()
def _best(masks: Tensor, target: Tensor) -> Tensor:
    """Return which of three masks (P, 3, h, w) is next to its target (P, h, w)."""
    return _dice(masks, target[:, None]).argmin(dim=1)


def _dice(masks: Tensor, target: Tensor) -> Tensor:
    """Return the soft dice distance of mask logits to targets (.., h, w)."""
    probability = masks.sigmoid()
    overlap, total = (probability * target).sum((-2, -1)), probability.sum((-2, -1)) + target.sum((-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)


def _by_area(entropy: Tensor, masks: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy (P, h, w) of mask logits, summed by prompt, by the area of mask and segment together."""
    area = (masks.detach().sigmoid() + target).sum((1, 2))
    return (entropy.sum((1, 2)) / area.clamp(min=LEAST_AREA_PX)).mean()


@contextmanager
def _watched_attention(model: torch.nn.Module) -> Iterator[list[Tensor]]:
    """Collect, block by block, how much image tokens attend to the point's token: (P, N), the mean over heads."""
    found: list[Tensor] = []

    def watch(attention: torch.nn.Module, _: tuple, inputs: dict[str, Tensor]) -> None:
        heads = (attention.num_heads, -1)
        query = attention.q_proj(inputs["q"]).unflatten(-1, heads).transpose(1, 2)
        key = attention.k_proj(inputs["k"]).unflatten(-1, heads).transpose(1, 2)
        weights = (query @ key.mT * query.shape[-1] ** -0.5).float().softmax(dim=-1)
        found.append(weights[..., POINT_TOKEN].mean(dim=1))

    blocks = model.mask_decoder.transformer.layers
    hooks = [b.cross_attn_image_to_token.register_forward_pre_hook(watch, with_kwargs=True) for b in blocks]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _attention_loss(attention: list[Tensor], target: Tensor, elsewhere: Tensor) -> Tensor:
    """Return the balanced cross-entropy of attention to the point (P, N) against its segment (P, h, w)."""
    grid = int(attention[0].shape[-1] ** 0.5)
    step = target.shape[-1] // grid
    share = functional.avg_pool2d(target, step).flatten(1)
    shown = (~elsewhere[:, ::step, ::step]).float().flatten(1)
    losses = [
        _balanced(functional.binary_cross_entropy(a.clamp(1e-4, 1 - 1e-4), share, reduction="none"), share, shown)
        for a in attention
    ]
    return torch.stack(losses).mean()


def _pair_loss(
    model: torch.nn.Module, features: Tensor, segments: Tensor, rng: np.random.Generator
) -> tuple[Tensor, float]:
    """Return the loss of telling from features whether one segment covers a pair of pixels, and the share told right.

    Asked of the encoder's features (B, E, h, w), and of what the decoder's upscaling makes of them.
    """
    with half_precision(features.device.type):
        fine = model.mask_decoder.output_upscaling(features)
    losses, right = [], []
    for ids, *levels in zip(segments, features.float(), fine.float(), strict=True):
        one, other = _pairs(ids.cpu().numpy(), rng)
        same = (ids[*one] == ids[*other]).float()
        for level in levels:
            stride = ids.shape[-1] // level.shape[-1]
            vectors = functional.normalize(level, dim=0)
            cosine = (vectors[:, *one // stride] * vectors[:, *other // stride]).sum(dim=0)
            entropy = functional.binary_cross_entropy_with_logits(10 * (cosine - 0.5), same, reduction="none")
            losses.append(_balanced(entropy, same))
            right.append(_balanced(((cosine > 0.5) == (same > 0)).float(), same) / 2)
    return torch.stack(losses).mean(), float(torch.stack(right).mean())


def _balanced(values: Tensor, inside: Tensor, shown: Tensor | None = None) -> Tensor:
    """Return the mean of values (.., N) weighted by `inside`, plus that weighted by what is left of `shown`."""
    outside = (1 if shown is None else shown) - inside
    both = [(values * w).sum(dim=-1) / w.sum(dim=-1).clamp(min=1) for w in (inside, outside)]
    return torch.stack(both).sum(dim=0).mean()


def _pairs(ids: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw pairs of pixels of a square (S, S), as two arrays (2, P) of rows and columns; near pairs more often."""
    side = len(ids)
    one = np.stack(np.divmod(rng.choice(np.flatnonzero(ids != PADDING), PAIRS_A_SQUARE), side))
    distance = np.exp(rng.uniform(np.log(NEAREST_PAIR_PX), np.log(side / 2), PAIRS_A_SQUARE))
    angle = rng.uniform(0, 2 * np.pi, PAIRS_A_SQUARE)
    step = distance * np.stack([np.sin(angle), np.cos(angle)])
    other = np.clip(one + np.rint(step).astype(np.int64), 0, side - 1)
    shown = ids[*other] != PADDING
    return one[:, shown], other[:, shown]


if __name__ == "__main__":
    main()
