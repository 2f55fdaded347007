"""Settings from YAML files and `key=value` overrides, checked by pydantic; errors name the key and the valid ones."""

import difflib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cache_schemas.errors import ConfigError
from cache_schemas.extensions import find, known_names


class Settings(BaseModel):
    """Base class of all settings: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Settings)

_QUOTES = reprlib.Repr()
_QUOTES.maxlevel, _QUOTES.maxstring, _QUOTES.maxother = 2, 60, 60  # a few YAML aliases can expand to gigabytes


def quote(value: Any) -> str:
    """Return the start of a value of a YAML file, for an error: the whole of it can be gigabytes."""
    return _QUOTES.repr(value)


class _UniqueKeysLoader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice; YAML forbids that, but PyYAML silently takes the last value."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (name := (key.tag, key.value)) in seen:
                raise yaml.MarkedYAMLError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
            elif isinstance(key, yaml.ScalarNode):
                seen.add(name)
        return node


def parse_yaml(text: str) -> Any:
    """Return the value of YAML text: plain data only, and every key of a mapping once.

    Raises:
        yaml.YAMLError: if it is not such text.
        RecursionError: if it is nested too deeply.
    """
    try:
        return yaml.load(text, _UniqueKeysLoader)  # a safe loader
    except ValueError as error:  # a number of thousands of digits, or a date that is none
        raise yaml.YAMLError(f"{error}") from None


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
        ConfigError: if there is no file of that name.
    """
    known = shipped_names(package, folder)
    if name not in known:
        raise ConfigError(f"no {what} {name!r}; choose {', '.join(known)}")
    other: Path | None = find(name, {}, _group(package, folder))
    file = other or resources.files(package) / folder / f"{name}.yaml"
    return _parse(file.read_text(encoding="utf-8"), name)


def _group(package: str, folder: str) -> str:
    """Return the entry point group of a folder of a package."""
    return f"{package}/{folder}".replace("/", ".")


def read_yaml(file: Path, example: str) -> dict[str, Any]:
    """Return the settings in a file.

    Raises:
        ConfigError: if it cannot be read or does not hold settings; the error names the `example`.
    """
    try:
        return _parse(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; give a YAML file such as {example}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not text ({error.reason}); give a YAML file such as {example}") from None


def merge(settings: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Replace values in `settings` by those of `over`, key by key, in nested sections too."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(settings.get(key), dict):
            merge(settings[key], value)
        else:
            settings[key] = value


def override(settings: dict[str, Any], overrides: Sequence[str], example: str) -> None:
    """Replace values in `settings` by overrides such as `images.height=448`; errors show the `example`.

    Raises:
        ConfigError: quoting an override that is not `key=value`.
    """
    for text in overrides:
        key, equals, literal = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {text!r}: write key=value, such as {example}")
        try:
            value = parse_yaml(literal)
        except (yaml.YAMLError, RecursionError):
            raise ConfigError(f"--set {text!r}: {literal!r} is not a YAML value; quote it") from None
        for step in reversed(key.split(".")):
            value = {step: value}
        merge(settings, value)


def check(model: type[S], settings: Mapping[str, Any], sources: str) -> S:
    """Return settings as an instance of their model; errors name the `sources` of the values.

    Raises:
        ConfigError: quoting every key or value that is wrong, and valid keys for it.
    """
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"settings ({sources}): {_explain(error, model)}") from None


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        settings = parse_yaml(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}; fix the file") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply; settings are keys and values, a few levels deep") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}: settings are a mapping of keys to values, this is {quote(settings)}")
    return settings


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return one sentence for each key or value that is wrong."""
    sentences = []
    for problem in error.errors():
        key = ".".join(str(step) for step in problem["loc"])
        if problem["type"] == "extra_forbidden":
            sentences.append(f"unknown key {key!r}; {_hint(key, model)}")
        elif problem["type"] == "missing":
            sentences.append(f"key {key!r} is missing")
        else:
            sentences.append(f"{key} = {quote(problem['input'])}: {problem['msg'][0].lower()}{problem['msg'][1:]}")
    return "; ".join(sentences)


def _hint(key: str, model: type[BaseModel]) -> str:
    """Return the valid key that an unknown key probably means, or all keys of its section."""
    path, _, name = key.rpartition(".")
    section = _section(model, path)
    keys = list(section.model_fields) if section else []
    prefix = f"{path}." if path else ""
    if near := difflib.get_close_matches(name, keys, n=1, cutoff=0.7):
        return f"did you mean {prefix + near[0]!r}?"
    if elsewhere := [full for full in _keys(model) if full.rpartition(".")[2] == name]:
        return f"did you mean {elsewhere[0]!r}?"
    return f"the keys of {path or 'the settings'} are {', '.join(keys)}"


def _section(model: type[BaseModel], path: str) -> type[BaseModel] | None:
    """Return the settings at a path such as `ray.clip`; those of the model itself for no path."""
    for step in path.split(".") if path else ():
        field = model.model_fields.get(step)
        if field is None or not _is_section(field.annotation):
            return None
        model = field.annotation
    return model


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Return the full names of all keys, those of sections included."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if _is_section(field.annotation):
            yield from _keys(field.annotation, f"{prefix}{name}.")


def _is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
