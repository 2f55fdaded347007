"""Draw samples: their images, raw labels, masks, voted labels, truth, and points over the images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cache_schemas.documents import CacheManifest
from cache_schemas.layout import SHARD_GROUPS
from cache_schemas.store import Cache
from cache_schemas.taxonomy import IGNORE, Taxonomy
from labelgen.inspection.counting.samples import Arrays, Sample, SampleId, map_samples
from labelgen.inspection.showing.instance_colours import instance_colours
from labelgen.inspection.showing.legend import BACKGROUND, Picture, alike_classes, draw_legend, number_regions
from labelgen.visibility import visible_pairs

DRAWN_ARRAYS = {
    "images": ("rgb",),
    "labels": (),
    "sam": ("mask_ids",),
    "points": ("xyz",),
    "instances": ("point",),
    "instance_labels": ("point",),
    "time": ("point", "image"),
}
"""The arrays that `draw_sample` needs, by group; no names stand for all arrays of the group."""

MOST_IMAGES = 12
"""So many images of a sample are drawn."""

LABEL_OPACITY = 0.6
POINT_RADIUS_PX = 1
PNG_LEVEL = 2
"""This level takes a quarter of the time of the default level, and the files are a tenth larger."""

_CAPTION_PX = 16
_WRONG, _NO_TRUTH = (230, 0, 0), (255, 255, 255)


def write_pictures(url: str, samples: Sequence[SampleId], folder: Path, source: str | None = None) -> list[Path]:
    """Write `<shard>-<nn>.png` for each sample of the cache at `url`, nn being its index in the shard.

    A file has a column for each image, or for some of many. Its rows are: picture, raw labels, masks, voted labels,
    labels over time if the cache has them; where pixels have truth, the truth, and what is wrong with the voted labels
    (red; white has no truth); then points, if there are any, over the picture by the same labels, by truth where points
    have it, and, if the cache has instances, in the colour of their instance and by the label that they get with
    instances. Labels of an imported `source` take the place of truth.

    Raises:
        OSError: if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cache, manifest = Cache.open(url)

    def write(whole: Sample) -> Path:
        sample = with_few_images(whole)
        file = folder / f"{sample.shard}-{sample.index:02}.png"
        sheet = _sheet(draw_sample(sample, manifest), sample.pictures, manifest)
        Image.fromarray(sheet).save(file, compress_level=PNG_LEVEL)
        return file

    return list(map_samples(cache, samples, DRAWN_ARRAYS, write, source))


def with_few_images(sample: Sample) -> Sample:
    """Return a sample with at most `MOST_IMAGES` of its images, evenly spaced, and with the pairs of these."""
    chosen = np.linspace(0, len(sample.pictures) - 1, min(MOST_IMAGES, len(sample.pictures))).round().astype(np.intp)
    groups = {
        group: {
            name: values[chosen] if SHARD_GROUPS[group].arrays[name].axes[0] == "I" else values
            for name, values in arrays.items()
        }
        for group, arrays in sample.groups.items()
    }
    if sample.has_points:
        place = np.full(len(sample.pictures), -1)
        place[chosen] = np.arange(len(chosen))
        kept = place[sample["pairs"]["image"]] >= 0
        groups["pairs"] = {name: values[kept] for name, values in sample["pairs"].items()}
        groups["pairs"]["image"] = place[groups["pairs"]["image"]]
    return replace(sample, groups=groups, pictures=tuple(sample.pictures[image] for image in chosen))


def draw_sample(sample: Sample, manifest: CacheManifest) -> dict[str, list[Picture]]:
    """Return the pictures of a sample, one for each image, by layer; `write_pictures` lists the layers."""
    rgb, labels, truth = sample["images"]["rgb"], sample["labels"], sample["truth"]
    colours, alike = colour_table(manifest.taxonomy), alike_classes(manifest.taxonomy)

    def over_pictures(classes: NDArray[np.uint8]) -> list[Picture]:
        return [number_regions(blend(p, colours[ids]), ids, alike) for p, ids in zip(rgb, classes, strict=True)]

    layers = {
        "picture": list(rgb),
        "raw labels": over_pictures(labels["image_raw"]),
        "masks": [blend(p, mask_colours(ids)) for p, ids in zip(rgb, sample["sam"]["mask_ids"], strict=True)],
        "voted labels": over_pictures(labels["image"]),
    }
    if "time" in sample.groups:
        layers["labels over time"] = over_pictures(sample["time"]["image"])
    if "image" in truth:
        both = zip(truth["image"], labels["image"], strict=True)
        layers["truth"] = over_pictures(truth["image"])
        layers["wrong"] = [blend(p, _wrong(*ids)) for p, ids in zip(rgb, both, strict=True)]
    if sample.has_points:
        layers["points, voted"] = _points_over(rgb, sample["pairs"], colours[labels["point"]])
    if "time" in sample.groups:
        layers["points, over time"] = _points_over(rgb, sample["pairs"], colours[sample["time"]["point"]])
    if "point" in truth:
        layers["points, truth"] = _points_over(rgb, sample["pairs"], colours[truth["point"]])
    if "instances" in sample.groups:
        found = instance_colours(sample["instances"]["point"], sample["points"]["xyz"])
        layers["points, instances"] = _points_over(rgb, sample["pairs"], found)
    if "instance_labels" in sample.groups:
        layers["points, with instances"] = _points_over(
            rgb, sample["pairs"], colours[sample["instance_labels"]["point"]]
        )
    return layers


def blend(picture: Picture, colours: Picture) -> Picture:
    """Blend colours (H, W, 3) over a picture; where they are black there is no label, and the picture stays."""
    opacity = np.where(colours.any(axis=-1, keepdims=True), LABEL_OPACITY, 0.0)
    return ((1 - opacity) * picture + opacity * colours).astype(np.uint8)


def _wrong(truth: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Picture:
    """Return (H, W, 3): red where a label is not the truth, white where there is no truth."""
    colours = np.zeros((*truth.shape, 3), np.uint8)
    colours[(labels != truth) & (truth != IGNORE)] = _WRONG
    colours[truth == IGNORE] = _NO_TRUTH
    return colours


def mask_colours(mask_ids: NDArray[np.uint16]) -> Picture:
    """Return random colours (H, W, 3) by mask id; no mask is black."""
    palette = np.random.default_rng(0).integers(40, 256, (int(mask_ids.max(initial=0)) + 1, 3), np.uint8)
    palette[0] = 0
    return palette[mask_ids]


def colour_table(taxonomy: Taxonomy) -> Picture:
    """Return the (256, 3) colours of label ids; ids without a class are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(taxonomy.classes)] = taxonomy.colours
    return table


def _points_over(rgb: Picture, pairs: Arrays, colours: Picture) -> list[Picture]:
    """Draw points over darkened pictures (I, H, W, 3) in their colours (P, 3), except those that are black."""
    canvases = (rgb * 0.5).astype(np.uint8)
    pairs = visible_pairs(pairs)
    of_pair = colours[pairs["point"]]
    shown = np.flatnonzero(of_pair.any(axis=1))
    height, width = rgb.shape[1:3]
    for down in range(-POINT_RADIUS_PX, POINT_RADIUS_PX + 1):
        for right in range(-POINT_RADIUS_PX, POINT_RADIUS_PX + 1):
            row = np.clip(pairs["row"][shown].astype(np.intp) + down, 0, height - 1)
            col = np.clip(pairs["col"][shown].astype(np.intp) + right, 0, width - 1)
            canvases[pairs["image"][shown], row, col] = of_pair[shown]
    return list(canvases)


def _sheet(layers: Mapping[str, list[Picture]], names: Sequence[str], manifest: CacheManifest) -> Picture:
    """Put layers in rows and images in columns, with captions, and a legend below."""
    captions = [f"{name} - {layer}" for layer in layers for name in names]
    cells = [cell for row in layers.values() for cell in row]
    grid = _grid(cells, captions, columns=len(names))
    return np.concatenate([grid, draw_legend(manifest.taxonomy, manifest.teachers.preset, grid.shape[1])])


def _grid(cells: Sequence[Picture], captions: Sequence[str], columns: int) -> Picture:
    captioned = [
        np.concatenate([_caption(text, cell.shape[1]), cell]) for cell, text in zip(cells, captions, strict=True)
    ]
    rows = [np.concatenate(captioned[start : start + columns], axis=1) for start in range(0, len(captioned), columns)]
    return np.concatenate(rows)


def _caption(text: str, width: int) -> Picture:
    strip = Image.new("RGB", (width, _CAPTION_PX), BACKGROUND)
    ImageDraw.Draw(strip).text((3, 2), text, fill=(240, 240, 240), font=ImageFont.load_default(11))
    return np.asarray(strip)
