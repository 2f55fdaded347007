"""Prompt files: the names of each class, and the sentence templates they are put into.

CLIP embeds every name in every template. The embedding of a class is the mean over its sentences. A prompt file is
YAML:

    taxonomy: nuscenes16           # optional
    templates: maskclip85          # a list in templates.yaml, or the templates themselves
    classes:                       # every class of the taxonomy, with at least one name
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

from cache_schemas.config_files import parse_yaml, quote
from cache_schemas.names import is_plain
from cache_schemas.taxonomy import Taxonomy
from labelgen.errors import PromptsError


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a taxonomy.

    Attributes:
        name: of the shipped set, or of the file without its ending.
        class_names: the names of each class, in the order of the taxonomy.
        templates: sentences with `{}` where the name goes.
    """

    name: str
    class_names: dict[str, tuple[str, ...]]
    templates: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of names and templates, which determine the text embeddings; the prompt set's own name does not."""
        return hashlib.sha256(json.dumps([self.class_names, self.templates]).encode()).hexdigest()

    def sentences(self) -> list[list[str]]:
        """Return the sentences of each class, in taxonomy order: every name in every template."""
        return [
            [template.replace("{}", name) for name in names for template in self.templates]
            for names in self.class_names.values()
        ]


def load_prompts(name: str, taxonomy: Taxonomy) -> PromptSet:
    """Load prompts for a taxonomy.

    Args:
        name: the name of a shipped set, or the path of a prompt file.
        taxonomy: its classes are the classes that the prompts must have.

    Raises:
        PromptsError: if there is no such set or file, it is malformed, or its classes are not those of the taxonomy.
    """
    document = _read(name)
    classes, templates = document.get("classes"), document.get("templates")
    if (intended := document.get("taxonomy", taxonomy.name)) != taxonomy.name:
        raise PromptsError(
            f"{name}: is for taxonomy {quote(intended)}, not {taxonomy.name}; choose prompts for {taxonomy.name}"
        )
    if isinstance(templates, str):
        templates = _template_list(templates, name)
    if not isinstance(classes, dict) or not isinstance(templates, list) or not templates:
        raise PromptsError(f"{name}: needs `classes:` (a mapping) and `templates:` (a name or a list)")
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise PromptsError(f"{name}: template {quote(template)} must contain {{}} once, where the class name goes")
    for label, names in classes.items():
        if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
            raise PromptsError(f"{name}: class {label!r} needs a list of at least one name, not {quote(names)}")
    _check_classes(classes, taxonomy, name)
    _check_words(classes, name)
    for text in (*templates, *(word for names in classes.values() for word in names)):
        if not is_plain(text):
            raise PromptsError(f"{name}: {text!r} has control characters, which a terminal would execute; remove them")
    return PromptSet(
        name=Path(name).stem,
        class_names={label: tuple(classes[label]) for label in taxonomy.names},
        templates=tuple(templates),
    )


def _read(name: str) -> dict[str, Any]:
    """Return the document of a shipped set or of a file, which is a mapping."""
    folder = resources.files("labelgen.prompts")
    shipped = sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml") and entry.name != "templates.yaml"
    )
    try:
        file = folder / f"{name}.yaml" if name in shipped else Path(name)
        document = parse_yaml(file.read_text(encoding="utf-8"))
    except RecursionError:
        raise PromptsError(f"{name}: nested too deeply; a prompt file is a mapping with lists") from None
    except OSError:
        raise PromptsError(f"prompts {name!r}: no such file, and not a shipped set ({', '.join(shipped)})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PromptsError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise PromptsError(f"{name}: a prompt file is a mapping with `taxonomy`, `templates` and `classes`")
    return document


def _template_list(name: str, prompt_file: str) -> list[str]:
    """Return a list of templates.yaml, which a prompt file refers to by name."""
    lists: dict[str, list[str]] = parse_yaml(
        (resources.files("labelgen.prompts") / "templates.yaml").read_text(encoding="utf-8")
    )
    if name not in lists:
        raise PromptsError(f"{prompt_file}: no template list {name!r}; known: {', '.join(lists)}, or give a list")
    return lists[name]


def _check_classes(classes: dict[str, Any], taxonomy: Taxonomy, prompt_file: str) -> None:
    """Check that the classes of a prompt file are those of the taxonomy."""
    missing = [label for label in taxonomy.names if label not in classes]
    unknown = [str(label) for label in classes if label not in taxonomy.names]
    if missing or unknown:
        wrong = [f"{kind} {', '.join(labels)}" for kind, labels in (("lacks", missing), ("adds", unknown)) if labels]
        raise PromptsError(
            f"{prompt_file}: {len(classes)} classes, taxonomy {taxonomy.name} has {len(taxonomy.classes)}: "
            f"it {' and '.join(wrong)}; give each class of the taxonomy once"
        )


def _check_words(classes: dict[str, list[str]], prompt_file: str) -> None:
    """Check that no two classes share a name: their scores would be equal, and the later one would never win.

    CLIP's tokenizer ignores case and the number of spaces.
    """
    owners: dict[str, str] = {}
    for label, names in classes.items():
        for word in names:
            owner = owners.setdefault(" ".join(word.lower().split()), label)
            if owner != label:
                raise PromptsError(
                    f"{prompt_file}: {word!r} is a name of class {owner!r} and of class {label!r}; "
                    "give each name to one class"
                )
