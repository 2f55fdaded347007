"""Documents: each is unchanged by Zarr attributes on disk; unknown, missing and wrong fields are refused by name."""

from pathlib import Path
from typing import Any

import pytest
import zarr
from pydantic import BaseModel, ValidationError

from cache_schemas.documents import (
    ArraySeal,
    CacheManifest,
    Document,
    GroupSeal,
    LabelOrigin,
    Picture,
    PromptRecord,
    QuarantinedSample,
    ShardRecord,
    Source,
    TeacherIdentity,
    Teachers,
)
from cache_schemas.errors import CacheError, SchemaVersionError
from cache_schemas.taxonomy import Taxonomy

QUARANTINED = QuarantinedSample(sample="s1", stage="points", reason="cloud: 12 bytes short é", inputs="77aa")
EMBEDDINGS = ArraySeal(shape=(16, 512), dtype="float32", crc32c="00c0ffee", bytes=32792)

ORIGIN = LabelOrigin(format="scannet", folder="labels", imported="2026-01-02T03:04:05+00:00", software="labelgen 1")

EXAMPLES: dict[type[Document], Document] = {
    document.__class__: document
    for document in (
        PromptRecord(name="plain", digest="c0", class_names={"car": ("car", "van")}, templates=("a {}.", "the {}")),
        TeacherIdentity(architecture="ViT-B-16", weights="openai", sha256="ab" * 32),
        Teachers(
            preset="tiny",
            networks={
                "clip": TeacherIdentity(architecture="ViT-B-16", weights="openai", sha256="ab" * 32),
                "sam": TeacherIdentity(architecture="sam-tiny", weights="untrained-7", sha256=None),
            },
        ),
        QUARANTINED,
        Source(dataset="nuscenes", split="train", version="v1.0-trainval"),
        ShardRecord(
            dataset="nuscenes",
            split="train",
            scene="scene-0061",
            samples=("s0", "s2"),
            clouds=("c0", "c2"),
            pictures=(Picture("FRONT", "a.jpg", 64, 48), Picture("BACK", "scans.sens#7", 32, 24)),
            quarantined=(QUARANTINED,),
        ),
        EMBEDDINGS,
        ORIGIN,
        GroupSeal(
            fingerprint="f1",
            recipe="r1",
            teacher=TeacherIdentity(architecture="ViT-B-16", weights="openai", sha256="ab" * 32),
            upstream={"clip": "f2", "sam": "f3"},
            samples=("s0", "s2"),
            counts={"pairs": 5},
            origin=ORIGIN,
            arrays={"embeddings": EMBEDDINGS, "empty": ArraySeal(shape=(0,), dtype="int8", crc32c="00000000", bytes=0)},
        ),
    )
}
"""One example of each document, every field of it given; the manifest comes from its fixture."""


@pytest.fixture
def examples(manifest: CacheManifest) -> dict[type[Document], Document]:
    return {**EXAMPLES, CacheManifest: manifest}


def through_zarr(folder: Path, attrs: dict[str, Any]) -> dict[str, Any]:
    """Write attributes with plain Zarr, and read back what is on disk."""
    zarr.create_group(folder, attributes=attrs)
    return zarr.open_group(folder, mode="r").attrs.asdict()


@pytest.mark.parametrize("kind", Document.__subclasses__(), ids=lambda kind: kind.__name__)
def test_every_document_survives_zarr_attributes_on_disk(
    kind: type[Document], examples: dict[type[Document], Document], tmp_path: Path
) -> None:
    assert kind in examples, f"give an example of {kind.__name__} in this module"
    example = examples[kind]
    assert example.model_fields_set >= set(kind.model_fields) - {"state", "ignore_id"}, "an example gives every field"
    assert kind.from_attrs(through_zarr(tmp_path / "group", example.to_attrs()), "here") == example


def test_the_taxonomy_survives_zarr_attributes_on_disk(taxonomy: Taxonomy, tmp_path: Path) -> None:
    attrs = through_zarr(tmp_path / "group", taxonomy.model_dump(mode="json"))
    assert Taxonomy.model_validate(attrs) == taxonomy


@pytest.mark.parametrize("kind", Document.__subclasses__(), ids=lambda kind: kind.__name__)
def test_an_unknown_field_is_refused_by_name(kind: type[Document], examples: dict[type[Document], Document]) -> None:
    attrs = {**examples[kind].to_attrs(), "colour_of_the_sky": "blue"}
    with pytest.raises(CacheError, match=rf"here: not a valid {kind.__name__}: colour_of_the_sky: .*got 'blue'"):
        kind.from_attrs(attrs, "here")


@pytest.mark.parametrize("kind", Document.__subclasses__(), ids=lambda kind: kind.__name__)
def test_a_missing_field_is_refused_by_name(kind: type[Document], examples: dict[type[Document], Document]) -> None:
    required = [name for name, field in kind.model_fields.items() if field.is_required() and name != "networks"]
    assert required
    for name in required:
        attrs = {key: value for key, value in examples[kind].to_attrs().items() if key != name}
        with pytest.raises(CacheError, match=rf"not a valid {kind.__name__}: {name}: Field required"):
            kind.from_attrs(attrs, "here")


@pytest.mark.parametrize("bad", ["\x1b]0;mine\x07", "a\nb", "\u202egnp.exe", "\x9b2J"])
def test_the_reason_of_a_quarantine_never_reaches_a_terminal_unescaped(bad: str, tmp_path: Path) -> None:
    """Caches written before may hold such reasons, so they are escaped when they are read, and not refused."""
    attrs = through_zarr(tmp_path / "group", {**QUARANTINED.to_attrs(), "reason": f"points: {bad}"})
    reason = QuarantinedSample.from_attrs(attrs, "here").reason
    assert reason.isprintable() and reason.startswith("points: ") and bad not in reason
    assert QuarantinedSample.from_attrs({**attrs, "reason": reason}, "here").reason == reason


@pytest.mark.parametrize("kind", Document.__subclasses__(), ids=lambda kind: kind.__name__)
def test_a_document_cannot_be_changed(kind: type[Document], examples: dict[type[Document], Document]) -> None:
    name = next(iter(kind.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(examples[kind], name, "other")


@pytest.mark.parametrize("version", [0, 3, 17, "2"])
def test_another_schema_version_is_told_apart_from_damage(version: int | str, manifest: CacheManifest) -> None:
    attrs = {"schema_version": version, "fields_of": "another release"}
    with pytest.raises(SchemaVersionError, match=f"here: schema version {version!r}, .* reads versions 1 and 2.0"):
        CacheManifest.from_attrs(attrs, "here")
    with pytest.raises(SchemaVersionError, match=f"schema version {version!r}"):
        CacheManifest.from_attrs({**manifest.to_attrs(), "schema_version": version}, "here")


def test_a_nested_field_is_named_by_its_path(manifest: CacheManifest) -> None:
    attrs = manifest.to_attrs()
    attrs["teachers"]["sam"]["architecture"] = 7
    with pytest.raises(CacheError, match=r"teachers\.sam\.architecture: .*string \(got 7\)"):
        CacheManifest.from_attrs(attrs, "here")


def test_teachers_are_stored_as_a_flat_object(examples: dict[type[Document], Document]) -> None:
    """The order of the networks in memory does not show in the file."""
    teachers = examples[Teachers]
    assert isinstance(teachers, Teachers)
    flat = teachers.to_attrs()
    assert list(flat) == ["preset", "clip", "sam"]
    assert flat["sam"] == {"architecture": "sam-tiny", "weights": "untrained-7", "sha256": None}
    turned = Teachers(preset="tiny", networks=dict(reversed(teachers.networks.items())))
    assert list(turned.to_attrs()) == list(flat)


def test_a_network_that_makes_no_group_is_refused(examples: dict[type[Document], Document]) -> None:
    flat = examples[Teachers].to_attrs()
    for name in ("depth", "networks"):
        with pytest.raises(CacheError, match=rf"no group is made by a teacher '{name}'; the layout names clip, sam"):
            Teachers.from_attrs({**flat, name: flat["sam"]}, "here")


def test_a_missing_network_is_refused_by_name(examples: dict[type[Document], Document]) -> None:
    flat = examples[Teachers].to_attrs()
    del flat["sam"]
    with pytest.raises(CacheError, match="teacher 'sam' is missing"):
        Teachers.from_attrs(flat, "here")


def test_a_taxonomy_changed_behind_the_digest_is_refused(manifest: CacheManifest) -> None:
    attrs = manifest.to_attrs()
    attrs["taxonomy"]["classes"].reverse()
    with pytest.raises(CacheError, match=r"taxonomy_digest .* is not the digest of the class names"):
        CacheManifest.from_attrs(attrs, "here")


def test_the_ignore_id_is_always_255(manifest: CacheManifest) -> None:
    assert manifest.to_attrs()["ignore_id"] == 255
    with pytest.raises(CacheError, match="ignore_id"):
        CacheManifest.from_attrs({**manifest.to_attrs(), "ignore_id": 0}, "here")


def test_all_models_of_the_module_are_documents() -> None:
    """A model that is not a `Document` would not be in the round trip above."""
    import cache_schemas.documents as module

    models = {value for value in vars(module).values() if isinstance(value, type) and issubclass(value, BaseModel)}
    assert models - {BaseModel, Document, Taxonomy} == set(Document.__subclasses__())
