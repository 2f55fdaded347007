"""The settings of a run: a YAML per dataset, a teacher preset, and overrides, checked as one."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from labelgen.errors import ConfigError
from labelgen.settings import ClipSettings, ImageSettings, PointSettings, SamSettings, Settings


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
    settings = _read_yaml(file) if file else _shipped("configs", dataset, "dataset")
    settings["dataset"] = dataset
    if split is not None:
        settings["split"] = split
    preset = teachers or settings.get("teachers", "paper")
    settings["teachers"] = preset
    _merge(settings, _shipped("configs/teachers", preset, "teachers preset"))
    for override in overrides:
        _set(settings, override)
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        sources = f"{file or dataset + '.yaml'}, teachers {preset}" + (", --set" if overrides else "")
        raise ConfigError(f"settings ({sources}): {_explain(error)}") from None


def dataset_names() -> list[str]:
    """Return the datasets that have a config."""
    return _names("configs")


def preset_names() -> list[str]:
    """Return the teacher presets."""
    return _names("configs/teachers")


def _names(folder: str) -> list[str]:
    entries = (resources.files("pipelines") / folder).iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))


def _shipped(folder: str, name: str, what: str) -> dict[str, Any]:
    if name not in _names(folder):
        raise ConfigError(f"no {what} {name!r}; choose {', '.join(_names(folder))}")
    return _parse((resources.files("pipelines") / folder / f"{name}.yaml").read_text(), name)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        return _parse(file.read_text(), str(file))
    except OSError as error:
        raise ConfigError(
            f"{file}: {error.strerror}; give a YAML file such as pipelines/configs/nuscenes.yaml"
        ) from None


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}: settings are a mapping of keys to values, this is {settings!r:.60}")
    return settings


def _merge(settings: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(settings.get(key), dict):
            _merge(settings[key], value)
        else:
            settings[key] = value


def _set(settings: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r}: write key=value, such as images.height=448")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: {text!r} is not a YAML value; quote it") from None
    for step in reversed(key.split(".")):
        value = {step: value}
    _merge(settings, value)


def _explain(error: ValidationError) -> str:
    sentences = []
    for problem in error.errors():
        key = ".".join(str(step) for step in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, list(_keys(RunConfig)), n=1, cutoff=0.4)
            sentences.append(f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif problem["type"] == "missing":
            sentences.append(f"key {key!r} is missing")
        else:
            sentences.append(f"{key} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}")
    return "; ".join(sentences)


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")
