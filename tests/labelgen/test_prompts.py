"""Prompt sets: the shipped ones, their sentences and digests, and files that are refused."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import open_clip
import pytest
import yaml

from cache_schemas.taxonomy import Taxonomy, TaxonomyClass
from labelgen.errors import PromptsError
from labelgen.prompts import PromptSet, load_prompts

Refused = Callable[..., AbstractContextManager[None]]
Write = Callable[..., str]

CLIP2SCENE_NAMES = [
    *("barrier", "bicycle", "bus", "car", "construction vehicle", "motorcycle", "pedestrian", "traffic_cone"),
    *("trailer", "truck", "driveable surface", "other_flat", "sidewalk", "terrain", "manmade", "vegetation"),
]


@pytest.fixture
def street() -> Taxonomy:
    """Two classes: car, road."""
    return Taxonomy(name="street", classes=tuple(TaxonomyClass(name=n, colour=(0, 0, 1)) for n in ("car", "road")))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a prompt file, valid except for the given changes, and returns its path."""

    def write(**changes: object) -> str:
        valid = {"templates": ["a {}."], "classes": {"car": ["car", "van"], "road": ["road"]}}
        document = {key: value for key, value in (valid | changes).items() if value is not None}
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return str(path)

    return write


# Shipped sets


@pytest.mark.parametrize("name", ["nuscenes-paper", "nuscenes-improved"])
def test_shipped_sets_have_85_templates_and_the_16_classes_in_order(name: str, taxonomy: Taxonomy) -> None:
    prompts = load_prompts(name, taxonomy)
    assert prompts.name == name
    assert tuple(prompts.class_names) == taxonomy.names
    assert len(set(prompts.templates)) == len(prompts.templates) == 85
    assert prompts.templates[0] == "a bad photo of a {}."
    assert prompts.templates[80:] == (
        "there is a {} in the scene.",
        "there is the {} in the scene.",
        "this is a {} in the scene.",
        "this is the {} in the scene.",
        "this is one {} in the scene.",
    )


def test_the_85_templates_are_openais_80_and_five_about_scenes(taxonomy: Taxonomy) -> None:
    openai = {template("\0").replace("\0", "{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES}
    assert len(openai) == 80
    assert set(load_prompts("nuscenes-paper", taxonomy).templates[:80]) == openai


def test_the_paper_set_has_one_name_a_class_as_clip2scene_wrote_them(taxonomy: Taxonomy) -> None:
    names = load_prompts("nuscenes-paper", taxonomy).class_names.values()
    assert [list(words) for words in names] == [[name] for name in CLIP2SCENE_NAMES]


def test_the_improved_set_says_road_for_driveable_surface(taxonomy: Taxonomy) -> None:
    names = load_prompts("nuscenes-improved", taxonomy).class_names
    assert "road" in names["driveable_surface"]
    assert "driveable surface" not in names["driveable_surface"]


# Sentences


def test_sentences_put_every_name_in_every_template() -> None:
    prompts = PromptSet("street", {"car": ("car", "van"), "road": ("road",)}, ("a {}.", "the {} here"))
    assert prompts.sentences() == [["a car.", "the car here", "a van.", "the van here"], ["a road.", "the road here"]]


def test_braces_around_other_words_stay_as_they_are() -> None:
    assert PromptSet("street", {"car": ("car",)}, ("a {} {here} {0}",)).sentences() == [["a car {here} {0}"]]


def test_a_file_is_read_by_path_and_its_classes_come_in_taxonomy_order(write: Write, street: Taxonomy) -> None:
    prompts = load_prompts(write(classes={"road": ["road"], "car": ["car", "van"]}), street)
    assert list(prompts.class_names) == ["car", "road"]
    assert prompts == PromptSet("mine", {"car": ("car", "van"), "road": ("road",)}, ("a {}.",))
    assert prompts.sentences() == [["a car.", "a van."], ["a road."]]


def test_a_file_may_name_a_shipped_template_list(write: Write, street: Taxonomy) -> None:
    prompts = load_prompts(write(templates="maskclip85"), street)
    assert [len(sentences) for sentences in prompts.sentences()] == [2 * 85, 85]


# Digests


def test_the_digest_follows_words_and_templates_and_not_the_files_name_or_order(write: Write, street: Taxonomy) -> None:
    base = load_prompts(write(), street).digest
    assert load_prompts(write(classes={"road": ["road"], "car": ["car", "van"]}), street).digest == base
    assert PromptSet("another", {"car": ("car", "van"), "road": ("road",)}, ("a {}.",)).digest == base
    changed = [
        load_prompts(write(classes={"car": ["car"], "road": ["road"]}), street).digest,
        load_prompts(write(classes={"car": ["van", "car"], "road": ["road"]}), street).digest,
        load_prompts(write(classes={"car": ["car"], "road": ["van", "road"]}), street).digest,
        load_prompts(write(templates=["the {}."]), street).digest,
        load_prompts(write(templates=["a {}.", "the {}."]), street).digest,
    ]
    assert len({base, *changed}) == 6


# What can be wrong


def test_a_missing_file_lists_the_shipped_sets(street: Taxonomy, refused: Refused) -> None:
    with refused(PromptsError, "'nuscenes-papers'", "no such file", "nuscenes-improved, nuscenes-paper"):
        load_prompts("nuscenes-papers", street)


@pytest.mark.parametrize(
    "raw", [b"classes: [car", b"a: b: c", b"\xff\xfe\x00"], ids=["open list", "two colons", "bytes"]
)
def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path, street: Taxonomy, raw: bytes, refused: Refused) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(raw)
    with refused(PromptsError, path, "not YAML"):
        load_prompts(str(path), street)


@pytest.mark.parametrize("text", ["", "- car\n- road\n", "car"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, street: Taxonomy, text: str, refused: Refused) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with refused(PromptsError, path, "a prompt file is a mapping"):
        load_prompts(str(path), street)


@pytest.mark.parametrize(
    "changes",
    [{"classes": None}, {"templates": None}, {"classes": ["car"]}, {"templates": 3}, {"templates": []}],
    ids=str,
)
def test_classes_and_templates_must_be_there(
    write: Write, street: Taxonomy, changes: dict[str, object], refused: Refused
) -> None:
    path = write(**changes)
    with refused(PromptsError, path, "needs `classes:` (a mapping) and `templates:`"):
        load_prompts(path, street)


def test_an_unknown_template_list_names_the_known_one(write: Write, street: Taxonomy, refused: Refused) -> None:
    path = write(templates="maskclip86")
    with refused(PromptsError, path, "'maskclip86'", "known: maskclip85"):
        load_prompts(path, street)


@pytest.mark.parametrize("template", ["a photo", "a {} and a {}", "a { }", 7], ids=str)
def test_a_template_must_have_one_place_for_the_name(
    write: Write, street: Taxonomy, template: object, refused: Refused
) -> None:
    path = write(templates=["a {}.", template])
    with refused(PromptsError, path, repr(template), "{} once"):
        load_prompts(path, street)


@pytest.mark.parametrize("names", ["road", [], [""], ["road", 3], None], ids=str)
def test_a_class_needs_a_list_of_names(write: Write, street: Taxonomy, names: object, refused: Refused) -> None:
    path = write(classes={"car": ["car"], "road": names})
    with refused(PromptsError, path, "'road'", repr(names), "at least one name"):
        load_prompts(path, street)


def test_missing_and_foreign_classes_are_both_named(write: Write, street: Taxonomy, refused: Refused) -> None:
    path = write(classes={"car": ["car"], "tree": ["tree"], 8: ["eight"]})
    with refused(PromptsError, path, "3 classes, taxonomy street has 2", "lacks road", "adds tree, 8"):
        load_prompts(path, street)


def test_prompts_for_another_taxonomy_are_refused(write: Write, street: Taxonomy, refused: Refused) -> None:
    path = write(taxonomy="rooms")
    with refused(PromptsError, path, "'rooms'", "not street"):
        load_prompts(path, street)
    assert load_prompts(write(taxonomy="street"), street).name == "mine"


@pytest.mark.parametrize("again", ["van", "Van", " VAN "])
def test_one_name_for_two_classes_is_refused(write: Write, street: Taxonomy, again: str, refused: Refused) -> None:
    path = write(classes={"car": ["car", "van"], "road": ["road", again]})
    with refused(PromptsError, path, repr(again), "class 'car'", "class 'road'", "to one class"):
        load_prompts(path, street)


def test_a_repeated_key_is_refused(tmp_path: Path, street: Taxonomy, refused: Refused) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("templates: ['a {}.']\nclasses:\n  car: [car]\n  road: [road]\n  car: [bus]\n")
    with refused(PromptsError, path, "the key 'car' is there twice", "line 5"):
        load_prompts(str(path), street)


def test_files_are_read_as_utf_8_in_any_locale(
    tmp_path: Path, street: Taxonomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io, "text_encoding", lambda encoding, stacklevel=2: encoding or "latin-1")
    path = tmp_path / "mine.yaml"
    path.write_bytes("templates: ['a {}.']\nclasses: {car: [\u8eca], road: [stra\u00dfe]}\n".encode())
    assert load_prompts(str(path), street).class_names == {"car": ("\u8eca",), "road": ("stra\u00dfe",)}


def test_a_sentence_that_clip_would_cut_off_names_class_and_sentence(
    write: Write, street: Taxonomy, refused: Refused
) -> None:
    from types import SimpleNamespace

    from labelgen.settings import ClipSettings
    from labelgen.stages import STAGES
    from labelgen.stages.stage import TeacherCall
    from labelgen.teachers.clip.teacher import ClipTeacher

    steps = STAGES["text"].build
    assert isinstance(steps, TeacherCall)
    teacher = ClipTeacher(ClipSettings(architecture="tiny-vit-16", weights="untrained:0"))
    long = "a photo " + "of the city " * 30 + "with a {}."
    for templates, fits in ((["a {}."], True), (["a {}.", long], False)):
        prompts = load_prompts(write(templates=templates), street)
        inputs: Any = SimpleNamespace(resolved=SimpleNamespace(prompts=prompts))
        if fits:
            assert steps.receive(teacher, inputs, None) == prompts.sentences()
            continue
        with refused(PromptsError, "class 'car'", long.replace("{}", "car"), "shorten this sentence"):
            steps.receive(teacher, inputs, None)
