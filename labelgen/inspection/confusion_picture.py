"""Confusion matrices as pictures: which class the labels take for which, before and after the vote in masks."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_CELL_PX, _NAMES_PX, _TITLE_PX, _GAP_PX = 38, 150, 44, 30
_PAPER, _INK = (255, 255, 255), (30, 30, 30)
_FULL = np.array([8, 64, 129])
"""Colour of a cell that holds a whole row."""


def write_confusions(found: dict[str, Any], folder: Path) -> list[Path]:
    """Write `confusion-image.png` and `confusion-point.png` of what `inspect_cache` found, where there is truth."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for target, unit in (("image", "pixels"), ("point", "points")):
        truth = found.get("truth", {}).get(target)
        if not truth:
            continue
        panels = [
            _draw(np.array(truth[kind]["confusion"]), list(truth[kind]["iou"]), f"{unit}, {words}: mIoU {miou:.1%}")
            for kind, words in (("raw", "raw labels"), ("refined", "voted labels"))
            if (miou := truth[kind]["miou"]) is not None
        ]
        if panels:
            files.append(folder / f"confusion-{target}.png")
            Image.fromarray(np.concatenate(panels, axis=1)).save(files[-1])
    return files


def _draw(confusion: NDArray[np.int64], names: list[str], title: str) -> NDArray[np.uint8]:
    """Draw a confusion matrix (C, C): rows are true classes and show what share of each the labels call what."""
    rows = confusion.sum(axis=1, keepdims=True)
    share = np.divide(confusion, rows, out=np.zeros(confusion.shape), where=rows > 0)
    side = len(names) * _CELL_PX
    left, top = _NAMES_PX, _TITLE_PX + _NAMES_PX
    image = Image.new("RGB", (left + side + _GAP_PX, top + side + _GAP_PX), _PAPER)
    pen, small, large = ImageDraw.Draw(image), ImageFont.load_default(12), ImageFont.load_default(17)
    pen.text((left, 12), f"{title}; rows: truth, columns: label, % of the row", fill=_INK, font=large)
    for row, name in enumerate(names):
        faint = _INK if rows[row, 0] else (170, 170, 170)
        pen.text((left - 8, top + (row + 0.5) * _CELL_PX), name, fill=faint, font=small, anchor="rm")
        for col in range(len(names)):
            x, y = left + col * _CELL_PX, top + row * _CELL_PX
            colour = tuple(int(value) for value in 255 + share[row, col] ** 0.7 * (_FULL - 255))
            pen.rectangle((x, y, x + _CELL_PX - 2, y + _CELL_PX - 2), fill=colour if rows[row, 0] else (245, 245, 245))
            if share[row, col] >= 0.005:
                ink = _PAPER if share[row, col] > 0.4 else _INK
                centre = (x + _CELL_PX / 2, y + _CELL_PX / 2)
                pen.text(centre, f"{100 * share[row, col]:.0f}", fill=ink, font=small, anchor="mm")
    for col, name in enumerate(names):
        upright = Image.new("RGB", (_NAMES_PX - 8, 16), _PAPER)
        ImageDraw.Draw(upright).text((0, 1), name, fill=_INK, font=small)
        image.paste(upright.rotate(90, expand=True), (left + col * _CELL_PX + _CELL_PX // 2 - 8, _TITLE_PX))
    return np.asarray(image)
