"""The caches that one training reads: opened, compared with each other, and the batch of each step from one of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from trainer.data.batch import Batch
from trainer.data.builder import BatchDataset, training_arrays
from trainer.data.sampler import Step, split_scenes
from trainer.data.seen_classes import seen_class_ids
from trainer.data.stream import CacheStream, SampleRef
from trainer.errors import UnfitCacheError
from trainer.settings import RunSettings


class TrainingCache(NamedTuple):
    """A cache's stream for training, and its samples to train on."""

    stream: CacheStream
    samples: list[SampleRef]


class BatchesOfCaches(Dataset[Batch]):
    """The batch of each step, whose samples are all from the step's cache."""

    def __init__(self, caches: Sequence[TrainingCache], settings: RunSettings) -> None:
        """Build batches from the samples of `caches`, numbered as in `Step.cache`."""
        self._datasets = [BatchDataset(*cache, settings) for cache in caches]

    def __getitem__(self, step: Step) -> Batch:
        """Return the batch of a step; `BatchDataset` has the errors."""
        return self._datasets[step.cache][step]


def open_training_stream(settings: RunSettings, url: str) -> TrainingCache:
    """Return the stream of a cache for training, and the samples to train on.

    Raises:
        CacheError, UnfitCacheError: if the cache cannot be trained from.
        TrainerError: if `stream.local_copy` is not private, or cannot be written.
        ConfigError: if the cache has no class of a name in `classes.seen`.
    """
    needed, optional = training_arrays(settings)
    stream = CacheStream(url, needed, optional=optional, local_copy=settings.stream.local_copy)
    seen_class_ids(settings.classes.seen, stream.manifest.taxonomy)
    try:
        return TrainingCache(stream, split_scenes(stream.samples, settings.stream.hold_out)[0])
    except UnfitCacheError as error:
        raise UnfitCacheError(f"{url}: {error}") from None


def open_training_caches(settings: RunSettings, urls: Sequence[str]) -> list[TrainingCache]:
    """Return the streams and samples of all caches of a training.

    Raises:
        CacheError, UnfitCacheError: if one cannot be trained from, or has other classes, text embeddings or widths of
            the teachers' features than the first one.
    """
    caches = [open_training_stream(settings, url) for url in urls]
    if len(caches) > 1:
        first, text, widths = caches[0], caches[0].stream.text_embeddings(), teacher_widths(settings, caches[0])
        for other in caches[1:]:
            _refuse_other_classes(first.stream, other.stream, text)
            if (found := teacher_widths(settings, other)) != widths:
                raise UnfitCacheError(
                    f"{first.stream.url} and {other.stream.url}: cannot be trained on together, since their teachers' "
                    f"features have other widths ({widths} and {found}); make both with the same teachers"
                )
    return caches


def teacher_widths(settings: RunSettings, cache: TrainingCache) -> dict[str, int]:
    """Return the number of channels of the frozen features of each teacher that the training needs."""
    stream, samples = cache
    return {
        teacher: stream.feature_width(f"{teacher}/features", samples[0], channels_last=teacher == "sam")
        for teacher in settings.terms.teachers
    }


def _refuse_other_classes(first: CacheStream, other: CacheStream, text: NDArray[np.float32]) -> None:
    pair = f"{first.url} and {other.url}: cannot be trained on together, since"
    own, found = first.manifest.taxonomy, other.manifest.taxonomy
    if own.digest != found.digest:
        raise UnfitCacheError(
            f"{pair} the classes of the first are {own.name!r} ({', '.join(own.names)}), those of the second "
            f"{found.name!r} ({', '.join(found.names)}); use caches of one taxonomy"
        )
    if not np.array_equal(text, other.text_embeddings()):
        raise UnfitCacheError(
            f"{pair} their text embeddings differ; make both with the same prompts and CLIP (`labelgen reprompt` "
            "changes the prompts of a cache)"
        )
