"""OpenScene's ensemble of CLIP's features and of the 3D network by point (Peng et al., CVPR 2023, section 3.3)."""

import torch
from torch import Tensor
from torch.nn import functional

from cache_schemas.stored_features import decode_features
from trainer.data.stream import SampleArrays
from trainer.errors import UnfitCacheError
from trainer.networks.bilinear import sample_bilinear
from trainer.terms.teacher_features import mean_over_views

FEATURES = "clip/features"
SCALE = "clip/features_scale"

POINTS_AT_ONCE = 16384
"""Points whose features of all views are in memory together; a scan has too many for all of them."""


def fused_cosines(arrays: SampleArrays, text: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine (P, C) f32 of the fused 2D feature of each point and each class, and which (P,) a camera sees.

    The fused feature is the mean of the CLIP features of the point's views in all pictures, as the distillation term
    has it. The cosines of a point that no camera sees are 0.

    Args:
        arrays: of a sample, with `clip/features` (I, D, h, w), their scale where they are int8, and the pairs.
        text: (C, D) f32, the class embeddings, of unit norm.

    Raises:
        UnfitCacheError: if the features have another width D than the class embeddings.
    """
    device = text.device
    decoded = decode_features(arrays[FEATURES], arrays.get(SCALE), channel_axis=1)
    grids = torch.from_numpy(decoded).to(device).permute(0, 2, 3, 1)
    if grids.shape[3] != text.shape[1]:
        raise UnfitCacheError(
            f"{FEATURES}: {grids.shape[3]} channels, but the class embeddings of the run have {text.shape[1]}; use a "
            "cache made with the CLIP network of the run"
        )
    height, width = arrays["images/rgb"].shape[1:3]
    order = arrays["pairs/point"].argsort(kind="stable")
    point, image, row, col = (
        torch.from_numpy(arrays[f"pairs/{name}"][order]).to(device) for name in ("point", "image", "row", "col")
    )
    position = torch.stack([(row + 0.5) / height, (col + 0.5) / width], dim=1)
    points = len(arrays["points/xyz"])
    cosines, seen = text.new_zeros(points, len(text)), torch.zeros(points, dtype=torch.bool, device=device)
    for start in range(0, points, POINTS_AT_ONCE):
        stop = min(start + POINTS_AT_ONCE, points)
        first, end = torch.searchsorted(point, torch.tensor([start, stop], device=device)).tolist()
        views = sample_bilinear(grids, image[first:end], position[first:end])
        fused, seen[start:stop] = mean_over_views(views, point[first:end] - start, stop - start)
        cosines[start:stop] = functional.normalize(fused, dim=1) @ text.T
    return cosines, seen


def ensemble_cosines(fused: Tensor, network: Tensor, seen: Tensor) -> Tensor:
    """Return for each point those cosines (P, C) that its class is chosen by.

    They are the fused ones if a camera sees the point and their highest is above the highest of the 3D network's, else
    those of the 3D network.

    Args:
        fused: (P, C) f32, cosines of the fused 2D features and the classes.
        network: (P, C) f32, cosines of the 3D network's mapped features and the classes.
        seen: (P,) bool, the points that a camera sees.
    """
    takes_fused = seen & (fused.amax(dim=1) > network.amax(dim=1))
    return torch.where(takes_fused[:, None], fused, network)
