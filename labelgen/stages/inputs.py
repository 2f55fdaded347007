"""What the function of a stage may read: the settings, raw files of samples, and sealed groups."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache_schemas.documents import Teachers
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import MODALITIES, Modalities
from cache_schemas.row_reader import StoredRows
from cache_schemas.store import Cache
from cache_schemas.taxonomy import Taxonomy
from labelgen.datasets.adapter import Adapter
from labelgen.errors import SampleError
from labelgen.prompts import PromptSet
from labelgen.samples import Cloud, Sample
from labelgen.settings import LabelSettings

T = TypeVar("T")

Arrays = dict[str, NDArray[Any]]
"""The arrays of one group, by name."""


@dataclass(frozen=True)
class ResolvedSettings:
    """The settings of a run, what they name (the taxonomy, the prompts, the networks), and the modalities of samples.

    Together with the samples this determines every array of a cache.
    """

    settings: LabelSettings
    taxonomy: Taxonomy
    prompts: PromptSet
    teachers: Teachers
    modalities: Modalities = MODALITIES


@dataclass
class ShardInputs:
    """What a stage may read: raw files of some samples of a shard, and sealed groups.

    Attributes:
        resolved: the settings.
        adapter: reads the raw files.
        samples: all samples of the shard, or a chunk of them.
        cache, shard_key: where the sealed groups are; no key for a group that belongs to the whole cache.
        first_image: index in the shard of the first image of `samples`.
        root_groups: values of groups outside the shards, kept by whoever makes several `ShardInputs`.
    """

    resolved: ResolvedSettings
    adapter: Adapter
    samples: Sequence[Sample]
    cache: Cache
    shard_key: str | None
    first_image: int = 0
    root_groups: dict[str, Arrays] = field(default_factory=dict)

    @property
    def settings(self) -> LabelSettings:
        """The settings of the run."""
        return self.resolved.settings

    @property
    def images(self) -> slice:
        """Where the images of `samples` are among the images of the shard."""
        return slice(self.first_image, self.first_image + sum(len(sample.cameras) for sample in self.samples))

    @cached_property
    def clouds(self) -> list[Cloud]:
        """The clouds of `samples`; one without points for a sample that has none. Stages of one task share them.

        Raises:
            BadSamplesError: naming every sample whose cloud cannot be read.
        """
        return each_sample(self.samples, self._read_cloud)

    @property
    def has_points(self) -> bool:
        """Whether the samples of the cache have points."""
        return "point" in self.resolved.modalities

    def read(self, group: str, *names: str) -> Arrays:
        """Return values of a sealed group of this shard: the arrays named, or all."""
        return self.cache.read(GroupPath(self.shard_key, group), *names)

    def open(self, group: str, name: str) -> StoredRows:
        """Return one array of a sealed group of this shard, without reading its values."""
        return self.cache.rows(GroupPath(self.shard_key, group), name)

    def array_names(self, group: str) -> set[str]:
        """Return the names of the arrays of a sealed group of this shard."""
        path = GroupPath(self.shard_key, group)
        return set(self.cache.seals([path])[path].arrays)

    def read_root(self, group: str) -> Arrays:
        """Return all values of a sealed group outside the shards, read once."""
        if group not in self.root_groups:
            self.root_groups[group] = self.cache.read(GroupPath.root(group))
        return self.root_groups[group]

    def _read_cloud(self, sample: Sample) -> Cloud:
        if sample.cloud_path is None:
            return Cloud(np.zeros((0, 3), np.float32))
        return self.adapter.read_cloud(sample)


class BadSamplesError(Exception):
    """Some samples of a shard are unusable; `reasons` says why, by sample token."""

    def __init__(self, reasons: dict[str, str]) -> None:
        """Keep the reasons."""
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons


def each_sample(samples: Sequence[Sample], read: Callable[[Sample], T]) -> list[T]:
    """Call `read` for all samples.

    Raises:
        BadSamplesError: naming every sample for which it raised SampleError.
    """
    results, reasons = [], {}
    for sample in samples:
        try:
            results.append(read(sample))
        except SampleError as error:
            reasons[sample.token] = str(error)
    if reasons:
        raise BadSamplesError(reasons)
    return results


def offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Return (len(lengths) + 1,) offsets: entry s has the rows offsets[s]:offsets[s + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
