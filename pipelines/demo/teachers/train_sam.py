"""Train the demo's SAM on point prompts: `python -m pipelines.demo.teachers.train_sam --out FILE`.

Each step prompts a few pictures with points; the decoder's three masks answer each, the best of them is taught the
mask of the object or stuff segment under the point (dice and balanced cross-entropy), and the IoU head learns how
good all three are. An auxiliary loss teaches the encoder that pixels of one segment are close and those of different
segments apart. No class is ever shown.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from labelgen.settings import SamSettings
from labelgen.teachers.sam import build_sam
from pipelines.demo.teachers.loop import parse_arguments, train, training_views
from pipelines.demo.teachers.views import Views

STEPS = 4000
PICTURES_A_STEP, POINTS_A_PICTURE = 3, 20
SMALLEST_SEGMENT_PX = 60
PAIR_SAMPLES = 192


def main() -> None:
    """Draw the training views, train, and write the weights as safetensors."""
    args = parse_arguments(__doc__, STEPS)
    views = training_views(args)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = build_sam(SamSettings(architecture="demo", weights="untrained:0")).to(args.device).train()

    def step() -> tuple[Tensor, float]:
        batch = [_draw(views, rng, POINTS_A_PICTURE) for _ in range(PICTURES_A_STEP)]
        return _loss(model, batch, rng, args.device)

    train(model, step, "IoU", args)


def _draw(views: Views, rng: np.random.Generator, prompts: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Draw a picture (H, W, 3), maybe mirrored, its segments (H, W), and points (P,) rows and columns on them.

    Half of the points fall on a segment chosen evenly, half on a pixel chosen evenly, as a grid's points would.
    """
    index = int(rng.integers(len(views.rgb)))
    flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
    rgb, segments = views.rgb[index][:, flip], views.instance_ids[index][:, flip].astype(np.int64)
    light = rng.uniform(0.8, 1.2) * rgb.astype(np.float32) + rng.uniform(-12, 12)
    sizes = np.bincount(segments.ravel())
    big = np.flatnonzero(sizes >= SMALLEST_SEGMENT_PX)
    order = np.argsort(segments.ravel(), kind="stable")
    ends = np.cumsum(sizes)
    chosen = rng.choice(big, prompts // 2)
    on_segments = order[ends[chosen] - 1 - (rng.random(len(chosen)) * sizes[chosen]).astype(np.int64)]
    anywhere = rng.choice(np.flatnonzero(np.isin(segments, big)), prompts - len(chosen))
    rows, columns = np.divmod(np.concatenate([on_segments, anywhere]), segments.shape[1])
    return np.clip(light, 0, 255).astype(np.uint8), segments, rows, columns


def _loss(model: torch.nn.Module, batch: list, rng: np.random.Generator, device: str) -> tuple[Tensor, float]:
    pictures = torch.from_numpy(np.stack([rgb for rgb, *_ in batch])).to(device).permute(0, 3, 1, 2)
    features = model.image_encoder(model.preprocess(pictures))
    losses, ious = [], []
    for feature, (_, segments, rows, columns) in zip(features, batch, strict=True):
        masks, predicted = _decode(model, feature[None], rows, columns, device)
        target = _targets(segments, rows, columns, masks.shape[-1], model.image_encoder.img_size, device)
        mask_loss, iou = _mask_loss(masks[..., : target.shape[-2], : target.shape[-1]], predicted, target)
        losses.append(mask_loss + 0.5 * _pair_loss(feature, segments, rng))
        ious.append(iou)
    return torch.stack(losses).mean(), float(np.mean(ious))


def _decode(
    model: torch.nn.Module, feature: Tensor, rows: NDArray, columns: NDArray, device: str
) -> tuple[Tensor, Tensor]:
    """Return masks (P, 3, h, w) logits and predicted IoU (P, 3) for points given in pixels of the resized picture."""
    points = torch.from_numpy(np.stack([columns, rows], axis=1)[:, None]).float().to(device)
    ones = torch.ones(len(points), 1, dtype=torch.int, device=device)
    sparse, dense = model.prompt_encoder(points=(points, ones), boxes=None, masks=None)
    return model.mask_decoder(
        image_embeddings=feature,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )


def _targets(segments: NDArray, rows: NDArray, columns: NDArray, masks: int, side: int, device: str) -> Tensor:
    """Return the share (P, h, w) of each decoder pixel that the segment under each point covers."""
    inside = torch.from_numpy(segments[None] == segments[rows, columns][:, None, None]).to(device)
    return functional.avg_pool2d(inside.float(), side // masks)


def _mask_loss(masks: Tensor, predicted: Tensor, target: Tensor) -> tuple[Tensor, float]:
    """Teach the best of three masks its target, and the IoU head all three; returns the loss and the mean best IoU."""
    target = target[:, None].expand_as(masks)
    probability = masks.sigmoid()
    overlap, total = (probability * target).sum((2, 3)), (probability + target).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    entropy = functional.binary_cross_entropy_with_logits(masks, target, reduction="none")
    inside, outside = target.sum((2, 3)), (1 - target).sum((2, 3))
    balanced = (entropy * target).sum((2, 3)) / (inside + 1) + (entropy * (1 - target)).sum((2, 3)) / (outside + 1)
    best = (dice + 0.5 * balanced).min(dim=1).values
    with torch.no_grad():
        on, truth = masks > 0, target > 0.5
        iou = (on & truth).sum((2, 3)) / (on | truth).sum((2, 3)).clamp(min=1)
    return best.mean() + functional.mse_loss(predicted, iou), float(iou.max(dim=1).values.mean())


def _pair_loss(feature: Tensor, segments: NDArray, rng: np.random.Generator) -> Tensor:
    """Logistic loss on the cosine (times 5) of the features (E, h, w) under pairs of pixels: same segment or not."""
    stride = 16
    rows, columns = (rng.integers(0, length, PAIR_SAMPLES) for length in segments.shape)
    ids = torch.from_numpy(segments[rows, columns]).to(feature.device)
    vectors = functional.normalize(feature[:, rows // stride, columns // stride], dim=0)
    logits = 5 * vectors.T @ vectors
    same = (ids[:, None] == ids[None]).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, same, reduction="none")
    return (entropy * same).sum() / same.sum() + (entropy * (1 - same)).sum() / (1 - same).sum().clamp(min=1)


if __name__ == "__main__":
    main()
