"""Rank the masks, pictures and samples of a cache by the cosine of CLIP's features and a sentence."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.documents import ShardRecord
from cache_schemas.errors import CacheError, ConfigError
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.export.shards import find_finished
from labelgen.labelling import upsample_scores
from labelgen.teachers.clip.cached_features import decode_features, load_text_encoder

SMALLEST_MASK_PX = 64
"""Masks of fewer pixels are not ranked: at a quarter of a patch of CLIP, their score is that of what is around them."""


@dataclass(frozen=True)
class Hit:
    """A mask that fits a sentence: its mean cosine `score`, where it is, its share of the picture and its voted label.

    `image` is the index of the picture in the shard, `mask` the id of the mask in the picture; 0 and no label if the
    picture has no mask. Then the score is the highest of its pixels.
    """

    score: float
    shard: str
    sample: str
    camera: str
    image: int
    mask: int
    share: float
    label: str


@dataclass(frozen=True)
class Ranking:
    """The best masks, the best mask of each of the best pictures, and that of each of the best samples."""

    cache: str
    sentence: str
    masks: tuple[Hit, ...]
    pictures: tuple[Hit, ...]
    samples: tuple[Hit, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the ranking as a JSON-ready object."""
        return asdict(self)


def rank(url: str, sentence: str, top: int) -> Ranking:
    """Return the `top` masks, pictures and samples of the cache at `url` that fit a sentence best.

    The score of a mask is the mean cosine over its pixels; that of a picture is its best mask's, and that of a sample
    its best picture's.

    Raises:
        CacheError: if there is no such cache, or it holds no features.
        ConfigError: if the sentence is empty or too long, or the weights of the cache's CLIP are other ones here.
    """
    cache, manifest = Cache.open(url)
    records = find_finished(cache, ("images", "clip", "sam", "labels")).records
    paths = [GroupPath(key, "clip") for key in records]
    if lacking := [path for path, seal in cache.seals(paths).items() if "features" not in seal.arrays]:
        raise CacheError(
            f"{url}/{lacking[0]}: holds no clip/features to compare with a sentence; `labelgen run` with "
            "--set clip.store_features=true stores them"
        )
    model = load_text_encoder(url, manifest)
    if not sentence.strip() or model.sentences_too_long([sentence]):
        raise ConfigError(f"sentence {sentence[:60]!r}: CLIP reads 1 to {model.context_length - 2} tokens; give others")
    text = model.embed_text([[sentence]])[0]
    masks: list[Hit] = []
    pictures: list[Hit] = []
    samples: dict[tuple[str, str], Hit] = {}
    for key, record in records.items():
        for hits in _hits_of_pictures(cache, key, record, text, manifest.taxonomy.names):
            masks, pictures = _best([*masks, *hits], top), _best([*pictures, *_best(hits, 1)], top)
            place = (key, hits[0].sample)
            samples[place] = max([*hits, *([samples[place]] if place in samples else [])], key=_score)
    return Ranking(url, sentence, tuple(masks), tuple(pictures), tuple(_best(samples.values(), top)))


def _cosines(features: NDArray[np.float32], text: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return upsample_scores(np.einsum("bdhw,d->bhw", features, text)[:, None], size)[:, 0]


def _score(hit: Hit) -> float:
    return hit.score


def _best(hits: Iterable[Hit], top: int) -> list[Hit]:
    return heapq.nlargest(top, hits, key=_score)


def _hits_of_pictures(
    cache: Cache, key: str, record: ShardRecord, text: NDArray[np.float32], names: Sequence[str]
) -> Iterator[list[Hit]]:
    """Yield the masks of each picture of a shard as hits; at least one each."""
    path = GroupPath(key, "clip")
    arrays = {name: cache.rows(path, name) for name in cache.seals([path])[path].arrays if name != "logits"}
    masks, labels = cache.rows(GroupPath(key, "sam"), "mask_ids"), cache.rows(GroupPath(key, "labels"), "image")
    ends = cache.read(GroupPath(key, "images"), "offsets")["offsets"]
    sample_of = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    for image, sample in enumerate(sample_of.tolist()):
        here = slice(image, image + 1)
        ids, voted = masks[here][0], labels[here][0]
        scores = _cosines(decode_features({name: rows[here] for name, rows in arrays.items()}), text, ids.shape)[0]
        pixels = np.bincount(ids.ravel())
        means = np.bincount(ids.ravel(), scores.ravel()) / np.maximum(pixels, 1)
        place = (key, record.samples[sample], record.pictures[image].camera, image)
        found = []
        for mask in np.flatnonzero(pixels >= SMALLEST_MASK_PX).tolist():
            if mask:
                label = int(voted.ravel()[np.argmax(ids == mask)])
                name = names[label] if label < len(names) else ""
                found.append(Hit(float(means[mask]), *place, mask, float(pixels[mask] / ids.size), name))
        yield found or [Hit(float(scores.max()), *place, 0, 1.0, "")]
