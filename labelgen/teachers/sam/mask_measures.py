"""Stability scores, boxes and areas of masks at native size, from the decoder's logits.

The stock SamAutomaticMaskGenerator interpolates all logits to the native size and compares each pixel with three
thresholds. But bilinear interpolation stays within the range of the values it takes, and most logits of a mask are far
from all thresholds. So each native pixel is assigned to the nearest decoder pixel. The native pixels of one decoder
pixel form a cell. A cell whose 3 x 3 neighbourhood of decoder pixels lies on one side of all thresholds is counted as
a whole. Only the other cells are interpolated.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MASKS_AT_ONCE = {"cpu": 16, "cuda": 4096}
"""Masks processed at once: a few stay in the cache of a CPU, a GPU takes all."""

CELLS_AT_ONCE = {"cpu": 4096, "cuda": 2**19}
"""Cells interpolated at once: they take 0.5 GB on a GPU."""


@dataclass(frozen=True)
class AxisCells:
    """One axis of the native image, divided into n cells, one for each decoder pixel, of at most s native pixels.

    Attributes:
        pixel_count: (n,) f32, native pixels in each cell.
        first: (n,) f32, position of the first native pixel of each cell; infinity if it has none.
        last: (n,) f32, position of the last one; minus infinity if there is none.
        weights: (s, 3, n) f32, with which each native pixel of a cell takes the decoder pixel before, at and after the
            cell's own; NaN for native pixels that the cell does not have.
    """

    pixel_count: "Tensor"
    first: "Tensor"
    last: "Tensor"
    weights: "Tensor"

    def to(self, device: "torch.device") -> "AxisCells":
        """Return a copy on `device`."""
        return AxisCells(*(getattr(self, field.name).to(device) for field in fields(self)))


def divide_into_cells(weights: "Tensor") -> AxisCells:
    """Divide an axis whose N native pixels are interpolated from n decoder pixels with `weights` (N, n).

    Each native pixel must take at most three neighbouring decoder pixels.
    """
    import torch

    native, low = weights.shape
    used = (weights != 0).int()
    first_used = used.argmax(dim=1)
    last_used = low - 1 - used.flip(1).argmax(dim=1)
    nearest = ((torch.arange(native) + 0.5) * low / native).long()
    cell = torch.minimum(torch.maximum(nearest, last_used - 1), first_used + 1)
    first = torch.searchsorted(cell, torch.arange(low))
    pixel_count = torch.bincount(cell, minlength=low)
    cell_weights = torch.full((int(pixel_count.max()), 3, low), torch.nan)
    position = torch.arange(native)
    padded_weights = torch.nn.functional.pad(weights, (1, 1))
    for tap in range(3):
        cell_weights[position - first[cell], tap, cell] = padded_weights[position, cell + tap]
    last = torch.where(pixel_count > 0, first + pixel_count - 1.0, -torch.inf)
    first_or_inf = torch.where(pixel_count > 0, first.float(), torch.inf)
    return AxisCells(pixel_count.float(), first_or_inf, last, cell_weights)


def measure_masks(
    logits: "Tensor", rows: AxisCells, cols: AxisCells, threshold: float, stability_offset: float
) -> "tuple[Tensor, Tensor, Tensor]":
    """Measure masks at native size.

    The stability score is SAM's: the area of the mask at `threshold` + offset, divided by that at `threshold` - offset.

    Args:
        logits: (M, h, w) of the decoder.
        rows: cells of the native rows.
        cols: cells of the native columns.
        threshold: logit above which a pixel is in the mask.
        stability_offset: the offset of the stability score.

    Returns:
        Stability scores (M,), NaN if both areas are 0; boxes (M, 4) as x0, y0, x1, y1 in native pixels, zeros for empty
        masks; areas (M,) in native pixels.
    """
    import torch

    levels = (threshold + stability_offset, threshold, threshold - stability_offset)
    parts = [_measure(part.float(), rows, cols, levels) for part in logits.split(MASKS_AT_ONCE[logits.device.type])]
    counts, boxes = zip(*parts, strict=True)
    area_above, area, area_below = torch.cat(counts, dim=1)
    return area_above / area_below, torch.cat(boxes), area


def find_boxes(logits: "Tensor", inner: "Tensor", rows: AxisCells, cols: AxisCells, threshold: float) -> "Tensor":
    """Return the boxes (M, 4) of masks alone: only cells that extend beyond the inner boxes are interpolated.

    Args:
        logits: (M, h, w) of the decoder.
        inner: boxes (M, 4) that lie within those of the masks, from `box_bounds.bound_boxes`.
        rows: cells of the native rows.
        cols: cells of the native columns.
        threshold: logit above which a pixel is in the mask.
    """
    import torch

    at_once = MASKS_AT_ONCE[logits.device.type]
    parts = zip(logits.split(at_once), inner.split(at_once), strict=True)
    return torch.cat([_extend_boxes(part.float(), boxes, rows, cols, threshold) for part, boxes in parts])


def _extend_boxes(logits: "Tensor", inner: "Tensor", rows: AxisCells, cols: AxisCells, threshold: float) -> "Tensor":
    """Extend inner boxes (M, 4) to the boxes of the masks (M, h, w)."""
    import torch

    left, top, right, bottom = inner.T.clone(memory_format=torch.contiguous_format)
    beyond_rows = (rows.first < top[:, None]) | (rows.last > bottom[:, None])
    beyond_cols = (cols.first < left[:, None]) | (cols.last > right[:, None])
    padded = _pad_edges(logits)
    possible = (_neighbourhood(padded, torch.maximum) > threshold) & (rows.pixel_count[:, None] * cols.pixel_count > 0)
    cells = (possible & (beyond_rows[:, :, None] | beyond_cols[:, None])).nonzero()
    for _ in _scan_cells(padded, cells, rows, cols, (threshold,), [top, bottom, left, right]):
        pass
    return torch.stack([left, top, right, bottom], dim=1).where((left <= right)[:, None], 0.0)


def _measure(logits: "Tensor", rows: AxisCells, cols: AxisCells, levels: tuple[float, ...]) -> "tuple[Tensor, Tensor]":
    """Return the counts of native pixels above each of L levels (L, M), and the boxes (M, 4) at the middle level."""
    import torch

    padded = _pad_edges(logits)
    lowest, highest = _neighbourhood(padded, torch.minimum), _neighbourhood(padded, torch.maximum)
    has_pixels = rows.pixel_count[:, None] * cols.pixel_count > 0
    whole = (lowest > max(levels)) & has_pixels
    counts = (whole.float() @ cols.pixel_count @ rows.pixel_count).expand(len(levels), -1).clone()
    edges = [
        edge
        for axis, other_dim in ((rows, 2), (cols, 1))
        for edge in _outermost(whole.any(dim=other_dim).T, axis.first[:, None], axis.last[:, None])
    ]
    cells = ((highest > min(levels)) & has_pixels & ~whole).nonzero()
    for mask, counts_in_cells in _scan_cells(padded, cells, rows, cols, levels, edges):
        counts.index_add_(1, mask, counts_in_cells)
    top, bottom, left, right = edges
    boxes = torch.stack([left, top, right, bottom], dim=1)
    return counts, boxes.where((counts[len(levels) // 2] > 0)[:, None], 0.0)


def _scan_cells(
    padded: "Tensor",
    cells: "Tensor",
    rows: AxisCells,
    cols: AxisCells,
    levels: tuple[float, ...],
    edges: "list[Tensor]",
) -> "Iterator[tuple[Tensor, Tensor]]":
    """Interpolate cells, `CELLS_AT_ONCE` at a time, and extend the edges of the masks' boxes in place.

    Args:
        padded: logits (M, h + 2, w + 2).
        cells: (C, 3), the mask, row and column of each cell.
        rows: cells of the native rows.
        cols: cells of the native columns.
        levels: L logits; the middle one decides the edges.
        edges: top, bottom, left, right of the boxes, (M,) each.

    Yields:
        The mask of each of K cells (K,), and how many of its native pixels lie above each level (L, K).
    """
    for part in cells.split(CELLS_AT_ONCE[padded.device.type]):
        mask, row, col = part.unbind(dim=1)
        counts, extremes = _scan(padded, mask, row, col, rows, cols, levels)
        for edge, position, reduction in zip(edges, extremes, ("amin", "amax", "amin", "amax"), strict=True):
            edge.scatter_reduce_(0, mask, position, reduction)
        yield mask, counts


def _scan(
    padded: "Tensor",
    mask: "Tensor",
    row: "Tensor",
    col: "Tensor",
    rows: AxisCells,
    cols: AxisCells,
    levels: tuple[float, ...],
) -> "tuple[Tensor, list[Tensor]]":
    """Interpolate K cells, each given by its mask, row and column (K,), of padded logits (M, h + 2, w + 2).

    Returns how many native pixels of each cell lie above each level (L, K), and the first and last native row and the
    first and last native column above the middle level, (K,) each.
    """
    import torch

    native = _interpolate(padded, mask, row, col, rows, cols)
    above = [torch.gt(native, level, out=torch.empty_like(native)) for level in levels]
    extremes = [
        edge
        for axis, cell, other_dim in ((rows, row, 1), (cols, col, 0))
        for edge in _outermost_in_cell(above[len(levels) // 2].amax(dim=other_dim), axis.first[cell])
    ]
    return torch.stack([inside.sum(dim=(0, 1)) for inside in above]), extremes


def _pad_edges(logits: "Tensor") -> "Tensor":
    """Return logits (M, h, w) with their outermost pixels repeated once on all sides: (M, h + 2, w + 2)."""
    import torch

    return torch.nn.functional.pad(logits[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]


def _neighbourhood(padded: "Tensor", extreme: "Callable[[Tensor, Tensor], Tensor]") -> "Tensor":
    """Return the minimum or maximum (M, h, w) of each 3 x 3 neighbourhood of padded logits (M, h + 2, w + 2)."""
    of_rows = extreme(extreme(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    return extreme(extreme(of_rows[:, :, :-2], of_rows[:, :, 1:-1]), of_rows[:, :, 2:])


def _interpolate(
    padded: "Tensor", mask: "Tensor", row: "Tensor", col: "Tensor", rows: AxisCells, cols: AxisCells
) -> "Tensor":
    """Return the native logits (s, t, K) of K cells of (M, h + 2, w + 2); NaN for pixels that a cell does not have."""
    import torch

    _, height, width = padded.shape
    corner = (mask * height + row) * width + col
    steps = torch.arange(3, device=corner.device)
    patch = padded.take(corner + (steps[:, None, None] * width + steps[:, None]))  # (3, 3, K)
    # gather, because weights[:, :, cell] takes as long as the interpolation itself on a CPU.
    row_weights, col_weights = (
        axis.weights.gather(2, cell.expand(*axis.weights.shape[:2], -1)) for axis, cell in ((rows, row), (cols, col))
    )
    of_rows = patch[:, None, 0] * col_weights[:, 0]
    for tap in (1, 2):
        of_rows.addcmul_(patch[:, None, tap], col_weights[:, tap])
    native = row_weights[:, None, 0] * of_rows[0]
    for tap in (1, 2):
        native.addcmul_(row_weights[:, None, tap], of_rows[tap])
    return native


def _outermost(inside: "Tensor", first: "Tensor", last: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return (M,) the least `first` and the greatest `last` (n, 1) of the cells that are inside (n, M)."""
    import torch

    return torch.where(inside, first, torch.inf).amin(dim=0), torch.where(inside, last, -torch.inf).amax(dim=0)


def _outermost_in_cell(inside: "Tensor", first: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return (K,) the first and last native position where `inside` (s, K) is 1.0 in cells starting at `first` (K,).

    They are infinite and minus infinite where `inside` is 0.0 throughout.
    """
    import torch

    rank = torch.arange(1.0, len(inside) + 1, device=inside.device)[:, None]
    to_last, from_first = (inside * rank).amax(dim=0), (inside * rank.flip(0)).amax(dim=0)
    is_empty = to_last == 0
    return (
        (first + len(inside) - from_first).masked_fill_(is_empty, torch.inf),
        (first + to_last - 1).masked_fill_(is_empty, -torch.inf),
    )
