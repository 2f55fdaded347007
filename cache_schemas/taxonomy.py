"""Taxonomies: the ordered names of the classes, whose positions are the label ids, and their colours."""

import hashlib
import json
from importlib import resources
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cache_schemas.errors import TaxonomyError
from cache_schemas.names import PlainText

IGNORE = 255
"""The ignore index: the id of "no label", in every label array of every data set."""

Channel = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Channel, Channel, Channel]


class TaxonomyClass(BaseModel):
    """One class: its name and its display colour (RGB, 0..255)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PlainText = Field(min_length=1)
    colour: Colour


class Taxonomy(BaseModel):
    """An ordered list of classes. A label id is a position in the list, and 255 is the ignore index.

    Raises:
        ValueError: if there is no class, more than 255, or two of one name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PlainText
    classes: tuple[TaxonomyClass, ...] = Field(min_length=1, max_length=IGNORE)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"taxonomy {self.name!r} names a class twice: {self.names}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in id order."""
        return tuple(entry.name for entry in self.classes)

    @property
    def colours(self) -> tuple[Colour, ...]:
        """RGB colours in id order."""
        return tuple(entry.colour for entry in self.classes)

    @property
    def digest(self) -> str:
        """SHA-256 of the ordered class names: with equal digests, label ids have the same meaning."""
        return hashlib.sha256(json.dumps(self.names).encode()).hexdigest()


def load_taxonomy(name: str) -> Taxonomy:
    """Return the taxonomy called `name` that comes with the package.

    Raises:
        TaxonomyError: if there is none of that name.
    """
    folder = resources.files("cache_schemas") / "taxonomies"
    known = sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))
    if name not in known:
        raise TaxonomyError(
            f"no taxonomy {name!r}; known: {', '.join(known)} (add one under cache_schemas/taxonomies/)"
        )
    return Taxonomy.model_validate_json((folder / f"{name}.json").read_text(encoding="utf-8"))
