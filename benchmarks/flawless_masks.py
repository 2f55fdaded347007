"""What inspect would say of a SAM that knows the truth: how far masks can come on a grid of points, at an input size.

    python -m benchmarks.flawless_masks out/demo.zarr [--grid 20] [--masks 192]

Each point of the grid is answered with the true segment under it, drawn as finely as SAM's decoder draws: `--masks`
pixels along the longer side, 192 for the demo's SAM and 256 for the official ones. The better of two segments takes a
pixel. Scores are those of `labelgen inspect`: mean best IoU and share found of true segments, by size.
"""

import argparse
import itertools

import numpy as np
import torch
from numpy.typing import NDArray

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.inspection.counting.statistics import FOUND_IOU, SEGMENT_SHARES, best_ious
from labelgen.teachers.sam.resampling import nearest_index


def main() -> None:
    """Read the truth of all pictures, and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--grid", type=int, default=20)
    parser.add_argument("--masks", type=int, default=192)
    args = parser.parse_args()
    cache, _ = Cache.open(args.cache)
    truth = [cache.read(GroupPath(key, "truth"), "segments")["segments"] for key in cache.shard_keys()]
    pictures = np.concatenate([segments.reshape(-1, *segments.shape[-2:]) for segments in truth])
    best, share = np.concatenate([best_ious(s, answer(s, args.grid, args.masks)) for s in pictures], axis=1)
    size = np.digitize(share, SEGMENT_SHARES)
    print(f"{len(best):,} truth segments: {_scores(best)}")
    for number, (most, least) in enumerate(itertools.pairwise((1.0, *SEGMENT_SHARES))):
        print(f"    of {100 * least:g}% to {100 * most:g}% of the picture: {_scores(best[size == number])}")


def answer(segments: NDArray[np.uint16], grid: int, mask_width: int) -> NDArray[np.uint16]:
    """Return the ids (H, W) of masks that a flawless SAM makes of true segments (H, W)."""
    height, width = segments.shape
    rows, columns = (nearest_index(length, grid) for length in segments.shape)
    hit = np.unique(segments[np.ix_(rows, columns)])
    hit = hit[hit > 0]
    inside = torch.from_numpy((segments == hit[:, None, None]).astype(np.float32))[None]
    drawn = torch.nn.functional.interpolate(inside, (round(mask_width * height / width), mask_width), mode="area")
    shown = torch.nn.functional.interpolate(drawn, (height, width), mode="bilinear", align_corners=False)[0].numpy()
    return np.where(shown.max(axis=0) > 0.5, shown.argmax(axis=0) + 1, 0).astype(np.uint16)


def _scores(best: NDArray[np.float64]) -> str:
    return f"mean best IoU {100 * best.mean():.1f}%, recall at IoU 0.5 {100 * (best >= FOUND_IOU).mean():.1f}%"


if __name__ == "__main__":
    main()
