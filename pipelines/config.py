"""The settings of a run: a preset, a YAML file for each dataset, a teacher preset, and overrides, checked together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from cache_schemas.config_files import Settings, check, merge, override, quote, read_shipped, read_yaml
from cache_schemas.errors import ConfigError
from labelgen.datasets import find_dataset
from labelgen.presets import PAPER, read_preset
from labelgen.settings import LabelSettings
from labelgen.stages import TEACHERS

EXAMPLE = "labelgen/datasets/nuscenes/settings.yaml"


class PoolSettings(Settings):
    """The pool of actors that hold the model of one teacher.

    Attributes:
        actors: how many. Null means: on GPUs, as many as their shares `num_gpus` allow; without GPUs, one for each
            core. There are never more actors than calls.
        num_gpus: the share of a GPU that each actor takes. A whole GPU fits any model. A local run on a machine
            without GPUs ignores it. On a cluster given by address, actors wait for GPUs; to work on its CPUs, set 0.
        num_cpus: the CPU cores that Ray reserves for each actor.
        samples_per_call: samples that one call to an actor takes. Of a sample with many images, such as a scan, a call
            takes 16 images.
    """

    actors: int | None = Field(None, ge=1)
    num_gpus: float = Field(1, ge=0)
    num_cpus: float = Field(0, ge=0)
    samples_per_call: int = Field(1, ge=1)


_POOLS: dict[str, Any] = {name: (PoolSettings, PoolSettings()) for name in TEACHERS}
_PoolSections: Any = create_model("_PoolSections", __base__=Settings, **_POOLS)
"""One section for each teacher in the table of stages."""


class RaySettings(_PoolSections):
    """How work is distributed. Nothing here changes a label.

    Attributes:
        retries: a call or task that fails is retried so many times before its sample is quarantined.
        placement_minutes: the run stops if for so long not a single actor of a teacher could be placed and loaded.
    """

    retries: int = Field(2, ge=0)
    placement_minutes: float = Field(30, gt=0)

    def pool(self, teacher: str) -> PoolSettings:
        """Return the settings of the pool of a teacher."""
        settings: PoolSettings = getattr(self, teacher)
        return settings


class RunConfig(LabelSettings):
    """Everything about a run, except where its input and output are."""

    ray: RaySettings


def load_config(
    dataset: str,
    *,
    file: Path | None = None,
    preset: str | None = None,
    teachers: str | None = None,
    split: str | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """Return the effective settings: preset, the dataset's YAML (or `file`), teachers, then `key=value` overrides.

    Each one overrides those before it. `preset` and `teachers` replace the names that the YAML gives.

    Raises:
        ConfigError: quoting the key or value that is wrong, and the valid keys.
    """
    of_dataset = read_yaml(file or find_dataset(dataset).settings, EXAMPLE)
    named = of_dataset.pop("preset", PAPER)
    if not isinstance(named, str):
        raise ConfigError(f"{file or dataset + '.yaml'}: preset = {quote(named)}: give a name, such as {PAPER}")
    preset = preset or named
    settings = read_preset(preset)
    merge(settings, of_dataset)
    settings["dataset"] = dataset
    if split is not None:
        settings["split"] = split
    teachers = teachers or settings.get("teachers", "paper")
    settings["teachers"] = teachers
    merge(settings, read_shipped("pipelines", "configs/teachers", teachers, "teachers preset"))
    override(settings, overrides, "images.height=448")
    if "preset" in settings:
        raise ConfigError(f"--set preset={settings['preset']}: write --preset {settings['preset']}")
    sources = f"preset {preset}, {file or dataset + '.yaml'}, teachers {teachers}" + (", --set" if overrides else "")
    return check(RunConfig, settings, sources)
