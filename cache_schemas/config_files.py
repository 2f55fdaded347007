"""Settings from YAML files and `key=value` overrides, checked by pydantic, with errors that name the key."""

import difflib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cache_schemas.errors import ConfigError
from cache_schemas.extensions import find, known_names


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Settings)

_QUOTES = reprlib.Repr()
_QUOTES.maxlevel, _QUOTES.maxstring, _QUOTES.maxother = 2, 60, 60  # a few aliases in YAML can stand for gigabytes


def shipped_names(package: str, folder: str) -> list[str]:
    """Return the names of the YAML files in a folder of a package, and of those that other packages register.

    The entry point group is named like the folder: `pipelines.configs.teachers` for `configs/teachers` of `pipelines`.
    Each entry point is the path of a YAML file.
    """
    entries = (resources.files(package) / folder).iterdir()
    own = [entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml")]
    return known_names(own, _group(package, folder))


def read_shipped(package: str, folder: str, name: str, what: str) -> dict[str, Any]:
    """Return the settings called `name` of those that `shipped_names` lists; errors call it a `what`.

    Raises:
        ConfigError: if there are none of that name.
    """
    known = shipped_names(package, folder)
    if name not in known:
        raise ConfigError(f"no {what} {name!r}; choose {', '.join(known)}")
    other: Path | None = find(name, {}, _group(package, folder))
    file = other or resources.files(package) / folder / f"{name}.yaml"
    return _parse(file.read_text(), name)


def _group(package: str, folder: str) -> str:
    """Return the entry point group of a folder of a package."""
    return f"{package}/{folder}".replace("/", ".")


def read_yaml(file: Path, example: str) -> dict[str, Any]:
    """Return the settings in a file.

    Raises:
        ConfigError: if it cannot be read, pointing to the `example`, or does not hold settings.
    """
    try:
        return _parse(file.read_text(), str(file))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; give a YAML file such as {example}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not text ({error.reason}); give a YAML file such as {example}") from None


def merge(settings: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Lay settings over others, key by key, at all depths."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(settings.get(key), dict):
            merge(settings[key], value)
        else:
            settings[key] = value


def override(settings: dict[str, Any], overrides: Sequence[str], example: str) -> None:
    """Lay overrides such as `images.height=448` over settings; errors show the `example`.

    Raises:
        ConfigError: quoting an override that is not `key=value`.
    """
    for text in overrides:
        key, equals, literal = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {text!r}: write key=value, such as {example}")
        try:
            value = yaml.safe_load(literal)
        except (yaml.YAMLError, RecursionError):
            raise ConfigError(f"--set {text!r}: {literal!r} is not a YAML value; quote it") from None
        for step in reversed(key.split(".")):
            value = {step: value}
        merge(settings, value)


def check(model: type[S], settings: Mapping[str, Any], sources: str) -> S:
    """Return settings as their model; errors name the `sources` that they came from.

    Raises:
        ConfigError: quoting every key or value that is wrong, and the nearest valid key.
    """
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"settings ({sources}): {_explain(error, model)}") from None


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}; mend the file") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply; settings are keys and values, a few levels deep") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}: settings are a mapping of keys to values, this is {_QUOTES.repr(settings)}")
    return settings


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    sentences = []
    for problem in error.errors():
        key = ".".join(str(step) for step in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, list(_keys(model)), n=1, cutoff=0.4)
            sentences.append(f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif problem["type"] == "missing":
            sentences.append(f"key {key!r} is missing")
        else:
            sentences.append(
                f"{key} = {_QUOTES.repr(problem['input'])}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
            )
    return "; ".join(sentences)


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")
