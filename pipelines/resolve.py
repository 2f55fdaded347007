"""From settings to what they name: the adapter of the dataset, the taxonomy, the prompts, the networks."""

from pathlib import Path

from cache_schemas.documents import Teachers
from cache_schemas.errors import ConfigError
from labelgen.datasets import find_dataset
from labelgen.datasets.adapter import Adapter
from labelgen.prompts import load_prompts
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


def resolve(settings: LabelSettings, adapter: Adapter) -> ResolvedSettings:
    """Load what the settings name for the data set of `adapter`, and digest the weights of the teachers.

    Raises:
        LabelgenError, CacheError: if something is missing or does not fit.
    """
    taxonomy = adapter.taxonomy()
    prompts = load_prompts(settings.prompts, taxonomy)
    networks = {name: identify(settings.of_teacher(name)) for name in TEACHERS}
    return ResolvedSettings(settings, taxonomy, prompts, Teachers(preset=settings.teachers, networks=networks))
