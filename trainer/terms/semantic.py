"""The cross-entropies of eq 5 and 6 of the CNS paper."""

from torch import Tensor, nn
from torch.nn import functional

from cache_schemas.taxonomy import IGNORE
from trainer.data.class_weights import ClassWeights
from trainer.terms.step_values import Losses, LossSum, StepValues

FULL_CONFIDENCE = 255
"""What the cache stores for the confidence 1."""


class SemanticTerm(nn.Module):
    """Cross-entropy of the scores of pixels (`image`) and of points (`cloud`) to the targets of the step."""

    pixel_weights: Tensor | None
    point_weights: Tensor | None

    def __init__(self, weights: ClassWeights | None) -> None:
        """Let elements count as much as their class weighs; None: all elements count alike."""
        super().__init__()
        self.register_buffer("pixel_weights", None if weights is None else weights.pixels, persistent=False)
        self.register_buffer("point_weights", None if weights is None else weights.points, persistent=False)

    def forward(self, step: StepValues) -> Losses:
        """Return the losses of the networks that have targets."""
        losses, targets = {}, step.targets
        if step.image and targets.pixels is not None:
            losses["image"] = semantic_loss(
                step.image.scores, targets.pixels, self.pixel_weights, targets.pixel_confidence
            )
        if step.cloud and targets.points is not None:
            losses["cloud"] = semantic_loss(
                step.cloud.scores, targets.points, self.point_weights, targets.point_confidence
            )
        return losses


def semantic_loss(
    scores: Tensor, labels: Tensor, weights: Tensor | None = None, confidence: Tensor | None = None
) -> LossSum:
    """Return the cross-entropy of eq 5 and 6, summed over elements whose label is not the ignore index 255.

    Args:
        scores: (N, C, ..) f32 or bf16, class scores of pixels or points.
        labels: (N, ..) u8.
        weights: (C,) f32; an element counts as much as its class weighs. None: all elements count alike.
        confidence: (N, ..) u8, 255 times a factor 0..1 of what each element counts. None: all factors are 1.
    """
    if confidence is not None:
        return _sure_loss(scores, labels, weights, confidence)
    entropy = functional.cross_entropy(
        scores.float(), labels.long(), weight=weights, ignore_index=IGNORE, reduction="sum"
    )
    labelled = labels != IGNORE
    return LossSum(entropy, labelled.sum() if weights is None else weights[labels[labelled].long()].sum())


def _sure_loss(scores: Tensor, labels: Tensor, weights: Tensor | None, confidence: Tensor) -> LossSum:
    entropy = functional.cross_entropy(
        scores.float(), labels.long(), weight=weights, ignore_index=IGNORE, reduction="none"
    )
    labelled = labels != IGNORE
    factors = confidence[labelled] / FULL_CONFIDENCE
    counts = factors if weights is None else factors * weights[labels[labelled].long()]
    return LossSum((entropy[labelled] * factors).sum(), counts.sum())
