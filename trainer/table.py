"""The paper's tables on one cache: train the rows that are missing, score all, and print them side by side."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from cache_schemas.errors import ConfigError
from cache_schemas.plurals import counted
from cache_schemas.scoring import json_number
from cache_schemas.store import Cache
from trainer.errors import UnfitCacheError
from trainer.settings import RunSettings, load_settings


@dataclass(frozen=True)
class Row:
    """A row of table 1 or 2 of the CNS paper, or of another method beside them.

    Attributes:
        name: how `--rows` calls it.
        title: how its paper calls it.
        labels: the cached labels that the row scores, `raw` or `refined`; None for a row that is trained.
        recipe: the recipe of a row that is trained.
        overrides: settings besides the recipe.
        refine: predictions are voted within SAM's masks before they are scored (Post-Refine).
        paper: 2D and 3D mIoU on ScanNet val in the CNS paper, percent.
    """

    name: str
    title: str
    labels: str | None = None
    recipe: str = ""
    overrides: tuple[str, ...] = ()
    refine: bool = False
    paper: tuple[float, float] | None = None

    @property
    def run_name(self) -> str:
        """The name of the run that the row scores; rows may share one."""
        return "-".join([self.recipe, *(text.replace("stream.images=", "images-") for text in self.overrides)])


ROWS = (
    Row("baseline", "MaskCLIP (Baseline)", labels="raw", paper=(17.3, 14.2)),
    Row("maskclip++", "MaskCLIP++", recipe="maskclip++", paper=(20.3, 21.6)),
    Row("openscene", "OpenScene", recipe="openscene", paper=(14.2, 16.8)),
    Row("clip2scene", "CLIP2Scene (sweeps)", recipe="clip2scene"),
    Row("clip2scene-rooms", "CLIP2Scene", recipe="clip2scene-rooms", paper=(23.7, 25.6)),
    Row("without-cns", "w/o CNS", labels="refined", paper=(24.5, 19.4)),
    Row("without-refine", "w/o Refine", recipe="cns-without-refine", paper=(23.7, 30.6)),
    Row("post-refine", "Post-Refine", recipe="cns-without-refine", refine=True, paper=(28.1, 33.2)),
    Row("without-ct", "w/o CT", recipe="cns-without-ct", paper=(27.7, 31.0)),
    Row("without-sct", "w/o SCT", recipe="cns-without-sct", paper=(24.7, 30.6)),
    Row("without-clip", "w/o CLIP", recipe="cns-without-clip", paper=(4.7, 5.1)),
    Row("latent-clip", "latent CLIP", recipe="cns-latent-clip", paper=(27.3, 32.4)),
    Row("latent-sam-clip", "latent SAM+CLIP", recipe="cns-latent-sam-clip", paper=(27.8, 32.5)),
    Row("latent-none", "latent None", recipe="cns-latent-none", paper=(27.1, 32.0)),
    Row("images-8", "8 images", recipe="cns", overrides=("stream.images=8",), paper=(27.9, 33.0)),
    Row("images-16", "16 images", recipe="cns", overrides=("stream.images=16",), paper=(28.4, 33.5)),
    Row("images-32", "32 images", recipe="cns", overrides=("stream.images=32",), paper=(28.3, 33.3)),
    Row("cns", "CNS (full)", recipe="cns", paper=(28.4, 33.5)),
    Row("cns-instances", "CNS, instance labels", recipe="cns-instances"),
    Row("affinity3d", "Affinity3D", recipe="affinity3d"),
)
"""The rows of both tables. CLIP2Scene has one for lidar with sweeps, and one for ScanNet."""

OPTIONAL = ("clip/features", "sweeps", "instance_labels")
"""What a cache may lack; rows that need it are left out then."""

HEADS = ["", "2D mIoU", "3D mIoU", "2D - baseline", "3D - baseline", "paper 2D", "paper 3D"]


@dataclass(frozen=True)
class TableRequest:
    """Which rows to make of which cache, into which folder, and settings for all of them."""

    cache: str
    out: Path
    rows: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    overrides: Sequence[str] = ()


@dataclass(frozen=True)
class RowResult:
    """A row of the table: mIoU in 0..1 for each seed, or why it was left out, and which scenes were scored."""

    row: Row
    image: tuple[float, ...] = ()
    point: tuple[float, ...] = ()
    left_out: str = ""
    scenes: str = ""


def make_table(request: TableRequest, say: Callable[[str], None]) -> list[RowResult]:
    """Train what is missing, score every row on the held-out scenes, and write the table to `request.out`.

    A run that was stopped goes on from its last checkpoint, and a finished one is only scored.

    Raises:
        ConfigError: if a row is unknown, no row is trained, or a setting is wrong.
        TrainerError, CacheError: as `trainer.fit.fit` and `trainer.evaluate.evaluate`.
    """
    chosen = _choose(request.rows)
    labels: dict[str, tuple[float, float]] = {}
    results: dict[str, RowResult] = {}
    for row in (row for row in chosen if not row.labels):
        reason = _reason_to_leave_out(row, request)
        reports = [] if reason else [_train_and_score(row, request, seed, say) for seed in request.seeds]
        for kind, scores in reports[0]["labels"].items() if reports else ():
            labels[kind] = (_miou(scores.get("image")), _miou(scores.get("point_seen")))
        results[row.name] = RowResult(
            row,
            tuple(_miou(report.get("image")) for report in reports),
            tuple(_miou(report.get("point")) for report in reports),
            reason,
            str(reports[0]["scenes"]) if reports else "",
        )
    for row in (row for row in chosen if row.labels):
        image, point = labels.get(str(row.labels), (float("nan"), float("nan")))
        results[row.name] = RowResult(row, (image,), (point,))
    ordered = [results[row.name] for row in chosen]
    _write(ordered, request)
    return ordered


def render(results: Sequence[RowResult], width: int) -> str:
    """Return the table for people, in percent, at most `width` columns wide."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for name in HEADS:
        table.add_column(name, justify="left" if not name else "right")
    for cells in _cells(results):
        table.add_row(*cells)
    text = io.StringIO()
    Console(file=text, width=width, highlight=False, markup=False).print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "\n".join([*lines, "", *_notes(results)])


def _choose(names: Sequence[str]) -> list[Row]:
    known = {row.name: row for row in ROWS}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"no row {unknown[0]!r}; choose {', '.join(known)}")
    chosen = [row for row in ROWS if row.name in names or not names]
    if all(row.labels for row in chosen):
        raise ConfigError("rows of labels are scored beside a trained row; add one, such as --rows cns")
    return chosen


def _settings(row: Row, request: TableRequest, seed: int) -> RunSettings:
    dataset = Cache.open(request.cache)[1].dataset
    return load_settings(dataset, row.recipe, None, [*request.overrides, *row.overrides, f"seed={seed}"])


def _reason_to_leave_out(row: Row, request: TableRequest) -> str:
    """Return why a cache cannot give a row, or an empty text."""
    from trainer.data.training_caches import open_training_stream

    settings = _settings(row, request, 0)
    try:
        stream, samples = open_training_stream(settings, request.cache)
    except UnfitCacheError as error:
        if lacking := [name for name in OPTIONAL if f"/{name}" in str(error)]:
            return f"the cache has no {lacking[0]}"
        raise
    most = max(stream.image_count(ref) for ref in samples)
    return f"samples have {counted(most, 'image')}" if row.overrides and settings.stream.images > most else ""


def _train_and_score(row: Row, request: TableRequest, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the report of a row's run, which is trained or resumed first if it is not finished."""
    from trainer.evaluate import EvaluationOptions, evaluate
    from trainer.fit import FitRequest, fit
    from trainer.run_folder import RunFolder

    settings, folder = _settings(row, request, seed), request.out / "runs" / f"{row.run_name}-seed-{seed}"
    say(f"{row.title}, seed {seed}: {folder}")
    fit(FitRequest(settings, request.cache, folder, resume=(folder / "run.json").exists()), say)
    return dict(evaluate(RunFolder(folder), request.cache, EvaluationOptions(refine=row.refine)))


def _miou(scores: Mapping[str, Any] | None) -> float:
    return float("nan") if scores is None or scores["miou"] is None else float(scores["miou"])


def _cells(results: Sequence[RowResult]) -> list[list[str]]:
    baseline = next((result for result in results if result.row.name == "baseline"), None)
    lines = []
    for result in results:
        paper = result.row.paper or (float("nan"), float("nan"))
        gains = ["", ""]
        if baseline and result is not baseline and result.image:
            gains = [_signed(fmean(result.image) - baseline.image[0]), _signed(fmean(result.point) - baseline.point[0])]
        numbers = [
            _mean(result.image),
            _mean(result.point),
            *gains,
            *(f"{value:.1f}" if value == value else "-" for value in paper),
        ]
        lines.append([result.row.title, *numbers])
    return lines


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.1f}{spread}"


def _signed(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _notes(results: Sequence[RowResult]) -> list[str]:
    seeds = max((len(result.image) for result in results), default=1)
    scenes = next((result.scenes for result in results if result.scenes), "no")
    return [
        f"mIoU in percent on {scenes} scenes, {'one seed' if seeds == 1 else f'mean ± spread of {seeds} seeds'}. "
        "3D: all points; rows of labels have only points that a camera sees.",
        "Paper: ScanNet val, where the baseline has 17.3 and 14.2.",
        *(f"left out: {result.row.title}, since {result.left_out}" for result in results if result.left_out),
    ]


def _write(results: Sequence[RowResult], request: TableRequest) -> None:
    """Write table.txt, table.md and table.json, whose mIoU are in 0..1; null where there is no truth."""
    request.out.mkdir(parents=True, exist_ok=True)
    (request.out / "table.txt").write_text(render(results, 160) + "\n", encoding="utf-8")
    lines = [HEADS, ["---"] * len(HEADS), *_cells(results)]
    markdown = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    (request.out / "table.md").write_text("\n".join([markdown, "", *_notes(results), ""]), encoding="utf-8")
    document = {
        "cache": request.cache,
        "seeds": list(request.seeds),
        "scenes": next((result.scenes for result in results if result.scenes), None),
        "settings": list(request.overrides),
        "rows": [
            asdict(result.row)
            | {"image": list(map(json_number, result.image)), "point": list(map(json_number, result.point))}
            | {"left_out": result.left_out}
            for result in results
        ],
    }
    (request.out / "table.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
