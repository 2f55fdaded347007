"""The majority vote within SAM's masks (eq 4 of the CNS paper) on the predictions of the networks.

Ties are broken differently here than when labels are made. `labelgen` votes once for each image and has CLIP's scores
of all classes, so of equally frequent classes it takes the one with the higher summed score, then the lower id. This
vote runs in every training step on predicted ids alone, so it takes the lower id: to compare scores, a step would have
to sum B x C x H x W of them by mask, for ties that are rare and that the next step decides again.
"""

import torch
from torch import Tensor

from cache_schemas.taxonomy import IGNORE


def vote_in_masks(
    labels: Tensor, mask_ids: Tensor, image: Tensor, *, image_count: int, mask_count: int, classes: int
) -> Tensor:
    """Return labels in which all elements of a mask have the label that is most frequent in it (eq 4).

    Of equally frequent labels the lowest id wins. The ignore index 255 does not vote, but an element with it gets the
    label of its mask. Elements in no mask (mask id 0), or in a mask without votes, keep their own label.

    Args:
        labels: (..) u8, of pixels or of pairs.
        mask_ids: (..) integers below `mask_count`, the mask of each element within its image.
        image: integers below `image_count` that broadcast with `labels`, the image of each element.
        image_count: the number of images.
        mask_count: one more than the highest mask id in any image.
        classes: the number of classes C.
    """
    # Index of (image, mask, label) in the flat vote table; the ignore index is column C. This takes few passes over
    # the elements, all over small integers.
    width = classes + 1
    cell = torch.add(image * (mask_count * width) + labels.clamp(max=classes), mask_ids, alpha=width).flatten()
    votes = torch.zeros(image_count * mask_count * width, dtype=torch.int32, device=labels.device)
    # torch.bincount would count too, but on a GPU it synchronises to find the highest index.
    votes.index_add_(0, cell, torch.ones_like(votes[:1]).expand(len(cell)))
    most, winner = votes.view(-1, width)[:, :classes].max(dim=1)
    own = torch.arange(width, device=labels.device)
    own = torch.where(own < classes, own, IGNORE)
    is_mask = torch.arange(len(most), device=labels.device) % mask_count > 0
    outcome = torch.where(((most > 0) & is_mask)[:, None], winner[:, None], own).to(labels.dtype)
    return outcome.flatten().index_select(0, cell).view_as(labels)


def refine_pixels(labels: Tensor, mask_ids: Tensor, mask_count: int, classes: int) -> Tensor:
    """Return labels (B, H, W) u8 of pixels after the vote within the masks (B, H, W) of each image."""
    image = torch.arange(len(labels), dtype=mask_ids.dtype, device=labels.device)[:, None, None]
    return vote_in_masks(labels, mask_ids, image, image_count=len(labels), mask_count=mask_count, classes=classes)


def refine_points(
    labels: Tensor,
    pair_point: Tensor,
    pair_image: Tensor,
    mask_of_pair: Tensor,
    *,
    image_count: int,
    mask_count: int,
    classes: int,
) -> Tensor:
    """Return labels (P,) u8 of points after the vote by all points that are seen in the same mask (eq 3 and 4).

    Of a point that several cameras see, its first pair decides. Points that no camera sees keep their label.

    Args:
        labels: (P,) u8.
        pair_point: (N,) i64, the point of each pair.
        pair_image: (N,) i64, the image of each pair.
        mask_of_pair: (N,) integers below `mask_count`, the mask of each pair's pixel.
        image_count: the number of images.
        mask_count: one more than the highest mask id in any image.
        classes: the number of classes C.
    """
    voted = vote_in_masks(
        labels[pair_point], mask_of_pair, pair_image, image_count=image_count, mask_count=mask_count, classes=classes
    )
    refined = labels.clone()
    # Of several values for one place it is not defined which stays, so every point is written once.
    number = torch.arange(len(pair_point), device=labels.device)
    first = torch.full_like(labels, len(pair_point), dtype=torch.int64).scatter_reduce(0, pair_point, number, "amin")
    seen = first < len(pair_point)
    refined[seen] = voted[first[seen]]
    return refined
