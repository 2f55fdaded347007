"""The JSON documents of a cache: the manifest at its root, the record of each shard, the seal of each group."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from cache_schemas.errors import CacheError, SchemaVersionError
from cache_schemas.layout import ROOT_GROUPS, SCHEMA_VERSION, SHARD_GROUPS, TEACHERS
from cache_schemas.names import EscapedText, FileName, OptionalFileName, PlainText
from cache_schemas.taxonomy import Taxonomy


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


class PromptRecord(Document):
    """The prompts of the class embeddings: the names (synonyms) of each class, and the templates for them."""

    name: PlainText
    digest: str
    class_names: dict[PlainText, tuple[PlainText, ...]]
    templates: tuple[PlainText, ...]


class TeacherIdentity(Document):
    """A network: its architecture, the name of its weights, and their SHA-256.

    `sha256` is None for untrained weights; the architecture and the seed in `weights` determine them.
    """

    architecture: PlainText
    weights: PlainText
    sha256: str | None


class Teachers(Document):
    """The preset of the run, and the networks that it names, by the teacher names of the layout.

    The JSON object is flat: `{"preset": "paper", "clip": {...}, "sam": {...}}`.
    """

    preset: PlainText
    networks: dict[str, TeacherIdentity]

    @model_validator(mode="before")
    @classmethod
    def _collect_networks(cls, values: Any, info: ValidationInfo) -> Any:
        if info.mode != "json" or not isinstance(values, dict):
            return values
        networks = {name: value for name, value in values.items() if name != "preset"}
        return {name: value for name, value in values.items() if name == "preset"} | {"networks": networks}

    @field_validator("networks")
    @classmethod
    def _names_fit(cls, networks: dict[str, TeacherIdentity]) -> dict[str, TeacherIdentity]:
        if unknown := [name for name in networks if name not in TEACHERS]:
            raise ValueError(f"no group is made by a teacher {unknown[0]!r}; the layout names {', '.join(TEACHERS)}")
        groups = (*ROOT_GROUPS.values(), *SHARD_GROUPS.values())
        required = [group.teacher for group in groups if group.teacher and not group.optional]
        if missing := [name for name in required if name not in networks]:
            raise ValueError(f"teacher {missing[0]!r} is missing")
        return networks

    @model_serializer
    def _flatten(self) -> dict[str, Any]:
        networks = {name: self.networks[name] for name in TEACHERS if name in self.networks}
        return {"preset": self.preset, **networks}


class CacheManifest(Document):
    """Root attributes: the content of the cache, and the settings of the last run that changed it.

    `recipes` are digests of these settings by group. A group whose seal has another recipe was made under other
    settings.
    """

    schema_version: int
    dataset: FileName
    split: FileName
    taxonomy: Taxonomy
    taxonomy_digest: str
    ignore_id: Literal[255] = 255
    prompts: PromptRecord
    teachers: Teachers
    config: dict[str, Any]
    config_digest: str
    recipes: dict[str, str] = Field(default_factory=dict)
    software: dict[str, str]

    @model_validator(mode="after")
    def _digest_fits(self) -> Self:
        if self.taxonomy_digest != self.taxonomy.digest:
            raise ValueError(f"taxonomy_digest {self.taxonomy_digest!r} is not the digest of the class names")
        return self

    @classmethod
    def from_attrs(cls, attrs: dict[str, Any], where: str) -> Self:
        """Return the manifest; another schema version has an error of its own.

        Raises:
            SchemaVersionError: if the cache follows another version of the contract.
            CacheError: if the attributes are not a manifest.
        """
        version = attrs.get("schema_version")
        if "schema_version" in attrs and version != SCHEMA_VERSION:
            raise SchemaVersionError(
                f"{where}: schema version {version!r}, this software reads and writes version {SCHEMA_VERSION}; "
                "use the release that wrote the cache, or choose another cache folder"
            )
        return super().from_attrs(attrs, where)


class QuarantinedSample(Document):
    """A sample that was left out of its shard, and the reason.

    `inputs` digests its files, so that the sample is tried again once they change. The reason quotes files and other
    programs, so control characters in it are escaped; those of caches written before too.
    """

    sample: FileName
    stage: FileName
    reason: EscapedText
    inputs: str


class ShardRecord(Document):
    """Attributes of `shards/<shard>`: its samples in order, and those that were left out.

    `clouds` are the data set's own ids of the samples' clouds, as in the names of its official label files.
    """

    scene: FileName
    samples: tuple[FileName, ...]
    clouds: tuple[OptionalFileName, ...] = ()
    cameras: tuple[FileName, ...]
    quarantined: tuple[QuarantinedSample, ...] = ()


class ArraySeal(Document):
    """An array when its group was sealed; `crc32c` is that of its values in C order, little-endian."""

    shape: tuple[Annotated[int, Field(ge=0)], ...]
    dtype: str
    crc32c: str


class LabelOrigin(Document):
    """Where imported labels come from: the format and folder of their files, the time (ISO 8601), the software."""

    format: PlainText
    folder: PlainText
    imported: PlainText
    software: PlainText


@dataclass(frozen=True)
class Provenance:
    """What a group was made from, and by what; its seal records it.

    `fingerprint` digests everything that determines the content. `recipe` digests the settings alone, whatever the
    samples, and `teacher` is the network that made the content, if one did. `upstream` holds the fingerprints of the
    groups that this one was made from, by group name. `samples` are the samples that it holds, and `counts` are
    numbers that readers may want without reading arrays. `origin` is that of imported labels.
    """

    fingerprint: str
    recipe: str = ""
    teacher: TeacherIdentity | None = None
    upstream: Mapping[str, str] = field(default_factory=dict)
    samples: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    origin: LabelOrigin | None = None


class GroupSeal(Document):
    """Attributes of a finished group: its provenance and its arrays. Readers ignore a group without a seal.

    The provenance is in the seal as well as in the manifest, because the manifest changes with the next run.
    """

    state: Literal["sealed"] = "sealed"
    fingerprint: str
    recipe: str = ""
    teacher: TeacherIdentity | None = None
    upstream: dict[str, str] = Field(default_factory=dict)
    samples: tuple[FileName, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)
    origin: LabelOrigin | None = None
    arrays: dict[str, ArraySeal]

    def to_attrs(self) -> dict[str, Any]:
        """Return the seal as a JSON-ready object; only that of imported labels has an `origin`."""
        return {name: value for name, value in super().to_attrs().items() if name != "origin" or value is not None}

    @classmethod
    def of(cls, provenance: Provenance, arrays: Mapping[str, ArraySeal]) -> Self:
        """Return the seal of a group of this provenance that holds these arrays."""
        return cls(
            fingerprint=provenance.fingerprint,
            recipe=provenance.recipe,
            teacher=provenance.teacher,
            upstream=dict(provenance.upstream),
            samples=provenance.samples,
            counts=dict(provenance.counts),
            origin=provenance.origin,
            arrays=dict(arrays),
        )

    @property
    def provenance(self) -> Provenance:
        """What the group was made from, and by what."""
        return Provenance(
            self.fingerprint, self.recipe, self.teacher, self.upstream, self.samples, self.counts, self.origin
        )
