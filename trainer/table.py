"""The paper's tables on caches with truth: train the rows that are missing, and score all side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_schemas.documents import CacheManifest
from cache_schemas.errors import ConfigError
from cache_schemas.location import canonical
from cache_schemas.plurals import counted
from cache_schemas.store import Cache
from trainer.settings import RunSettings, differences, load_settings
from trainer.table_report import CacheBlock, RowResult, Scores, Table, write
from trainer.table_rows import Row, choose_rows

if TYPE_CHECKING:
    from trainer.data.stream import CacheStream

OPTIONAL = ("clip/features", "sweeps", "instance_labels")
"""Groups and arrays that a cache may lack. Rows that need them are left out then."""

NOT_SCORED = float("nan")

CacheReports = list[Mapping[str, Any]]
"""The reports of one run, one for each cache."""


@dataclass(frozen=True)
class TableRequest:
    """Which rows to make of which caches, into which folder, and settings for all of them.

    With several caches, rows are trained on all of them with equal shares of the steps.
    """

    caches: tuple[str, ...]
    out: Path
    rows: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    overrides: Sequence[str] = ()


def make_table(request: TableRequest, say: Callable[[str], None]) -> Table:
    """Train what is missing, score every row on the held-out scenes of each cache, and write the table.

    A run that was stopped goes on from its last checkpoint, and a finished one is only scored.

    Raises:
        ConfigError: if a row is unknown, no row is trained, a cache is given twice, or a setting is wrong.
        TrainerError, CacheError: as `trainer.fit.fit` and `trainer.evaluate.evaluate`; caches that cannot be trained on
            together are refused before the first training.
    """
    chosen = choose_rows(request.rows)
    places = [canonical(cache) for cache in request.caches]
    if twice := [cache for cache, place in zip(request.caches, places, strict=True) if places.count(place) > 1]:
        raise ConfigError(f"{' and '.join(twice)} are the same cache; give each cache once")
    manifests = [Cache.open(cache)[1] for cache in request.caches]
    trained = [row for row in chosen if row.recipe]
    settings = {row.name: _settings(row, manifests[0], request, request.seeds[0]) for row in trained}
    left_out = _reasons_to_leave_out(trained, settings, request)
    reports: dict[str, list[CacheReports]] = {}
    for row in (row for row in trained if row.name not in left_out):
        if _scores_of(row) not in reports:
            ensemble = any(_scores_of(other) == _scores_of(row) and other.points != "point" for other in trained)
            reports[_scores_of(row)] = [
                _train_and_score(row, _settings(row, manifests[0], request, seed), request, say, ensemble=ensemble)
                for seed in request.seeds
            ]
    first = next(iter(reports.values()))[0] if reports else None
    reference = load_settings(manifests[0].dataset, "cns", None, [*request.overrides, f"seed={request.seeds[0]}"])
    table = Table(
        caches=tuple(
            CacheBlock(cache, str(first[number]["scenes"]) if first else "", label_settings(manifest))
            for number, (cache, manifest) in enumerate(zip(request.caches, manifests, strict=True))
        ),
        seeds=tuple(request.seeds),
        overrides=tuple(request.overrides),
        rows=tuple(
            RowResult(
                row,
                _label_scores(row, first) if row.labels else _network_scores(row, reports.get(_scores_of(row))),
                differences(settings[row.name], reference, without=("recipe",)) if row.recipe else {},
                left_out.get(row.name, ""),
            )
            for row in chosen
        ),
    )
    write(table, request.out)
    return table


def label_settings(manifest: CacheManifest) -> dict[str, Any]:
    """Return by which teachers, prompts and settings the labels of a cache were made; what was off is left out.

    The settings are those of the last run that changed the cache.
    """
    found: dict[str, Any] = {"teachers": manifest.teachers.preset, "prompts": manifest.prompts.name}
    for section, left_out in (("clip", {"architecture", "weights", "store_features"}), ("labels", set())):
        values = manifest.config.get(section, {})
        found |= {f"{section}.{name}": value for name, value in values.items() if name not in left_out}
    for section, name in (("points", "visibility"), ("instances", "enabled")):
        found[f"{section}.{name}"] = manifest.config.get(section, {}).get(name)
    return {name: value for name, value in found.items() if value not in (None, False, "none")}


def _settings(row: Row, manifest: CacheManifest, request: TableRequest, seed: int) -> RunSettings:
    return load_settings(manifest.dataset, row.recipe, None, [*request.overrides, *row.overrides, f"seed={seed}"])


def _reasons_to_leave_out(
    rows: Sequence[Row], settings: Mapping[str, RunSettings], request: TableRequest
) -> dict[str, str]:
    """Return by name of a row why the caches cannot give it.

    Raises:
        CacheError, UnfitCacheError: if a cache cannot be trained from, or not together with the others.
    """
    from trainer.data.builder import training_arrays
    from trainer.data.stream import CacheStream
    from trainer.data.training_caches import open_training_caches

    needed = {row.name: training_arrays(settings[row.name])[0] for row in rows}
    every = sorted({array for arrays in needed.values() for array in arrays})
    streams = [CacheStream(cache, [], optional=every) for cache in request.caches]
    most = max((count for stream in streams for count in stream.image_counts(stream.samples)), default=0)
    reasons: dict[str, str] = {}
    for row in rows:
        if lacking := _lacking(streams, needed[row.name]):
            reasons[row.name] = lacking
        elif row.overrides and settings[row.name].stream.images > most:
            reasons[row.name] = f"samples have {counted(most, 'image')}"
    if possible := next((row for row in rows if row.name not in reasons), None):
        open_training_caches(settings[possible.name], request.caches)
    return reasons


def _lacking(streams: Sequence["CacheStream"], needed: Sequence[str]) -> str:
    """Return which cache lacks which of the `OPTIONAL` arrays, as a clause, or an empty text."""
    for stream in streams:
        for name in OPTIONAL:
            wanted = [array for array in needed if f"{array}/".startswith(f"{name}/")]
            if not all(stream.has(ref, array) for array in wanted for ref in stream.samples):
                return f"{'the cache' if len(streams) == 1 else stream.url} has no {name}"
    return ""


def _scores_of(row: Row) -> str:
    """Return the name under which rows share reports: their run, and whether predictions are voted."""
    return f"{row.run_name}-refine" if row.refine else row.run_name


def _train_and_score(
    row: Row, settings: RunSettings, request: TableRequest, say: Callable[[str], None], *, ensemble: bool
) -> CacheReports:
    """Return the reports of a row's run, one a cache; it is trained or resumed first if it is not finished."""
    from trainer.evaluate import EvaluationOptions, evaluate
    from trainer.fit import FitRequest, fit
    from trainer.run_folder import RunFolder

    folder = request.out / "runs" / f"{row.run_name}-seed-{settings.seed}"
    say(f"{row.title}, seed {settings.seed}: {folder}")
    cache, *more = request.caches
    shares = (1,) * len(request.caches) if more else ()
    resume = (folder / "run.json").exists()
    fit(FitRequest(settings, cache, folder, resume, more_caches=tuple(more), shares=shares), say)
    options = EvaluationOptions(refine=row.refine, ensemble=ensemble)
    return [dict(evaluate(RunFolder(folder), cache, options)) for cache in request.caches]


def _network_scores(row: Row, reports: Sequence[CacheReports] | None) -> tuple[Scores, ...]:
    """Return a row's scores on each cache; none of them if it was left out."""
    if not reports:
        return ()
    return tuple(
        Scores(
            tuple(_miou(report.get("image")) if row.points == "point" else NOT_SCORED for report in of_cache),
            tuple(_miou(report.get(row.points)) for report in of_cache),
        )
        for of_cache in zip(*reports, strict=True)
    )


def _label_scores(row: Row, reports: CacheReports | None) -> tuple[Scores, ...]:
    """Return the scores of the labels of a row on each cache, as the reports of a run have them."""
    labels = [report["labels"][row.labels] for report in reports or ()]
    return tuple(Scores((_miou(found.get("image")),), (_miou(found.get("point_seen")),)) for found in labels)


def _miou(scores: Mapping[str, Any] | None) -> float:
    return NOT_SCORED if scores is None or scores["miou"] is None else float(scores["miou"])
