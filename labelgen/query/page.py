"""Show what was found for a sentence: one HTML file that needs no network."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.query.ranking import Hit, Ranking

Picture = NDArray[np.uint8]

_OUTLINE = (255, 235, 0)
_DARKENED = 0.45
_QUALITY = 80


def write_page(found: Ranking, file: Path) -> None:
    """Write a page with the pictures of the hits; each mask is outlined, and what is around it is darker.

    Raises:
        OSError: if the file cannot be written.
    """
    cache = Cache(found.cache)
    environment = Environment(
        loader=PackageLoader("labelgen.query", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    hits = {"masks": found.masks, "pictures": found.pictures}
    page = environment.get_template("page.html.jinja").render(
        found=found,
        sections={name: [(hit, _data_url(draw(cache, hit))) for hit in own] for name, own in hits.items()},
        samples=[(hit, _data_url(_draw_sample(cache, hit))) for hit in found.samples],
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")


def draw(cache: Cache, hit: Hit) -> Picture:
    """Return the picture (H, W, 3) of a hit with its mask outlined; without a mask, the picture as it is."""
    here = slice(hit.image, hit.image + 1)
    rgb: Picture = cache.rows(GroupPath(hit.shard, "images"), "rgb")[here][0].copy()
    if not hit.mask:
        return rgb
    inside = cache.rows(GroupPath(hit.shard, "sam"), "mask_ids")[here][0] == hit.mask
    rgb[~inside] = (rgb[~inside] * _DARKENED).astype(np.uint8)
    rgb[_outline(inside)] = _OUTLINE
    return rgb


def _outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels (H, W) just outside a mask (H, W)."""
    padded = np.pad(inside, 1)
    near = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    found: NDArray[np.bool_] = near & ~inside
    return found


def _draw_sample(cache: Cache, hit: Hit) -> Picture:
    """Return all pictures of the sample of a hit beside each other, half as large, the one of the hit with its mask."""
    ends = cache.read(GroupPath(hit.shard, "images"), "offsets")["offsets"]
    sample = int(np.searchsorted(ends, hit.image, side="right")) - 1
    rgb: Picture = cache.rows(GroupPath(hit.shard, "images"), "rgb")[int(ends[sample]) : int(ends[sample + 1])].copy()
    rgb[hit.image - int(ends[sample])] = draw(cache, hit)
    return np.concatenate(list(rgb[:, ::2, ::2]), axis=1)


def _data_url(picture: Picture) -> str:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
