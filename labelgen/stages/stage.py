"""What a stage declares: the group of arrays that it makes, from what, under which settings, and how.

A declaration is data and plain functions. `labelgen.stages.STAGES` lists all of them. The plan, the fingerprints, the
order of work, the progress display and the documents of a cache are derived from that table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cache_schemas.layout import ROOT_GROUPS
from labelgen.samples import Sample
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs
from labelgen.stages.raw_files import FileSizes


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
        decode: inputs -> decoded raw files, in the actor. None if the stage reads only sealed groups.
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
        settings: the settings that shape the group, JSON-ready, besides those of the groups in `made_from`. None: the
            settings do not ask for the group.
        made_from: the groups that it is made from.
        more_sources: further ones that it is made from under some settings.
        more_files: stages made from raw files that it reads as well under some settings. They are among its sources,
            so their fingerprints tell of these files.
        raw_inputs: what it takes from the dataset, JSON-ready: tokens, calibrations, files with their sizes. It
            returns None for samples that have no such group. None instead of a function: nothing but sealed groups.
        also_reads: the groups whose raw files it reads as well under these settings. It does not wait for them.
        by_content: whether its raw files count by their content instead of their size: a corrected label file has the
            size of the first one.
        join: the arrays of parts of the samples, in their order -> those of all samples. A CPU stage that has it has a
            task of its own, and several tasks build the parts at once.
        task: CPU stages with the same task run in one task on the same inputs, and all are built before any is sealed.
            The default is a task of its own.
        counts: what its seal tells about the arrays, besides the number of samples.
    """

    name: str
    description: str
    version: int
    build: Callable[[ShardInputs], Arrays] | TeacherCall
    settings: Callable[[ResolvedSettings], Any]
    made_from: tuple[str, ...] = ()
    more_sources: Callable[[ResolvedSettings], tuple[str, ...]] = lambda resolved: ()
    more_files: Callable[[ResolvedSettings], tuple[str, ...]] = lambda resolved: ()
    raw_inputs: Callable[[Sequence[Sample], FileSizes], Any] | None = None
    also_reads: Callable[[ResolvedSettings], tuple[str, ...]] = lambda resolved: ()
    by_content: bool = False
    join: Callable[[Sequence[Any]], Arrays] | None = None
    task: str = ""
    counts: Callable[[Arrays], dict[str, int]] = lambda arrays: {}

    def sources(self, resolved: ResolvedSettings) -> tuple[str, ...]:
        """Return all groups that it is made from under these settings."""
        return self.made_from + self.more_sources(resolved)

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
