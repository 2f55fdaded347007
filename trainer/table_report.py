"""The tables as text, Markdown and JSON: scores, the settings by which rows differ, and how the labels were made."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

from cache_schemas.scoring import json_number
from trainer.table_rows import Row

COLUMNS_OF_A_CACHE = ["2D mIoU", "3D mIoU", "2D - baseline", "3D - baseline"]

PREDICTIONS = {
    "fused_2d": "the mean CLIP feature of the views of a point",
    "ensemble": "the class of that or of the 3D network, whichever has the higher cosine",
}
"""By `Row.points`, what is scored besides the 3D network."""


@dataclass(frozen=True)
class Scores:
    """mIoU in 0..1 of pixels and of points for each seed; NaN: there is nothing to score."""

    image: tuple[float, ...] = ()
    point: tuple[float, ...] = ()


@dataclass(frozen=True)
class RowResult:
    """A row of the table and its results.

    Attributes:
        row: its definition.
        scores: its scores on each cache; empty if the row was left out, or labels were not scored.
        settings: those of its training that differ from CNS (full), by their full keys.
        left_out: why it was left out, or an empty text.
    """

    row: Row
    scores: tuple[Scores, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    left_out: str = ""

    def on(self, cache: int) -> Scores:
        """Return the scores on a cache; empty ones if there are none."""
        return self.scores[cache] if self.scores else Scores()


@dataclass(frozen=True)
class CacheBlock:
    """A cache of the table, which of its scenes were scored, and how its labels were made, by setting."""

    cache: str
    scenes: str
    labels: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows and the caches on which they were scored, seeds, and settings of all rows as `key=value`."""

    caches: tuple[CacheBlock, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    rows: tuple[RowResult, ...]


def render(table: Table, width: int) -> str:
    """Return the table for people, in percent, at most `width` columns wide, and the notes below it."""
    from rich.console import Console
    from rich.table import Table as RichTable

    grid = RichTable(box=None)
    for name in _heads(table):
        grid.add_column(name, justify="left" if not name else "right")
    for cells in _cells(table):
        grid.add_row(*cells)
    text = io.StringIO()
    Console(file=text, width=width, highlight=False, markup=False).print(grid)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "\n".join([*lines, "", *_notes(table), "", *(f"{name}: {made}" for name, made in _rows_made(table))])


def write(table: Table, out: Path) -> None:
    """Write table.txt, table.md and table.json to a folder; mIoU in JSON are in 0..1, null where there is no truth."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.txt").write_text(render(table, 80 + 80 * len(table.caches)) + "\n", encoding="utf-8")
    heads = _heads(table)
    grid = "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *_cells(table)])
    rows_made = "\n".join(f"- {name}: {made}" for name, made in _rows_made(table))
    (out / "table.md").write_text("\n\n".join([grid, *_notes(table), rows_made]) + "\n", encoding="utf-8")
    (out / "table.json").write_text(json.dumps(_document(table), indent=2) + "\n", encoding="utf-8")


def _document(table: Table) -> dict[str, Any]:
    """Return the table as one object, JSON-ready."""
    caches = [
        {
            "cache": block.cache,
            "scenes": block.scenes or None,
            "labels": dict(block.labels),
            "rows": [_row_document(result, number) for result in table.rows],
        }
        for number, block in enumerate(table.caches)
    ]
    return {"caches": caches, "seeds": list(table.seeds), "settings": list(table.overrides)}


def _row_document(result: RowResult, cache: int) -> dict[str, Any]:
    scores = result.on(cache)
    return {
        **asdict(result.row),
        "image": list(map(json_number, scores.image)),
        "point": list(map(json_number, scores.point)),
        "settings": dict(result.settings),
        "left_out": result.left_out,
    }


def _heads(table: Table) -> list[str]:
    several = len(table.caches) > 1
    of_caches = [
        f"{number}: {name}" if several else name
        for number in range(1, len(table.caches) + 1)
        for name in COLUMNS_OF_A_CACHE
    ]
    return ["", *of_caches, "paper 2D", "paper 3D"]


def _cells(table: Table) -> list[list[str]]:
    baseline = next((result for result in table.rows if result.row.name == "baseline"), None)
    lines = []
    for result in table.rows:
        line = [result.row.title]
        for number in range(len(table.caches)):
            own, other = result.on(number), baseline.on(number) if baseline else Scores()
            line += [_mean(own.image), _mean(own.point)]
            line += ["", ""] if result is baseline else [_gain(own.image, other.image), _gain(own.point, other.point)]
        paper = result.row.paper
        lines.append([*line, *(["-", "-"] if paper is None else [f"{value:.1f}" for value in paper])])
    return lines


def _mean(values: Sequence[float]) -> str:
    if not values or fmean(values) != fmean(values):
        return "-"
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.1f}{spread}"


def _gain(values: Sequence[float], baseline: Sequence[float]) -> str:
    gain = fmean(values) - baseline[0] if values and baseline else float("nan")
    return f"{100 * gain:+.1f}" if gain == gain else ""


def _notes(table: Table) -> Iterator[str]:
    """Yield the sentences below the table."""
    scenes = list(dict.fromkeys(block.scenes or "no" for block in table.caches))
    seeds = max((len(scores.image) for result in table.rows for scores in result.scores), default=1)
    yield (
        f"mIoU in percent on {' and '.join(scenes)} scenes, "
        f"{'one seed' if seeds == 1 else f'mean ± spread of {seeds} seeds'}. "
        "3D: all points; rows of labels have only points that a camera sees."
    )
    for points in dict.fromkeys(result.row.points for result in table.rows if result.row.points in PREDICTIONS):
        title = next(result.row.title for result in table.rows if result.row.points == points)
        only = " It has only points that a camera sees." if points == "fused_2d" else ""
        yield f"{title}: {PREDICTIONS[points]}.{only}"
    yield "Paper: ScanNet val, where the baseline has 17.3 and 14.2."
    for number, block in enumerate(table.caches, 1):
        name = block.cache if len(table.caches) == 1 else f"{number}: {block.cache}, {block.scenes or 'no'} scenes"
        yield f"Labels of {name}: {', '.join(f'{key} {plain(value)}' for key, value in block.labels.items())}."
    if len(table.caches) > 1:
        yield "Rows are trained on all caches, with equal shares of the steps."
    more = f", then {', '.join(table.overrides)}" if table.overrides else ""
    yield f"Settings of all rows: those of the data set, then of the recipe{more}."
    for result in table.rows:
        if result.left_out:
            yield f"left out: {result.row.title}, since {result.left_out}"
    yield "Below, in brackets: settings that differ from CNS (full)."


def _rows_made(table: Table) -> Iterator[tuple[str, str]]:
    """Yield how each row was made, by its title: its settings that are not as in CNS (full), or whose run it scores."""
    title_of_run: dict[str, str] = {}
    for result in table.rows:
        row = result.row
        if row.labels:
            yield row.title, f"{ {'refined': 'voted'}.get(row.labels, row.labels) } labels of the cache, no training"
        elif not result.left_out:
            first = title_of_run.setdefault(row.run_name, row.title)
            made = f"recipe {row.recipe}" if first == row.title else f"the run of {first}"
            parts = [f"{key}={plain(value)}" for key, value in result.settings.items() if first == row.title]
            voted = ", predictions voted within masks" if row.refine else ""
            yield row.title, made + (f" ({', '.join(parts)})" if parts else "") + voted


def plain(value: Any) -> str:
    """Return a setting's value as `--set` takes it."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).removesuffix("...\n").strip()
