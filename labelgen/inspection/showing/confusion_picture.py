"""Draw confusion matrices: which label the pixels or points of each true class got, before and after the vote."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from labelgen.inspection.formatting import percent
from labelgen.inspection.report import Report
from labelgen.inspection.report_statistics import Agreement

_CELL_PX, _NAMES_PX, _TITLE_PX, _GAP_PX = 38, 150, 44, 30
_BACKGROUND, _TEXT, _FAINT_TEXT, _EMPTY_CELL = (255, 255, 255), (30, 30, 30), (170, 170, 170), (245, 245, 245)
_FULL_CELL = np.array([8, 64, 129])
"""Colour of a cell that holds a whole row."""

Picture = NDArray[np.uint8]


def write_confusions(report: Report, folder: Path) -> list[Path]:
    """Write `confusion-image.png` and `confusion-point.png`, as far as there is truth; returns the files.

    Raises:
        OSError: if the folder cannot be written.
    """
    if report.statistics is None:
        return []
    truth = report.statistics.truth
    files = []
    for target, unit, agreement in (("image", "pixels", truth.image), ("point", "points", truth.point)):
        if agreement is not None and (picture := draw_agreement(agreement, unit)) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            files.append(folder / f"confusion-{target}.png")
            Image.fromarray(picture).save(files[-1])
    return files


def draw_agreement(agreement: Agreement, unit: str) -> Picture | None:
    """Draw the confusion matrices of raw and of voted labels side by side; None if nothing was scored."""
    panels = [
        draw_confusion(scores.confusion, list(scores.iou), f"{unit}, {labels}: mIoU {percent(scores.miou)}")
        for labels, scores in (("raw labels", agreement.raw), ("voted labels", agreement.refined))
        if scores.miou is not None
    ]
    return np.concatenate(panels, axis=1) if panels else None


def row_shares(confusion: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Return a confusion matrix (C, C) as shares of its rows; a row without counts is all zero."""
    counts = np.array(confusion, np.int64)
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.zeros(counts.shape)
    np.divide(counts, rows, out=shares, where=rows > 0)
    return shares


def draw_confusion(confusion: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Picture:
    """Draw a confusion matrix (C, C): rows are true classes, columns are labels, cells are shares of the row."""
    shares = row_shares(confusion)
    side = len(names) * _CELL_PX
    left, top = _NAMES_PX, _TITLE_PX + _NAMES_PX
    image = Image.new("RGB", (left + side + _GAP_PX, top + side + _GAP_PX), _BACKGROUND)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    heading = f"{title}; rows: truth, columns: label, % of the row"
    draw.text((left, 12), heading, fill=_TEXT, font=ImageFont.load_default(17))
    for row, name in enumerate(names):
        row_fill = _TEXT if shares[row].any() else _FAINT_TEXT
        draw.text((left - 8, top + (row + 0.5) * _CELL_PX), name, fill=row_fill, font=font, anchor="rm")
        for column in range(len(names)):
            corner = left + column * _CELL_PX, top + row * _CELL_PX
            _draw_cell(draw, corner, float(shares[row, column]), empty=not shares[row].any())
    for column, name in enumerate(names):
        vertical = Image.new("RGB", (_NAMES_PX - 8, 16), _BACKGROUND)
        ImageDraw.Draw(vertical).text((0, 1), name, fill=_TEXT, font=font)
        image.paste(vertical.rotate(90, expand=True), (left + column * _CELL_PX + _CELL_PX // 2 - 8, _TITLE_PX))
    return np.asarray(image)


def _draw_cell(draw: ImageDraw.ImageDraw, corner: tuple[int, int], share: float, empty: bool) -> None:
    """Draw a cell at its upper left corner; `empty` cells belong to a class without truth."""
    x, y = corner
    red, green, blue = (int(value) for value in 255 + share**0.7 * (_FULL_CELL - 255))
    fill = _EMPTY_CELL if empty else (red, green, blue)
    draw.rectangle((x, y, x + _CELL_PX - 2, y + _CELL_PX - 2), fill=fill)
    if share >= 0.005:
        text_fill = _BACKGROUND if share > 0.4 else _TEXT
        centre = (x + _CELL_PX / 2, y + _CELL_PX / 2)
        draw.text(centre, f"{100 * share:.0f}", fill=text_fill, font=ImageFont.load_default(12), anchor="mm")
