"""Prompt files: which words stand for each class, and the templates that they fill.

A prompt file is YAML:

    taxonomy: nuscenes16
    templates: maskclip85          # a list in templates.yaml, or the templates themselves
    classes:
      car: [car]
      driveable_surface: [road, street]
"""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from cache_schemas.names import is_plain
from cache_schemas.taxonomy import Taxonomy
from labelgen.errors import PromptsError


@dataclass(frozen=True)
class PromptSet:
    """Words and templates for a taxonomy; `class_names` follows the taxonomy's order."""

    name: str
    class_names: dict[str, tuple[str, ...]]
    templates: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of all that determines the text embeddings."""
        return hashlib.sha256(json.dumps([self.class_names, self.templates]).encode()).hexdigest()

    def sentences(self) -> list[list[str]]:
        """Return, for each class in taxonomy order, every name in every template."""
        return [
            [template.replace("{}", name) for name in names for template in self.templates]
            for names in self.class_names.values()
        ]


def load_prompts(name: str, taxonomy: Taxonomy) -> PromptSet:
    """Load a shipped prompt set by name, or a prompt file by path.

    Raises:
        PromptsError: if it is missing or malformed, or its classes are not the taxonomy's.
    """
    where, document = _read(name)
    classes, templates = document.get("classes"), document.get("templates")
    if (meant := document.get("taxonomy", taxonomy.name)) != taxonomy.name:
        raise PromptsError(f"{where}: is for taxonomy {meant!r}, not {taxonomy.name}; choose prompts for that one")
    if isinstance(templates, str):
        templates = _template_list(templates, where)
    if not isinstance(classes, dict) or not isinstance(templates, list) or not templates:
        raise PromptsError(f"{where}: needs `classes:` (a mapping) and `templates:` (a name or a list)")
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise PromptsError(f"{where}: template {template!r} must hold {{}} once, where the class name goes")
    for label, names in classes.items():
        if not isinstance(names, list) or not names or not all(isinstance(word, str) and word for word in names):
            raise PromptsError(f"{where}: class {label!r} needs a list of at least one name, it has {names!r}")
    _check_classes(classes, taxonomy, where)
    for text in (*templates, *(word for names in classes.values() for word in names)):
        if not is_plain(text):
            raise PromptsError(f"{where}: {text!r} has control characters, which a terminal obeys; take them out")
    return PromptSet(
        name=Path(name).stem,
        class_names={label: tuple(classes[label]) for label in taxonomy.names},
        templates=tuple(templates),
    )


def _read(name: str) -> tuple[str, dict[str, Any]]:
    folder = resources.files("labelgen.prompts")
    shipped = sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml") and entry.name != "templates.yaml"
    )
    try:
        text = (folder / f"{name}.yaml").read_text() if name in shipped else Path(name).read_text()
        document = yaml.safe_load(text)
    except RecursionError:
        raise PromptsError(f"{name}: nested too deeply; a prompt file is a mapping of lists") from None
    except OSError:
        raise PromptsError(f"prompts {name!r}: no such file, nor a shipped set ({', '.join(shipped)})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PromptsError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise PromptsError(f"{name}: a prompt file is a mapping with `taxonomy`, `templates` and `classes`")
    return name, document


def _template_list(name: str, where: str) -> list[str]:
    lists: dict[str, list[str]] = yaml.safe_load((resources.files("labelgen.prompts") / "templates.yaml").read_text())
    if name not in lists:
        raise PromptsError(f"{where}: no template list {name!r}; known: {', '.join(lists)}, or give a list")
    return lists[name]


def _check_classes(classes: dict[str, Any], taxonomy: Taxonomy, where: str) -> None:
    missing = [label for label in taxonomy.names if label not in classes]
    unknown = [str(label) for label in classes if label not in taxonomy.names]
    if missing or unknown:
        wrong = [f"{kind} {', '.join(labels)}" for kind, labels in (("lacks", missing), ("adds", unknown)) if labels]
        raise PromptsError(
            f"{where}: {len(classes)} classes, taxonomy {taxonomy.name} has {len(taxonomy.classes)}: "
            f"it {' and '.join(wrong)}; give each class of the taxonomy once"
        )
