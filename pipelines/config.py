"""The settings of a run: a YAML per dataset, a teacher preset, and overrides, checked as one."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from cache_schemas.config_files import Settings, check, merge, override, read_shipped, read_yaml, shipped_names
from labelgen.settings import ClipSettings, ImageSettings, PointSettings, SamSettings

EXAMPLE = "pipelines/configs/nuscenes.yaml"


class PoolSettings(Settings):
    """A pool of actors that hold one teacher each.

    `actors` None means one for each GPU's worth of `num_gpus` fractions, or, without GPUs, one for each core, at
    most one for each call there is to do. `num_gpus` is ignored on a cluster without GPUs.
    """

    actors: int | None = Field(None, ge=1)
    num_gpus: float = Field(ge=0)
    num_cpus: float = Field(0, ge=0)
    samples_per_call: int = Field(1, ge=1)


class RaySettings(Settings):
    """How work is spread; nothing here changes what a label is.

    A call that dies or fails is tried again `retries` times before its sample is quarantined;
    `shards_in_flight` bounds how many shards are worked on, and so held in memory, at once.
    """

    clip: PoolSettings
    sam: PoolSettings
    retries: int = Field(2, ge=0)
    shards_in_flight: int = Field(4, ge=1)

    def pool(self, teacher: str) -> PoolSettings:
        """Return the settings of a teacher's pool, `clip` or `sam`."""
        return {"clip": self.clip, "sam": self.sam}[teacher]


class RunConfig(Settings):
    """Everything about a run but where its input and output are."""

    dataset: str
    version: str | None = None
    split: str = "all"
    shard_samples: int = Field(40, ge=1, le=40)
    prompts: str
    teachers: str
    images: ImageSettings
    clip: ClipSettings
    sam: SamSettings
    points: PointSettings
    ray: RaySettings


def load_config(
    dataset: str,
    *,
    file: Path | None = None,
    teachers: str | None = None,
    split: str | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """Return the effective settings: the dataset's YAML (or `file`), then the preset, then `key=value` overrides.

    Raises:
        ConfigError: quoting the key or value that is wrong, and the nearest valid key.
    """
    settings = read_yaml(file, EXAMPLE) if file else read_shipped("pipelines", "configs", dataset, "dataset")
    settings["dataset"] = dataset
    if split is not None:
        settings["split"] = split
    preset = teachers or settings.get("teachers", "paper")
    settings["teachers"] = preset
    merge(settings, read_shipped("pipelines", "configs/teachers", preset, "teachers preset"))
    override(settings, overrides, "images.height=448")
    sources = f"{file or dataset + '.yaml'}, teachers {preset}" + (", --set" if overrides else "")
    return check(RunConfig, settings, sources)


def dataset_names() -> list[str]:
    """Return the datasets that have a config."""
    return shipped_names("pipelines", "configs")


def preset_names() -> list[str]:
    """Return the teacher presets."""
    return shipped_names("pipelines", "configs/teachers")
