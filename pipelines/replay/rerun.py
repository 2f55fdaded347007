"""Make the groups of one sample again in this process, under the settings of its cache."""

import time
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache_schemas.config_files import check, merge, override, read_shipped
from cache_schemas.documents import CacheManifest, GroupSeal, Teachers
from cache_schemas.errors import CacheError, ConfigError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import group_spec
from cache_schemas.store import Cache
from labelgen.datasets.adapter import Adapter
from labelgen.errors import DatasetError, SampleError
from labelgen.prompts import PromptSet
from labelgen.samples import Sample
from labelgen.stages import STAGES, TEACHERS
from labelgen.stages.inputs import Arrays, BadSamplesError, ResolvedSettings, ShardInputs
from labelgen.stages.stage import Stage, TeacherCall
from labelgen.teachers.checkpoints import identify
from pipelines.config import RunConfig
from pipelines.fingerprints import recipe_of
from pipelines.replay.compare import ArrayComparison, compare_arrays
from pipelines.replay.place import Place, find_sample
from pipelines.resolve import open_dataset, read_scenes


@dataclass(frozen=True)
class ReplayedStage:
    """A stage that was made again: its arrays beside the sealed ones, and the seconds that it took.

    `other_settings` says that the group was sealed under other settings than those of the replay.
    """

    arrays: dict[str, ArrayComparison]
    other_settings: bool
    seconds: float

    @property
    def within_tolerance(self) -> bool:
        """Whether no array differs by more than the tolerance."""
        return all(array.within_tolerance for array in self.arrays.values())

    @property
    def equal(self) -> bool:
        """Whether no element differs."""
        return not any(array.differing for array in self.arrays.values())


@dataclass(frozen=True)
class Replay:
    """A sample, where it is, the device of the teachers, and its stages by name."""

    cache: str
    shard: str
    sample: str
    device: str
    stages: dict[str, ReplayedStage]

    @property
    def within_tolerance(self) -> bool:
        """Whether all stages are."""
        return all(stage.within_tolerance for stage in self.stages.values())

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON-ready object."""
        stages = {
            name: {"equal": stage.equal, "within_tolerance": stage.within_tolerance, **asdict(stage)}
            for name, stage in self.stages.items()
        }
        return {**asdict(self), "within_tolerance": self.within_tolerance, "stages": stages}


def replay(
    url: str,
    token: str,
    data: Path,
    stage: str | None = None,
    teachers: str | None = None,
    overrides: Sequence[str] = (),
) -> Replay:
    """Make a stage of a sample again, or all stages that are sealed, and compare them with the cache.

    Args:
        url: the cache.
        token: the name of the sample.
        data: the folder of the raw data set.
        stage: the name of a stage; None: all.
        teachers: a preset that replaces the teachers in the cache's settings.
        overrides: further settings that differ from the cache's, as `key=value`.

    Raises:
        LabelgenError, CacheError: if there is no such sample or stage, or something that it needs is missing.
    """
    cache, manifest = Cache.open(url)
    place = find_sample(cache, token)
    sealed = _sealed_groups(place, stage)
    config = _settings(manifest, place, teachers, overrides)
    adapter = open_dataset(config.dataset, data.absolute(), config.sweeps.count)
    resolved = _resolve(url, manifest, config, sealed)
    rerun = _Rerun(place, _find_raw(place, config, adapter), adapter, resolved)
    return Replay(url, place.key, token, rerun.device, {name: rerun.compare(name, sealed[name]) for name in sealed})


def _sealed_groups(place: Place, stage: str | None) -> dict[str, GroupSeal]:
    """Return the seals of the groups to make again, by stage.

    Raises:
        ConfigError: if there is no such stage.
        CacheError: if its group is not sealed, or has other samples.
    """
    if stage is not None and stage not in STAGES:
        raise ConfigError(f"no stage {stage!r}; choose from {', '.join(STAGES)}")
    paths = {name: GroupPath.root(name) if of.at_root else GroupPath(place.key, name) for name, of in STAGES.items()}
    seals = place.cache.whole_seals(paths.values())
    found = {
        name: seal
        for name, path in paths.items()
        if (seal := seals.get(path)) and (STAGES[name].at_root or seal.samples in ((), place.record.samples))
    }
    if not found.keys() >= ({stage} if stage else set()) or not found:
        raise CacheError(
            f"{place.cache.url}: shard {place.key} has no sealed {stage or 'group'} of sample {place.token}; it has "
            f"{', '.join(found) or 'none'}; finish it with `labelgen run`"
        )
    return {stage: found[stage]} if stage else found


def _settings(manifest: CacheManifest, place: Place, teachers: str | None, overrides: Sequence[str]) -> RunConfig:
    """Return the settings of the cache for the data set and the split of a sample.

    Raises:
        ConfigError: if the manifest has those of another data set, or a setting is wrong.
    """
    values, dataset = deepcopy(manifest.config), place.record.dataset or manifest.dataset
    if values.get("dataset") != dataset:
        raise ConfigError(
            f"{place.cache.url}: its settings are those of {values.get('dataset')}, and the sample is of {dataset}; "
            f"run `labelgen run --dataset {dataset}` on it once more, which leaves the settings of {dataset}"
        )
    split = manifest.split_of(place.record)
    versions = (own.version for own in manifest.sources if (own.dataset, own.split) == (dataset, split))
    values |= {"split": split, "version": next(versions, None)}
    if teachers is not None:
        values["teachers"] = teachers
        merge(values, read_shipped("pipelines", "configs/teachers", teachers, "teachers preset"))
    override(values, overrides, "sam.points_per_batch=64")
    return check(RunConfig, values, f"{place.cache.url}, --teachers, --set")


def _resolve(url: str, manifest: CacheManifest, config: RunConfig, stages: Collection[str]) -> ResolvedSettings:
    """Return what the settings name. Prompts and classes are those in the manifest, so that no file is needed.

    Raises:
        CacheError: if the manifest lacks prompts that a stage needs.
        WeightsError: if the weights of a teacher of these stages are absent.
    """
    networks = dict(manifest.teachers.networks)
    for teacher in {made_by.name for name in stages if (made_by := STAGES[name].teacher)}:
        networks[teacher] = identify(config.of_teacher(teacher))
    recorded = manifest.prompts
    if "text" in stages and not (recorded.templates and all(recorded.class_names.values())):
        raise CacheError(f"{url}: its manifest has no template or a class without names; make it with `labelgen run`")
    prompts = PromptSet(recorded.name, recorded.class_names, recorded.templates)
    teachers = Teachers(preset=config.teachers, networks=networks)
    return ResolvedSettings(config, manifest.taxonomy, prompts, teachers, manifest.modalities)


def _find_raw(place: Place, config: RunConfig, adapter: Adapter) -> Sample:
    """Return the sample of the raw data.

    Raises:
        DatasetError: if the data does not have it.
    """
    scenes = [scene for scene in read_scenes(config, adapter) if scene.name == place.record.scene]
    for sample in (sample for scene in scenes for sample in scene.samples if sample.token == place.token):
        return sample
    raise DatasetError(
        f"{adapter.data}: split {config.split} has no sample {place.token} of scene {place.record.scene}; give the "
        "folder from which the cache was made with --data"
    )


class _Rerun:
    """Makes groups of one sample; each teacher is loaded once."""

    def __init__(self, place: Place, sample: Sample, adapter: Adapter, resolved: ResolvedSettings) -> None:
        self._place, self._sample, self._adapter, self._resolved = place, sample, adapter, resolved
        self._models: dict[str, Any] = {}
        self.device = "cpu"

    def compare(self, name: str, seal: GroupSeal) -> ReplayedStage:
        """Make the group of a stage again, and compare it with the sealed one."""
        stage, path = STAGES[name], GroupPath.root(name) if STAGES[name].at_root else GroupPath(self._place.key, name)
        alone = stage.teacher is not None or stage.raw_inputs is not None
        start = time.perf_counter()
        try:
            made = self._make(stage)
        except BadSamplesError as error:
            raise SampleError(f"sample {self._place.token}: {name} cannot be made: {error}") from None
        seconds = time.perf_counter() - start
        sealed = self._place.cut(path, {array: self._place.cache.rows(path, array) for array in seal.arrays})
        replayed = made if alone else self._place.cut(path, made)
        arrays = compare_arrays(name, group_spec(path), sealed, replayed, alone)
        return ReplayedStage(arrays, bool(seal.recipe) and seal.recipe != recipe_of(name, self._resolved), seconds)

    def _make(self, stage: Stage) -> Arrays:
        """Return a group of the sample alone; of the whole shard, if it is made from sealed groups."""
        steps = stage.build
        if not isinstance(steps, TeacherCall):
            return steps(self._inputs((self._sample,)))
        model, parts = self._model(steps.teacher.name), []
        first_image = 0 if stage.at_root else self._place.rows("I").start
        for sample in [self._sample] if stage.at_root else _in_calls(self._sample):
            inputs = self._inputs((sample,), first_image)
            decoded = steps.decode(inputs) if steps.decode else None
            parts.append(steps.fetch(model, steps.compute(model, steps.receive(model, inputs, decoded))))
            first_image += len(sample.cameras)
        return steps.gather(parts)

    def _inputs(self, samples: tuple[Sample, ...], first_image: int = 0) -> ShardInputs:
        return ShardInputs(self._resolved, self._adapter, samples, self._place.cache, self._place.key, first_image)

    def _model(self, teacher: str) -> Any:
        if teacher not in self._models:
            import torch

            self.device = "cuda" if torch.cuda.is_available() else "cpu"
            self._models[teacher] = TEACHERS[teacher].load(self._resolved, self.device)
        return self._models[teacher]


def _in_calls(sample: Sample) -> list[Sample]:
    """Return a sample in parts, as many images each as a run gives to one call."""
    from pipelines.teaching import cut_into_calls

    return [part for (part,) in cut_into_calls([sample], 1)]
