"""What a stage declares: the group of arrays that it makes, from what, under which settings, and how.

A declaration is data and plain functions. `labelgen.stages.STAGES` lists all of them. The plan, the fingerprints, the
order of work, the progress display and the documents of a cache are derived from that table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache_schemas.documents import Teachers
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import ROOT_GROUPS
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

FileSizes = Callable[[tuple[str, ...]], dict[str, int | None]]
"""Gives the size in bytes of files by path, None for a file that is missing."""


class BadSamplesError(Exception):
    """Some samples of a shard are unusable; `reasons` says why, by sample token."""

    def __init__(self, reasons: dict[str, str]) -> None:
        """Keep the reasons."""
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons


@dataclass(frozen=True)
class ResolvedSettings:
    """The settings of a run, and what they name: the taxonomy, the prompts, the networks.

    Together with the samples this determines every array of a cache.
    """

    settings: LabelSettings
    taxonomy: Taxonomy
    prompts: PromptSet
    teachers: Teachers


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
        """The clouds of `samples`. Stages of one task share them, so each file is read once.

        Raises:
            BadSamplesError: naming every sample whose cloud cannot be read.
        """
        return each_sample(self.samples, self.adapter.read_cloud)

    def read(self, group: str, *names: str) -> Arrays:
        """Return values of a sealed group of this shard: the arrays named, or all."""
        return self.cache.read(GroupPath(self.shard_key, group), *names)

    def open(self, group: str, name: str) -> Any:
        """Return one Zarr array of a sealed group of this shard, without reading its values."""
        return self.cache.arrays(GroupPath(self.shard_key, group), name)[name]

    def read_root(self, group: str) -> Arrays:
        """Return all values of a sealed group outside the shards, read once."""
        if group not in self.root_groups:
            self.root_groups[group] = self.cache.read(GroupPath.root(group))
        return self.root_groups[group]


@dataclass(frozen=True)
class Teacher:
    """A model that actors hold: its name, which is also that of its settings and its pool, and how to load it.

    `load` takes the settings and the device, `cpu` or `cuda`, and returns the model.
    """

    name: str
    load: Callable[[ResolvedSettings, str], Any]


@dataclass(frozen=True)
class TeacherCall:
    """How an actor with a model makes the part of a group that belongs to a chunk of samples.

    Each step takes what the step before it returned. While one call computes, the next one may decode and receive.

    Attributes:
        teacher: the model.
        decode: inputs -> decoded raw files, in a CPU task. None if the stage reads only sealed groups.
        receive: model, inputs, decoded (None without `decode`) -> batch, in the actor.
        compute: model, batch -> result. Of these steps, one runs at a time in an actor.
        fetch: model, result -> the part.
        gather: the parts of all chunks, in the order of samples -> the arrays of the group.
    """

    teacher: Teacher
    receive: Callable[[Any, ShardInputs, Any], Any]
    compute: Callable[[Any, Any], Any]
    gather: Callable[[Sequence[Any]], Arrays]
    decode: Callable[[ShardInputs], Any] | None = None
    fetch: Callable[[Any, Any], Any] = lambda _, result: result


@dataclass(frozen=True)
class Stage:
    """One step from raw data to labels. It makes one group, whose arrays are those of the layout.

    Attributes:
        name: the name of the group.
        description: one line for people.
        version: raise it when the code changes what the group holds. Caches then redo the group.
        build: inputs -> arrays in a CPU task, or how a teacher makes them.
        settings: the settings that shape the group, JSON-ready, besides those of the groups in `made_from`.
        made_from: the groups that it is made from.
        raw_inputs: what it takes from the dataset, JSON-ready: tokens, calibrations, files with their sizes. It
            returns None for samples that have no such group. None instead of a function: nothing but sealed groups.
        task: stages with the same task run in one task on the same inputs. The default is a task of its own.
        counts: what its seal tells about the arrays, besides the number of samples.
    """

    name: str
    description: str
    version: int
    build: Callable[[ShardInputs], Arrays] | TeacherCall
    settings: Callable[[ResolvedSettings], Any]
    made_from: tuple[str, ...] = ()
    raw_inputs: Callable[[Sequence[Sample], FileSizes], Any] | None = None
    task: str = ""
    counts: Callable[[Arrays], dict[str, int]] = lambda arrays: {}

    @property
    def task_name(self) -> str:
        """The name of the task that makes the group."""
        return self.task or self.name

    @property
    def teacher(self) -> Teacher | None:
        """The teacher that makes the group, if any."""
        return self.build.teacher if isinstance(self.build, TeacherCall) else None

    @property
    def at_root(self) -> bool:
        """Whether the cache has this group once, and not once in each shard."""
        return self.name in ROOT_GROUPS


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


def tokens(samples: Sequence[Sample]) -> list[str]:
    """Return the tokens of samples."""
    return [sample.token for sample in samples]


def picture_sizes(samples: Sequence[Sample], sizes: FileSizes) -> list[dict[str, int | None]]:
    """Return the file sizes of each sample's pictures, by path.

    Sizes stand for contents. Modification times do not take part, so that a copy of a dataset is the same dataset.
    """
    return [sizes(tuple(camera.image_path for camera in sample.cameras)) for sample in samples]


def cloud_sizes(samples: Sequence[Sample], sizes: FileSizes) -> list[dict[str, int | None]]:
    """Return the file size of each sample's cloud, by path."""
    return [sizes((sample.cloud_path,)) for sample in samples]


def calibrations(samples: Sequence[Sample]) -> list[list[list[Any]]]:
    """Return size, intrinsics (3, 3) and cam_from_cloud (4, 4) of each sample's cameras, JSON-ready."""
    return [
        [[c.width_px, c.height_px, c.intrinsics.tolist(), c.cam_from_cloud.tolist()] for c in sample.cameras]
        for sample in samples
    ]


def offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Return (len(lengths) + 1,) offsets: entry s has the rows offsets[s]:offsets[s + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
