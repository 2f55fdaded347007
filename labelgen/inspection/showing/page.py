"""Write the audit as one HTML page that needs no network: tables, plots, and pictures of samples, worst first."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from rich.filesize import decimal as file_size

from cache_schemas.documents import CacheManifest
from cache_schemas.plurals import counted
from cache_schemas.store import Cache
from labelgen.inspection.counting.measures import MEASURES
from labelgen.inspection.counting.samples import Sample, SampleId, map_samples
from labelgen.inspection.declarations import top_view_reach_m
from labelgen.inspection.formatting import decimal, percent, share_or_decimal
from labelgen.inspection.report import Report, SampleMeasures, ShardMeasures
from labelgen.inspection.showing.confusion_picture import row_shares
from labelgen.inspection.showing.groups import group_rows
from labelgen.inspection.showing.legend import Picture, alike_classes
from labelgen.inspection.showing.sample_pictures import DRAWN_ARRAYS, draw_sample, with_few_images
from labelgen.inspection.showing.top_view import draw_top_views
from labelgen.inspection.showing.wording import (
    UNTRAINED,
    describe_errors,
    describe_outlier,
    describe_sample,
    describe_selection,
    describe_teachers,
    size_range,
)

_PICTURE_QUALITY = 78
_SHARDS_IN_IOU_TABLE = 48
"""The table of IoU by class and shard has so many shards, least accurate first."""


@dataclass(frozen=True)
class Dot:
    """A shard in a scatter plot whose axes go from 0 to 1."""

    x: float
    y: float
    is_outlier: bool
    shard: str
    value: float


@dataclass(frozen=True)
class ScatterPlot:
    """A measure of all shards that have it, in the order of their keys."""

    title: str
    is_share: bool
    low: float
    high: float
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class ConfusionTable:
    """A confusion matrix as shares of its rows, which are true classes."""

    title: str
    is_open: bool
    rows: list[list[float]]


@dataclass(frozen=True)
class SampleStrip:
    """A sample with its pictures as data URLs: by image in the order of `layers`, and seen from above by name."""

    measures: SampleMeasures
    lowest_ious: tuple[tuple[str, float], ...]
    layers: tuple[str, ...]
    pictures: dict[str, tuple[str, ...]]
    top_views: dict[str, str]
    view_width_m: str


def write_page(report: Report, samples: Sequence[SampleId], file: Path) -> Path:
    """Write a report as one HTML file, with pictures of the samples; returns the file.

    Raises:
        OSError: if the file cannot be written.
    """
    cache, manifest = Cache.open(report.cache)
    draw = partial(_sample_strip, manifest=manifest, report=report)
    strips = map_samples(cache, samples, DRAWN_ARRAYS, draw, report.scoring.source)
    page = _environment().get_template("page.html.jinja").render(
        report=report,
        statistics=report.statistics,
        class_name=report.selection.class_name if report.selection else None,
        names=manifest.taxonomy.names,
        alike={manifest.taxonomy.names[class_id]: class_id for class_id in alike_classes(manifest.taxonomy)},
        colours={entry.name: "#{:02x}{:02x}{:02x}".format(*entry.colour) for entry in manifest.taxonomy.classes},
        untrained=UNTRAINED,
        scatter_plots=_scatter_plots(report),
        least_accurate=_least_accurate(report.by_shard),
        confusions=_confusion_tables(report),
        strips=list(strips),
        groups=group_rows(report),
    )  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")
    return file


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("labelgen.inspection.showing", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        counted=counted,
        percent=percent,
        decimal=decimal,
        share_or_decimal=share_or_decimal,
        describe_errors=describe_errors,
        describe_outlier=describe_outlier,
        describe_sample=describe_sample,
        describe_selection=describe_selection,
        describe_teachers=describe_teachers,
        accuracy=_accuracy,
        file_size=file_size,
    )
    environment.globals["size_range"] = size_range
    return environment


def _scatter_plots(report: Report) -> list[ScatterPlot]:
    """Return a plot of each measure that at least two shards have."""
    outliers = {(outlier.shard, outlier.measure) for outlier in report.outliers}
    plots = []
    for name, measure in MEASURES.items():
        known = [(i, shard.shard, shard.measures[name]) for i, shard in enumerate(report.by_shard)]
        values = [value for _, _, value in known if value is not None]
        if len(values) < 2:
            continue
        low, high = min(values), max(values)
        dots = tuple(
            Dot(
                x=i / (len(report.by_shard) - 1),
                y=(value - low) / (high - low or 1),
                is_outlier=(shard, name) in outliers,
                shard=shard,
                value=value,
            )
            for i, shard, value in known
            if value is not None
        )
        plots.append(ScatterPlot(measure.title, measure.is_share, low, high, dots))
    return plots


def _least_accurate(shards: Sequence[ShardMeasures]) -> list[ShardMeasures]:
    """Return the shards with the lowest accuracy among those with truth."""
    with_truth = [shard for shard in shards if shard.iou]
    return sorted(with_truth, key=lambda shard: (_accuracy(shard), shard.shard))[:_SHARDS_IN_IOU_TABLE]


def _accuracy(shard: ShardMeasures) -> float:
    """Return the share of pixels with the right label, or of points where only they have truth."""
    of_pixels = shard.measures["pixel_accuracy"]
    return (of_pixels if of_pixels is not None else shard.measures["point_accuracy"]) or 0.0


def _confusion_tables(report: Report) -> list[ConfusionTable]:
    """Return the confusion matrices of voted labels, which the page shows open, then those of raw labels."""
    if report.statistics is None:
        return []
    voted: list[ConfusionTable] = []
    raw: list[ConfusionTable] = []
    for unit, truth in report.statistics.truth.by_unit:
        if truth is None:
            continue
        for tables, labels, scores in ((voted, "voted labels", truth.refined), (raw, "raw labels", truth.raw)):
            title = f"{unit}, {labels}: mIoU {percent(scores.miou)}"
            tables.append(ConfusionTable(title, tables is voted, row_shares(scores.confusion).tolist()))
    return voted + raw


def _sample_strip(whole: Sample, manifest: CacheManifest, report: Report) -> SampleStrip:
    sample = with_few_images(whole)
    measures = next(s for s in report.worst_samples if (s.shard, s.sample) == (sample.shard, sample.token))
    layers = draw_sample(sample, manifest)
    return SampleStrip(
        measures=measures,
        lowest_ious=tuple(sorted(measures.iou.items(), key=lambda item: item[1])[:3]),
        layers=tuple(layers),
        pictures={
            name: tuple(_data_url(drawn[i], "WEBP") for drawn in layers.values())
            for i, name in enumerate(sample.pictures)
        },
        top_views={name: _data_url(view, "PNG") for name, view in draw_top_views(sample, manifest.taxonomy).items()},
        view_width_m=f"{2 * top_view_reach_m(sample.dataset):g}",
    )


def _data_url(picture: Picture, file_format: str) -> str:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, file_format, quality=_PICTURE_QUALITY)
    return f"data:image/{file_format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
