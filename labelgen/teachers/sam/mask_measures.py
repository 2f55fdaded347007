"""Stability, box and area of masks at native size, from the decoder's logits.

Bilinear interpolation cannot leave the range of what it takes, and most of a mask's logits are far from any threshold.
So each native pixel belongs to the decoder's pixel nearest to it, its cell; cells whose surroundings lie on one side of
all thresholds are counted whole, and only the others are interpolated.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

AT_ONCE = {"cpu": (16, 4096), "cuda": (4096, 2**19)}
"""Masks, and cells to interpolate, at once: few stay in a CPU's cache; a GPU takes all masks, in 0.5 GB for cells."""


@dataclass(frozen=True)
class Cells:
    """One axis of the native image, cut at the decoder's n pixels into cells of up to `s` native pixels.

    `pixels` (n,) native pixels in each cell, `first` and `last` (n,) their positions, infinite if there is none, all
    f32; `weights` (s, 3, n) with which they take the decoder's pixel and the two beside it, NaN beyond the last one.
    """

    pixels: "Tensor"
    first: "Tensor"
    last: "Tensor"
    weights: "Tensor"

    def to(self, device: "torch.device") -> "Cells":
        """Return the cells on `device`."""
        return Cells(*(getattr(self, part.name).to(device) for part in fields(self)))


def cut_cells(weights: "Tensor") -> Cells:
    """Cut an axis whose native pixels take decoder pixels with `weights` (N, n), at most three neighbours each."""
    import torch

    native, low = weights.shape
    taken = (weights != 0).int()
    first_taken = taken.argmax(dim=1)
    last_taken = low - 1 - taken.flip(1).argmax(dim=1)
    nearest = ((torch.arange(native) + 0.5) * low / native).long()
    cell = torch.minimum(torch.maximum(nearest, last_taken - 1), first_taken + 1)
    first = torch.searchsorted(cell, torch.arange(low))
    pixels = torch.bincount(cell, minlength=low)
    by_cell = torch.full((int(pixels.max()), 3, low), torch.nan)
    place = torch.arange(native)
    beside = torch.nn.functional.pad(weights, (1, 1))
    for tap in range(3):
        by_cell[place - first[cell], tap, cell] = beside[place, cell + tap]
    last = torch.where(pixels > 0, first + pixels - 1.0, -torch.inf)
    return Cells(pixels.float(), torch.where(pixels > 0, first.float(), torch.inf), last, by_cell)


def measure(
    logits: "Tensor", rows: Cells, cols: Cells, threshold: float, offset: float
) -> "tuple[Tensor, Tensor, Tensor]":
    """Return the stability (M,), box (M, 4) as x0, y0, x1, y1, and area (M,) at native size of logits (M, h, w).

    The stability is the share of the mask at a lower threshold that a higher one leaves; an empty mask's box is zero.
    """
    (surely, area, maybe), boxes = _scan(logits, rows, cols, (threshold + offset, threshold, threshold - offset))
    return surely / maybe, boxes, area


def find_boxes(logits: "Tensor", inner: "Tensor", rows: Cells, cols: Cells, threshold: float) -> "Tensor":
    """Return the boxes (M, 4) alone, for far less: only cells that reach out of the boxes `inner` (M, 4) are looked at.

    Inner boxes lie within the masks' own and have them inside out, infinite, where nothing surely is in a mask.
    """
    import torch

    masks, _ = AT_ONCE[logits.device.type]
    parts = zip(logits.split(masks), inner.split(masks), strict=True)
    return torch.cat([_widen(part.float(), within, rows, cols, threshold) for part, within in parts])


def _widen(logits: "Tensor", inner: "Tensor", rows: Cells, cols: Cells, threshold: float) -> "Tensor":
    import torch

    left, top, right, bottom = inner.T.clone(memory_format=torch.contiguous_format)
    beyond_rows = (rows.first < top[:, None]) | (rows.last > bottom[:, None])
    beyond_cols = (cols.first < left[:, None]) | (cols.last > right[:, None])
    padded = _padded(logits)
    maybe = (_around(padded, torch.maximum) > threshold) & (rows.pixels[:, None] * cols.pixels > 0)
    cells = (maybe & (beyond_rows[:, :, None] | beyond_cols[:, None])).nonzero()
    for _ in _look_closely(padded, cells, rows, cols, (threshold,), [top, bottom, left, right]):
        pass
    return torch.stack([left, top, right, bottom], dim=1).where((left <= right)[:, None], 0.0)


def _scan(logits: "Tensor", rows: Cells, cols: Cells, levels: tuple[float, ...]) -> "tuple[Tensor, Tensor]":
    """Return how many native pixels lie above each of the levels (L, M), and masks' boxes (M, 4) at the middle one."""
    import torch

    masks, _ = AT_ONCE[logits.device.type]
    parts = [_scan_some(part.float(), rows, cols, levels) for part in logits.split(masks)]
    counts, boxes = zip(*parts, strict=True)
    return torch.cat(counts, dim=1), torch.cat(boxes)


def _scan_some(logits: "Tensor", rows: Cells, cols: Cells, levels: tuple[float, ...]) -> "tuple[Tensor, Tensor]":
    import torch

    padded = _padded(logits)
    lowest, highest = _around(padded, torch.minimum), _around(padded, torch.maximum)
    filled = rows.pixels[:, None] * cols.pixels > 0
    whole = (lowest > max(levels)) & filled
    counts = (whole.float() @ cols.pixels @ rows.pixels).expand(len(levels), -1).clone()
    edges = [
        edge
        for axis, across in ((rows, 2), (cols, 1))
        for edge in _ends(whole.any(dim=across).T, axis.first[:, None], axis.last[:, None])
    ]
    cells = ((highest > min(levels)) & filled & ~whole).nonzero()
    for mask, above in _look_closely(padded, cells, rows, cols, levels, edges):
        counts.index_add_(1, mask, above)
    top, bottom, left, right = edges
    boxes = torch.stack([left, top, right, bottom], dim=1)
    return counts, boxes.where((counts[len(levels) // 2] > 0)[:, None], 0.0)


def _look_closely(
    padded: "Tensor", cells: "Tensor", rows: Cells, cols: Cells, levels: tuple[float, ...], edges: "list[Tensor]"
) -> "Iterator[tuple[Tensor, Tensor]]":
    """Interpolate cells (C, 3), each a mask, a row and a column, of masks (M, h + 2, w + 2), some at a time.

    Yields their masks (K,) and how many of each cell's pixels lie above each level (L, K). Widens the edges (M,) in
    place, top, bottom, left, right, to the pixels above the middle one.
    """
    _, at_once = AT_ONCE[padded.device.type]
    for some in cells.split(at_once):
        mask, row, col = some.unbind(dim=1)
        above, found = _look(padded, mask, row, col, rows, cols, levels)
        for edge, place, keep in zip(edges, found, ("amin", "amax", "amin", "amax"), strict=True):
            edge.scatter_reduce_(0, mask, place, keep)
        yield mask, above


def _look(
    padded: "Tensor",
    mask: "Tensor",
    row: "Tensor",
    col: "Tensor",
    rows: Cells,
    cols: Cells,
    levels: tuple[float, ...],
) -> "tuple[Tensor, list[Tensor]]":
    """Interpolate K cells of masks (M, h + 2, w + 2).

    Returns how many of each cell's pixels lie above each level (L, K), and the first and last native row, then column,
    above the middle one, (K,) each.
    """
    import torch

    native = _interpolate(padded, mask, row, col, rows, cols)
    above = [torch.gt(native, level, out=torch.empty_like(native)) for level in levels]
    found = [
        edge
        for axis, cell, across in ((rows, row, 1), (cols, col, 0))
        for edge in _ends_in_cell(above[len(levels) // 2].amax(dim=across), axis.first[cell])
    ]
    return torch.stack([inside.sum(dim=(0, 1)) for inside in above]), found


def _padded(logits: "Tensor") -> "Tensor":
    """Return logits (M, h, w) with their outermost pixels repeated around them: (M, h + 2, w + 2)."""
    import torch

    return torch.nn.functional.pad(logits[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]


def _around(padded: "Tensor", of_two: "Callable[[Tensor, Tensor], Tensor]") -> "Tensor":
    """Return the least or greatest (M, h, w) of each 3 x 3 neighbourhood of (M, h + 2, w + 2)."""
    column = of_two(of_two(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    return of_two(of_two(column[:, :, :-2], column[:, :, 1:-1]), column[:, :, 2:])


def _interpolate(padded: "Tensor", mask: "Tensor", row: "Tensor", col: "Tensor", rows: Cells, cols: Cells) -> "Tensor":
    """Return the native values (s, t, K) in K cells of masks (M, h + 2, w + 2); NaN where a cell has fewer pixels."""
    import torch

    _, height, width = padded.shape
    corner = (mask * height + row) * width + col
    steps = torch.arange(3, device=corner.device)
    patch = padded.take(corner + (steps[:, None, None] * width + steps[:, None]))  # 3 3 K
    # Written as weights[:, :, cell] this costs as much as the interpolation itself on a CPU.
    down, right = (
        axis.weights.gather(2, cell.expand(*axis.weights.shape[:2], -1)) for axis, cell in ((rows, row), (cols, col))
    )
    across = patch[:, None, 0] * right[:, 0]
    for tap in (1, 2):
        across.addcmul_(patch[:, None, tap], right[:, tap])
    native = down[:, None, 0] * across[0]
    for tap in (1, 2):
        native.addcmul_(down[:, None, tap], across[tap])
    return native


def _ends(hit: "Tensor", first: "Tensor", last: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return the least `first` and the greatest `last` (n, X) of what is hit (n, X), column by column."""
    import torch

    return torch.where(hit, first, torch.inf).amin(dim=0), torch.where(hit, last, -torch.inf).amax(dim=0)


def _ends_in_cell(hit: "Tensor", first: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return the first and last native pixel where `hit` (s, K) is 1, not 0, in cells that start at `first` (K,)."""
    import torch

    up = torch.arange(1.0, len(hit) + 1, device=hit.device)[:, None]
    before_last, after_first = (hit * up).amax(dim=0), (hit * up.flip(0)).amax(dim=0)
    none = before_last == 0
    return (
        (first + len(hit) - after_first).masked_fill_(none, torch.inf),
        (first + before_last - 1).masked_fill_(none, -torch.inf),
    )
