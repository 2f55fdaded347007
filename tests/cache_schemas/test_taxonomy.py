"""Taxonomies: the order of names is the meaning of ids, and bad lists of classes are refused."""

import pytest
from pydantic import ValidationError

from cache_schemas.errors import TaxonomyError
from cache_schemas.taxonomy import IGNORE, Taxonomy, TaxonomyClass, load_taxonomy


def make(*names: str, colour: tuple[int, int, int] = (1, 2, 3)) -> Taxonomy:
    return Taxonomy(name="toy", classes=tuple(TaxonomyClass(name=name, colour=colour) for name in names))


def test_nuscenes16_is_the_official_order_of_lidarseg_challenge_classes() -> None:
    taxonomy = load_taxonomy("nuscenes16")
    assert " ".join(taxonomy.names) == (
        "barrier bicycle bus car construction_vehicle motorcycle pedestrian traffic_cone trailer truck "
        "driveable_surface other_flat sidewalk terrain manmade vegetation"
    )
    assert taxonomy.name == "nuscenes16"
    assert taxonomy.colours[3] == (255, 158, 0)


def test_an_unknown_taxonomy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TaxonomyError, match=r"no taxonomy 'kitti19'; known: .*nuscenes16"):
        load_taxonomy("kitti19")


def test_names_and_colours_follow_id_order() -> None:
    classes = (TaxonomyClass(name="b", colour=(0, 0, 1)), TaxonomyClass(name="a", colour=(2, 0, 0)))
    taxonomy = Taxonomy(name="toy", classes=classes)
    assert taxonomy.names == ("b", "a")
    assert taxonomy.colours == ((0, 0, 1), (2, 0, 0))


def test_the_digest_is_the_sha256_of_the_json_list_of_names() -> None:
    # printf '["car", "road"]' | sha256sum
    assert make("car", "road").digest == "d903609b55c9b201b4638b1daf293f6132e4318e8a70473edc2b34a9dd202c4e"


def test_the_digest_changes_with_order_and_not_with_colour() -> None:
    assert make("car", "road").digest != make("road", "car").digest
    assert make("car", "road").digest == make("car", "road", colour=(9, 9, 9)).digest


def test_a_name_used_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="names a class twice"):
        make("car", "road", "car")


def test_every_id_but_ignore_can_be_a_class_and_no_more() -> None:
    assert IGNORE == 255
    assert len(make(*(f"c{index}" for index in range(255))).names) == 255
    with pytest.raises(ValidationError, match="at most 255"):
        make(*(f"c{index}" for index in range(256)))


def test_no_classes_or_a_class_without_a_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        make()
    with pytest.raises(ValidationError, match="at least 1 character"):
        make("")


@pytest.mark.parametrize("colour", [(256, 0, 0), (0, -1, 0), (0, 0)])
def test_a_colour_is_three_bytes(colour: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="colour"):
        Taxonomy.model_validate({"name": "mine", "classes": [{"name": "road", "colour": colour}]})
