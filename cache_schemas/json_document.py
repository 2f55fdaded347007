"""What the JSON documents of a cache have in common: they are checked when they are read."""

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from cache_schemas.errors import CacheError


class Document(BaseModel):
    """A frozen JSON object without unknown fields: the attributes of a Zarr group, or a part of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_attrs(self) -> dict[str, Any]:
        """Return the document as a JSON-ready object."""
        attrs: dict[str, Any] = self.model_dump(mode="json")
        return attrs

    @classmethod
    def from_attrs(cls, attrs: dict[str, Any], where: str) -> Self:
        """Return the document in some attributes; errors name `where` they were found.

        Raises:
            CacheError: if the attributes are not this document.
        """
        try:
            return cls.model_validate_json(json.dumps(attrs))
        except ValidationError as error:
            first = error.errors()[0]
            steps = (str(step) for step in first["loc"] if step != "networks")  # `Teachers` stores its networks flat
            place = ".".join(steps) or "document"
            raise CacheError(
                f"{where}: not a valid {cls.__name__}: {place}: {first['msg']} (got {first.get('input')!r:.80}); "
                "restore the file, or remove it with `labelgen verify --repair` and rerun `labelgen run`"
            ) from None
