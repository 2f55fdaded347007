"""The JSON documents of a cache: the manifest at its root, the record of each shard, the seal of each group."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationInfo, field_validator, model_serializer, model_validator

from cache_schemas.errors import SchemaVersionError
from cache_schemas.json_document import Document
from cache_schemas.layout import (
    MODALITIES,
    READABLE_VERSIONS,
    ROOT_GROUPS,
    SCHEMA_MINOR,
    SCHEMA_VERSION,
    SHARD_GROUPS,
    TEACHERS,
    Modalities,
)
from cache_schemas.names import EscapedText, FileName, OptionalFileName, PlainText
from cache_schemas.taxonomy import Taxonomy


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


class Source(Document):
    """A part of a data set that a cache holds: its split, and the version of its tables where there are several."""

    dataset: FileName
    split: FileName
    version: PlainText | None = None


class CacheManifest(Document):
    """Root attributes: the content of the cache, and the settings of the last run that changed it.

    `modalities` say whether samples have points besides images. `sources` are the parts of data sets whose samples the
    cache holds. `recipes` are digests of settings, by data set and group. A group whose seal has another recipe was
    made under other settings.
    """

    schema_version: int
    schema_minor: int = SCHEMA_MINOR
    modalities: Modalities = MODALITIES
    sources: tuple[Source, ...] = Field(min_length=1)
    taxonomy: Taxonomy
    taxonomy_digest: str
    ignore_id: Literal[255] = 255
    prompts: PromptRecord
    teachers: Teachers
    config: dict[str, Any]
    config_digest: str
    recipes: dict[str, dict[str, str]] = Field(default_factory=dict)
    software: dict[str, str]

    @property
    def dataset(self) -> str:
        """The data set of its first source."""
        return self.sources[0].dataset

    @property
    def split(self) -> str:
        """The split of its first source."""
        return self.sources[0].split

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets of its sources, each once."""
        return tuple(dict.fromkeys(source.dataset for source in self.sources))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of its sources, each once."""
        return tuple(dict.fromkeys(source.split for source in self.sources))

    def split_of(self, record: "ShardRecord") -> str:
        """Return the split of a shard; where its record does not tell, that of its data set's first source."""
        of_dataset = [source.split for source in self.sources if source.dataset == record.dataset]
        return record.split or (of_dataset or [self.split])[0]

    def recipes_of(self, dataset: str) -> dict[str, str]:
        """Return the digests of settings by group, for shards of a data set; without a name, of the first one."""
        return self.recipes.get(dataset or self.dataset, {})

    @model_validator(mode="after")
    def _modalities_fit(self) -> Self:
        if self.modalities not in (MODALITIES, MODALITIES[:1]):
            raise ValueError(f"modalities {self.modalities} are neither image nor image and point")
        return self

    @model_validator(mode="after")
    def _digest_fits(self) -> Self:
        if self.taxonomy_digest != self.taxonomy.digest:
            raise ValueError(f"taxonomy_digest {self.taxonomy_digest!r} is not the digest of the class names")
        return self

    @classmethod
    def from_attrs(cls, attrs: dict[str, Any], where: str) -> Self:
        """Return the manifest, also of a cache of version 1; an unknown schema version has an error of its own.

        Raises:
            SchemaVersionError: if the cache follows a version of the contract that this software does not know.
            CacheError: if the attributes are not a manifest.
        """
        version, minor = attrs.get("schema_version", SCHEMA_VERSION), attrs.get("schema_minor", 0)
        newer = version == SCHEMA_VERSION and isinstance(minor, int) and minor > SCHEMA_MINOR
        if version not in READABLE_VERSIONS or newer:
            raise SchemaVersionError(
                f"{where}: schema version {f'{version}.{minor}' if newer else repr(version)}, this software reads "
                f"versions 1 and {SCHEMA_VERSION}.0 to {SCHEMA_VERSION}.{SCHEMA_MINOR}; "
                "use the release that wrote the cache, or choose another cache folder"
            )
        return super().from_attrs(_manifest_of_version_1(attrs) if version == 1 else attrs, where)


def _manifest_of_version_1(attrs: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a manifest of version 1 with the fields of today; it has the same version."""
    changed = dict(attrs)
    dataset, split, recipes = changed.pop("dataset", None), changed.pop("split", None), changed.pop("recipes", {})
    config = changed.get("config")
    version = config.get("version") if isinstance(config, dict) else None
    source = {"dataset": dataset, "split": split, "version": version}
    return changed | {"modalities": list(MODALITIES), "sources": [source], "recipes": {str(dataset): recipes}}


class QuarantinedSample(Document):
    """A sample that was left out of its shard, and the reason.

    `inputs` digests its files, so that the sample is tried again once they change. The reason quotes files and other
    programs, so control characters in it are escaped; those of caches written before too.
    """

    sample: FileName
    stage: FileName
    reason: EscapedText
    inputs: str


class Picture(NamedTuple):
    """An image of a shard: the name of its camera, its file relative to the data set, and its size on disk.

    The file of a picture inside a file that holds many ends with `#<number>`. In records of version 1, file and size
    are None. In JSON: a list of the four.
    """

    camera: FileName
    file: PlainText | None = None
    width_px: int | None = None
    height_px: int | None = None


class ShardRecord(Document):
    """Attributes of `shards/<shard>`: its data set and split, its samples in order, and those that were left out.

    `clouds` are the data set's own ids of the samples' clouds, as in the names of its official label files. `pictures`
    are the images of the shard in order. `dataset` is empty in records of version 1, whose caches have only one, and
    `split` in those of earlier software.
    """

    dataset: OptionalFileName
    split: OptionalFileName = ""
    scene: FileName
    samples: tuple[FileName, ...]
    clouds: tuple[OptionalFileName, ...] = ()
    pictures: tuple[Picture, ...] = ()
    quarantined: tuple[QuarantinedSample, ...] = ()

    @classmethod
    def from_attrs(cls, attrs: dict[str, Any], where: str) -> Self:
        """Return the record, also of version 1, which has one list of `cameras` for all samples.

        Raises:
            CacheError: if the attributes are not a record.
        """
        if "cameras" not in attrs:
            return super().from_attrs(attrs, where)
        changed = {"dataset": "", **attrs}
        cameras, samples = changed.pop("cameras"), changed.get("samples")
        if isinstance(cameras, list) and isinstance(samples, list):
            changed["pictures"] = [[camera, None, None, None] for _ in samples for camera in cameras]
        return super().from_attrs(changed, where)

    def pictures_at(self, start: int, stop: int) -> tuple[Picture, ...]:
        """Return the pictures of the images `start` to `stop` of the shard; unknown ones are named by their number."""
        known = self.pictures[start:stop]
        return known + tuple(Picture(f"image {number}") for number in range(start + len(known), stop))


class ArraySeal(Document):
    """An array when its group was sealed; `crc32c` is that of its values in C order, little-endian.

    `bytes` is the size of the file with its values, 0 if the array is empty; None in seals of version 1.
    """

    shape: tuple[Annotated[int, Field(ge=0)], ...]
    dtype: str
    crc32c: str
    bytes: Annotated[int, Field(ge=0)] | None = None


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
