"""From settings to what they name: the adapter of the dataset, its scenes, the taxonomy, the prompts, the networks."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cache_schemas.documents import Teachers
from cache_schemas.errors import ConfigError
from cache_schemas.layout import MODALITIES
from labelgen.datasets import find_dataset
from labelgen.datasets.adapter import Adapter
from labelgen.prompts import load_prompts
from labelgen.samples import Scene
from labelgen.settings import LabelSettings
from labelgen.stages import TEACHERS
from labelgen.stages.inputs import ResolvedSettings
from labelgen.teachers.checkpoints import identify


def open_dataset(dataset: str, data: Path, sweeps: int = 0) -> Adapter:
    """Return the adapter of a dataset for the folder `data`, which gives so many `sweeps` to each sample.

    Raises:
        ConfigError: if there is no dataset of that name, or it has no sweeps but some are asked for.
        DatasetError: if the folder is missing.
    """
    adapter = find_dataset(dataset).adapter(data)
    if sweeps and not adapter.has_sweeps:
        raise ConfigError(f"sweeps.count = {sweeps}: {dataset} has no clouds between its samples; set it to 0")
    adapter.sweeps = sweeps
    return adapter


def read_scenes(settings: LabelSettings, adapter: Adapter) -> list[Scene]:
    """Return the scenes of the split, whose samples have only the cameras of the settings.

    Samples with none of these cameras are left out.

    Raises:
        ConfigError: if no sample has a camera that the settings name.
        DatasetError, SourceError: as `Adapter.scenes`.
    """
    scenes = adapter.scenes(settings.split, settings.version)
    if settings.cameras is None:
        return scenes
    wanted = set(settings.cameras)
    names = {camera.channel for scene in scenes for sample in scene.samples for camera in sample.cameras}
    if unknown := sorted(wanted - names):
        raise ConfigError(f"no camera {unknown[0]!r} in this split; choose from {', '.join(sorted(names))}")
    chosen = []
    for scene in scenes:
        samples = [replace(s, cameras=tuple(c for c in s.cameras if c.channel in wanted)) for s in scene.samples]
        if kept := tuple(sample for sample in samples if sample.cameras or sample.defect):
            chosen.append(replace(scene, samples=kept))
    return chosen


def resolve(settings: LabelSettings, adapter: Adapter) -> ResolvedSettings:
    """Load what the settings name for the data set of `adapter`, and digest the weights of the teachers.

    The samples are taken to have images and points; see `with_modalities_of`.

    Raises:
        LabelgenError, CacheError: if something is missing or does not fit.
    """
    taxonomy = adapter.taxonomy()
    prompts = load_prompts(settings.prompts or adapter.prompts(), taxonomy)
    networks = {name: identify(settings.of_teacher(name)) for name in TEACHERS}
    teachers = Teachers(preset=settings.teachers, networks=networks)
    return ResolvedSettings(settings, taxonomy, prompts, teachers)


def with_modalities_of(scenes: Iterable[Scene], resolved: ResolvedSettings) -> ResolvedSettings:
    """Return the settings for samples that have images and points, or images alone if none of them has a cloud."""
    samples = (sample for scene in scenes for sample in scene.samples)
    has_points = any(sample.cloud_path is not None for sample in samples)
    return replace(resolved, modalities=MODALITIES if has_points else MODALITIES[:1])
