"""From settings to what they name: the adapter of the dataset, the taxonomy, the prompts, the networks."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cache_schemas.documents import Teachers
from cache_schemas.layout import MODALITIES
from labelgen.datasets import find_dataset
from labelgen.datasets.adapter import Adapter
from labelgen.prompts import load_prompts
from labelgen.samples import Scene
from labelgen.settings import LabelSettings
from labelgen.stages import TEACHERS
from labelgen.stages.inputs import ResolvedSettings
from labelgen.teachers.checkpoints import identify


def open_dataset(dataset: str, data: Path) -> Adapter:
    """Return the adapter of a dataset for the folder `data`.

    Raises:
        ConfigError: if there is no dataset of that name.
        DatasetError: if the folder is missing.
    """
    return find_dataset(dataset).adapter(data)


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
