"""Presets: how CLIP reads the pictures and how masks vote, as one name.

A preset is a YAML file of settings in this folder. It lies under the settings of a data set, so that each of these
overrides it. `paper` names every setting that a preset may choose. A cache does not store the name of its preset:
`preset_of` finds it from the settings, so that it is never wrong.
"""

from collections.abc import Mapping
from typing import Any

from cache_schemas.config_files import read_shipped, shipped_names
from labelgen.settings import in_pixels

PAPER = "paper"
"""The preset of data sets whose settings name none."""

CUSTOM = "custom"
"""The name for settings that agree with no preset."""


def read_preset(name: str) -> dict[str, Any]:
    """Return the settings of a preset, section by section. `clip.size` may be a multiple of the training size.

    Raises:
        ConfigError: if there is no preset of that name; the message lists all names.
    """
    return read_shipped("labelgen", "presets", name, "preset")


def preset_of(config: Mapping[str, Any]) -> str:
    """Return the name of the preset that settings agree with, or `custom`.

    Args:
        config: all settings, JSON-ready, as the manifest of a cache holds them. Settings that an older manifest lacks
            count as those of the paper.
    """
    paper = read_preset(PAPER)
    if "clip" not in config or not all(isinstance(config.get(section, {}), Mapping) for section in paper):
        return CUSTOM
    for name in shipped_names("labelgen", "presets"):
        preset = read_preset(name)
        if all(
            config.get(section, {}).get(key, usual) == _value(preset, section, key, usual, config)
            for section, settings in paper.items()
            for key, usual in settings.items()
        ):
            return name
    return CUSTOM


def _value(preset: Mapping[str, Any], section: str, key: str, usual: Any, config: Mapping[str, Any]) -> Any:
    """Return the value of a setting in a preset, for the training size of `config`."""
    value = preset.get(section, {}).get(key, usual)
    return in_pixels(value, config.get("images")) if (section, key) == ("clip", "size") else value
