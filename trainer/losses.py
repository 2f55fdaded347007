"""The losses of Cross-modality Noisy Supervision, and the refinement they rest on: one function an equation.

Labels are u8 ids with 255 for "none". A loss is returned as a sum and the number of elements summed, so that ranks
can divide by their joint number.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from cache_schemas.taxonomy import IGNORE


class Summed(NamedTuple):
    """A loss summed over elements, and their number; scalars."""

    total: Tensor
    count: Tensor


def class_scores(features: Tensor, weight: Tensor, bias: Tensor, text: Tensor) -> Tensor:
    """Return the dot products (.., C) of linearly mapped features (.., F) with text embeddings t_l (C, D).

    The map has `weight` (D, F) and `bias` (D,). It is folded into the embeddings first, so that mapped features
    (.., D) are never made: (W x + b) . t = x . (W^T t) + b . t.
    """
    return functional.linear(features, text @ weight, text @ bias)


def semantic_loss(scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> Summed:
    """Eq 5 and 6: cross-entropy of scores (N, C, ..) to labels (N, ..), over the elements that have one.

    With `weights` (C,) an element counts as much as its class weighs.
    """
    entropy = functional.cross_entropy(
        scores.float(), labels.long(), weight=weights, ignore_index=IGNORE, reduction="sum"
    )
    known = labels != IGNORE
    return Summed(entropy, known.sum() if weights is None else weights[labels[known].long()].sum())


def latent_loss(features: Tensor, teacher: Tensor) -> Summed:
    """Eq 7: 1 - cos of mapped features (N, K) to the mapped, normalised frozen features (N, K) at the same pairs."""
    cosine = functional.cosine_similarity(features.float(), functional.normalize(teacher.float(), dim=1), dim=1)
    return Summed((1 - cosine).sum(), torch.tensor(len(cosine), device=cosine.device))


def vote(labels: Tensor, mask_ids: Tensor, picture: Tensor, sizes: tuple[int, int], classes: int) -> Tensor:
    """Eq 4: give the elements of a mask the label that most of them have, the lowest of equally frequent ones.

    `labels` (..) u8, `mask_ids` and `picture` broadcast; `sizes` are the number of pictures, and one more than the
    highest id of a mask in any. Id 0 is no mask. "None" does not vote, but takes the label of its mask. Elements of no
    mask, or of one without a vote, keep their own label.
    """
    pictures, masks = sizes
    # A ballot names picture, mask and label ("none" is the class after the last), and is where its outcome stands:
    # few passes over the elements, and all of them over small integers.
    width = classes + 1
    ballots = torch.add(picture * (masks * width) + labels.clamp(max=classes), mask_ids, alpha=width).flatten()
    votes = torch.zeros(pictures * masks * width, dtype=torch.int32, device=labels.device)
    # torch.bincount would count too, but on a GPU it waits for the highest ballot.
    votes.index_add_(0, ballots, torch.ones_like(votes[:1]).expand(len(ballots)))
    most, winner = votes.view(-1, width)[:, :classes].max(dim=1)
    own = torch.arange(width, device=labels.device)
    own = torch.where(own < classes, own, IGNORE)
    elects = (most > 0) & (torch.arange(len(most), device=labels.device) % masks > 0)
    outcome = torch.where(elects[:, None], winner[:, None], own).to(labels.dtype)
    return outcome.flatten().index_select(0, ballots).view_as(labels)


def refine_pixels(labels: Tensor, mask_ids: Tensor, masks: int, classes: int) -> Tensor:
    """Eq 4 for pixels: vote labels (B, H, W) within the masks of each picture, ids below `masks`; id 0 is no mask."""
    picture = torch.arange(len(labels), dtype=mask_ids.dtype, device=labels.device)[:, None, None]
    return vote(labels, mask_ids, picture, (len(labels), masks), classes)


def sample(grid: Tensor, image: Tensor, place: Tensor) -> Tensor:
    """Return features (N, K) of grids (B, h, w, K) at places (N, 2), row and column in 0..1; bilinear.

    Cell centres lie at (i + 0.5) / h; beyond the outer ones, theirs holds.
    """
    height, width = grid.shape[1:3]
    size = torch.tensor([height, width], device=place.device)
    exact = place * size - 0.5
    exact = torch.minimum(exact.clamp(min=0), size - 1)
    low = torch.minimum(exact.long(), (size - 2).clamp(min=0))
    high = torch.minimum(low + 1, size - 1)
    share = exact - low
    corners, weights = [], []
    for row, down in ((low[:, 0], 1 - share[:, 0]), (high[:, 0], share[:, 0])):
        for col, right in ((low[:, 1], 1 - share[:, 1]), (high[:, 1], share[:, 1])):
            corners.append((image * height + row) * width + col)
            weights.append(down * right)
    return functional.embedding_bag(
        torch.stack(corners, dim=1),
        grid.float().flatten(0, 2),
        per_sample_weights=torch.stack(weights, dim=1),
        mode="sum",
    )
