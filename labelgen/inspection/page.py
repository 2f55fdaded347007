"""The audit as one HTML page that needs no network: tables, plots, and strips of pictures, worst samples first."""

import base64
from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from cache_schemas.documents import CacheManifest
from cache_schemas.store import Cache
from labelgen.inspection.measures import MEASURES
from labelgen.inspection.oddities import CLASS_MIX
from labelgen.inspection.pictures import DRAWN, Picture, colour_table, draw_sample
from labelgen.inspection.samples import Sample, draw_shown
from labelgen.inspection.words import number, oddity_words, percent, sample_words

_MAP_REACH_M = 50.0
_MAP_SIDE_PX = 420
_PICTURE_QUALITY = 78
_MAP_SHARDS = 48
"""The table of classes by shard holds so many shards, least accurate first."""

_NO_LABEL = (205, 205, 205)
_SHOWN = {**DRAWN, "points": ("xyz",)}


def write_page(found: Mapping[str, Any], shown: Sequence[tuple[str, str]], file: Path) -> Path:
    """Write what `inspect_cache` found as one HTML file, with pictures of the shown (shard, sample id); returns it.

    Raises:
        OSError: if the file cannot be written.
    """
    cache, manifest = Cache.open(found["cache"])
    environment = Environment(
        loader=PackageLoader("labelgen.inspection", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, number=number, oddity=oddity_words, about=sample_words)
    page = environment.get_template("page.html.jinja").render(
        found=found,
        names=manifest.taxonomy.names,
        colours={entry.name: "#{:02x}{:02x}{:02x}".format(*entry.colour) for entry in manifest.taxonomy.classes},
        measures={**MEASURES, "class_mix": CLASS_MIX},
        scatter=_scatter(found),
        by_class=_least_accurate(found["by_shard"]),
        confusions=_confusions(found),
        samples=list(draw_shown(cache, shown, _SHOWN, partial(_shown, manifest=manifest, found=found))),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")
    return file


def _scatter(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return, for each measure, its shards as points of a plot 0..1 wide and high, those that stand out apart."""
    shards, odd = found["by_shard"], {(entry["shard"], entry["measure"]) for entry in found["suspicious"]}
    plots = []
    for name, kind in MEASURES.items():
        known = [(i, entry) for i, entry in enumerate(shards) if entry["measures"][name] is not None]
        if len(known) < 2:
            continue
        values = [entry["measures"][name] for _, entry in known]
        low, high = min(values), max(values)
        dots = [
            {
                "x": i / (len(shards) - 1),
                "y": (entry["measures"][name] - low) / (high - low or 1),
                "odd": (entry["shard"], name) in odd,
                "shard": entry["shard"],
                "value": entry["measures"][name],
            }
            for i, entry in known
        ]
        plots.append({"title": kind.title, "is_share": kind.is_share, "low": low, "high": high, "dots": dots})
    return plots


def _least_accurate(shards: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the shards with truth that are least right."""
    scored = [entry for entry in shards if entry["iou"]]
    return sorted(scored, key=lambda entry: (_accuracy(entry), entry["shard"]))[:_MAP_SHARDS]


def _accuracy(entry: Mapping[str, Any]) -> float:
    measures = entry["measures"]
    right = measures["pixel_accuracy"] if measures["pixel_accuracy"] is not None else measures["point_accuracy"]
    return float(right or 0.0)


def _confusions(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return confusion matrices as shares of their rows (true classes), voted labels first."""
    matrices = []
    for kind, words in (("refined", "voted labels"), ("raw", "raw labels")):
        for target, unit in (("image", "pixels"), ("point", "points")):
            truth = found.get("truth", {}).get(target)
            if truth:
                counts = np.array(truth[kind]["confusion"])
                rows = counts.sum(axis=1, keepdims=True)
                shares = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
                title = f"{unit}, {words}: mIoU {percent(truth[kind]['miou'])}"
                matrices.append({"title": title, "open": kind == "refined", "rows": shares.tolist()})
    return matrices


def _shown(sample: Sample, manifest: CacheManifest, found: Mapping[str, Any]) -> dict[str, Any]:
    pictures = draw_sample(sample, manifest)
    own = sample.shard, sample.token
    entry = next(entry for entry in found["worst_samples"] if (entry["shard"], entry["sample"]) == own)
    return {
        **entry,
        "worst_classes": sorted(entry["iou"].items(), key=lambda item: item[1])[:3],
        "layers": list(pictures),
        "cameras": [
            {"name": camera, "pictures": [_data_url(layer[i], "WEBP") for layer in pictures.values()]}
            for i, camera in enumerate(sample.cameras)
        ],
        "maps": {name: _data_url(picture, "PNG") for name, picture in _maps(sample, manifest).items()},
    }


def _maps(sample: Sample, manifest: CacheManifest) -> dict[str, Picture]:
    """Draw the sample's cloud from above by voted label, and by truth where there is any."""
    labels = {"voted labels": sample["labels"]["point"]}
    if "point" in sample["truth"]:
        labels["truth"] = sample["truth"]["point"]
    return {name: _from_above(sample["points"]["xyz"], ids, manifest) for name, ids in labels.items()}


def _from_above(xyz: NDArray[np.float32], ids: NDArray[np.uint8], manifest: CacheManifest) -> Picture:
    """Draw points (P, 3) as seen from above, x of the sensor to the right and y up, higher points on top."""
    colours = colour_table(manifest.taxonomy)
    colours[len(manifest.taxonomy.classes) :] = _NO_LABEL
    picture = np.full((_MAP_SIDE_PX, _MAP_SIDE_PX, 3), 255, np.uint8)
    order = np.lexsort((xyz[:, 2], ids < len(manifest.taxonomy.classes)))
    scale = _MAP_SIDE_PX / (2 * _MAP_REACH_M)
    col, row = (scale * (xyz[order, :2] * (1, -1) + _MAP_REACH_M)).astype(np.intp).T
    inside = (col >= 1) & (col < _MAP_SIDE_PX) & (row >= 1) & (row < _MAP_SIDE_PX)
    for down in (0, -1):
        for right in (0, -1):
            picture[row[inside] + down, col[inside] + right] = colours[ids[order][inside]]
    return picture


def _data_url(picture: Picture, kind: str) -> str:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, kind, quality=_PICTURE_QUALITY)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
