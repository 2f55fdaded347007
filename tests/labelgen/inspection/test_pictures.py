"""Pictures of the audit: confusion matrices, samples, clouds from above; and the rerun recording."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_schemas.taxonomy import Taxonomy, TaxonomyClass, load_taxonomy
from labelgen.inspection.report_statistics import Agreement, LabelScores
from labelgen.inspection.showing.confusion_picture import draw_agreement, row_shares
from labelgen.inspection.showing.instance_colours import PALETTE, instance_colours
from labelgen.inspection.showing.legend import BACKGROUND, alike_classes, draw_legend, number_regions
from labelgen.inspection.showing.top_view import draw_top_view

NAMES = ("car", "road")


def scores(*rows: tuple[int, int], miou: float | None = 0.5) -> LabelScores:
    by_class = dict.fromkeys(NAMES, 0.5)
    return LabelScores(
        miou=miou,
        accuracy=0.5,
        scored=1,
        iou=by_class,
        unlabelled=dict.fromkeys(NAMES, 0),
        class_accuracy=by_class,
        confusion=rows,
    )


def draw(raw: LabelScores, voted: LabelScores) -> np.ndarray:
    picture = draw_agreement(Agreement(truth=1, share=1.0, raw=raw, refined=voted), "pixels")
    assert picture is not None
    return picture


def is_blue(picture: np.ndarray) -> np.ndarray:
    """Return where a picture is clearly blue, as full cells are."""
    red, _, blue = np.moveaxis(picture.astype(int), -1, 0)
    return blue - red > 60


def test_raw_and_voted_labels_are_drawn_side_by_side() -> None:
    left, right = np.split(draw(scores((0, 0), (0, 0)), scores((5, 0), (0, 5))), 2, axis=1)
    assert not is_blue(left).any()
    assert is_blue(right).any()


def test_rows_are_true_classes() -> None:
    all_road, all_car = scores((0, 7), (0, 7)), scores((7, 0), (7, 0))
    columns = [
        np.flatnonzero(is_blue(panel).any(axis=0)).mean() for panel in np.split(draw(all_road, all_car), 2, axis=1)
    ]
    assert columns[0] > columns[1], "labels that are all road fill the right column, labels that are all car the left"


def test_a_class_without_truth_has_a_row_of_zeros() -> None:
    assert row_shares([[1, 3], [0, 0]]).tolist() == [[0.25, 0.75], [0, 0]]


def test_nothing_is_drawn_where_nothing_was_scored() -> None:
    nothing = scores((0, 0), (0, 0), miou=None)
    assert draw_agreement(Agreement(truth=1, share=1.0, raw=nothing, refined=nothing), "pixels") is None


def test_samples_and_confusions_are_drawn(ten_shards: str, tmp_path: Path, inspect) -> None:
    folder = tmp_path / "new" / "pictures"
    done = inspect(ten_shards, "--pictures", str(folder), "--show", "2")
    assert done.exit_code == 0, done.output
    names = [file.name for file in sorted(folder.iterdir())]
    assert names == ["confusion-image.png", "confusion-point.png", "s0-000-00.png", "s9-000-00.png"]
    with Image.open(folder / "s9-000-00.png") as picture:
        assert picture.width == 2 * 6, "two cameras side by side"


def test_a_cache_without_labels_has_no_pictures(empty: str, tmp_path: Path, inspect) -> None:
    assert inspect(empty, "--pictures", str(tmp_path / "pictures")).exit_code == 0
    assert list(tmp_path.rglob("*.png")) == []


def test_a_folder_that_cannot_be_written_is_one_error(ten_shards: str, tmp_path: Path, inspect) -> None:
    (tmp_path / "file").write_text("")
    done = inspect(ten_shards, "--pictures", str(tmp_path / "file" / "pictures"))
    assert done.exit_code == 1
    assert "cannot be written" in done.stderr


def test_in_a_view_from_above_x_points_right_and_high_points_hide_low_ones() -> None:
    classes = (TaxonomyClass(name="car", colour=(255, 0, 0)), TaxonomyClass(name="road", colour=(0, 0, 255)))
    xyz = np.array([[20, 0, 1], [20, 0, 0], [0, 30, 0], [90, 0, 0], [-90, 0, 0], [0, -90, 0]], np.float32)
    picture = draw_top_view(xyz, np.array([0, 1, 1, 1, 1, 1], np.uint8), Taxonomy(name="toy", classes=classes), 50)
    side = len(picture)
    red = np.argwhere((picture == (255, 0, 0)).all(axis=-1)).mean(axis=0)
    blue = np.argwhere((picture == (0, 0, 255)).all(axis=-1)).mean(axis=0)
    assert red == pytest.approx([side / 2, side * 0.7], abs=2), "20 m of 50 m to the right"
    assert blue == pytest.approx([side * 0.2, side / 2], abs=2), "30 m of 50 m up"


def test_a_view_from_above_of_a_room_is_around_its_middle() -> None:
    """Along y the origin lies among the points, as that of a sensor."""
    corners = np.array([[2, -3, 0], [8, -3, 0], [2, 5, 0], [8, 5, 0]], np.float32)
    classes = (TaxonomyClass(name="wall", colour=(255, 0, 0)),)
    picture = draw_top_view(corners, np.zeros(4, np.uint8), Taxonomy(name="toy", classes=classes), 10)
    drawn = np.argwhere((picture == (255, 0, 0)).all(axis=-1)) / len(picture)
    assert drawn.min(axis=0) == pytest.approx([0.25, 0.35], abs=0.01), "5 m of 20 m above the middle, 3 m left of it"
    assert drawn.max(axis=0) == pytest.approx([0.65, 0.65], abs=0.01)


def test_a_view_from_above_without_points_is_empty() -> None:
    classes = (TaxonomyClass(name="wall", colour=(255, 0, 0)),)
    nothing = np.zeros((0, 3), np.float32), np.zeros(0, np.uint8)
    assert (draw_top_view(*nothing, Taxonomy(name="toy", classes=classes), 10) == 255).all()


@pytest.mark.parametrize(
    ("taxonomy", "width"), [("semantickitti19", 736), ("nuscenes16", 416), ("scannet20", 320), ("scannet20", 2496)]
)
def test_no_name_of_a_legend_runs_into_the_next_class(taxonomy: str, width: int) -> None:
    classes = load_taxonomy(taxonomy)
    legend = draw_legend(classes, "paper", width)
    for name, colour in zip(classes.names, classes.colours, strict=True):
        row, col = np.argwhere((legend == colour).all(axis=-1)).T
        assert len(row) == (np.ptp(row) + 1) * (np.ptp(col) + 1) > 100, f"{name} has a whole swatch"
        before = legend[row.min() : row.max() + 1, max(0, col.min() - 4) : col.min()]
        assert (before == BACKGROUND).all(), f"nothing is drawn up to the swatch of {name}"
    assert (legend[:, -1] == BACKGROUND).all(), "no name is cut off"


def test_classes_of_similar_colours_are_found() -> None:
    names = load_taxonomy("nuscenes16").names
    alike = {names[class_id] for class_id in alike_classes(load_taxonomy("nuscenes16"))}
    assert {"car", "trailer", "construction_vehicle", "bus", "truck"} <= alike
    assert alike.isdisjoint({"pedestrian", "driveable_surface", "sidewalk", "vegetation", "manmade"})


def test_numbers_are_written_into_large_regions_of_the_classes_asked_for() -> None:
    ids = np.zeros((60, 120), np.uint8)
    ids[:, 40:80] = 1
    ids[:, 80:] = 2
    ids[5:9, 5:9] = ids[20:50, 5:35] = 2
    grey = np.full((60, 120, 3), 128, np.uint8)
    changed = (number_regions(grey, ids, [2]) != grey).any(axis=-1)
    assert changed[20:50, 5:35].any()
    assert changed[:, 80:].any()
    assert (ids[changed] == 2).all()
    assert not changed[:15, :40].any(), "a small region"


def towards(azimuths: list[float], reach_m: float) -> np.ndarray:
    """Return points (P, 3) at some azimuths in degrees."""
    angles = np.radians(azimuths)
    return np.stack([reach_m * np.cos(angles), reach_m * np.sin(angles), 0 * angles], axis=1).astype(np.float32)


def test_what_stands_in_front_of_an_instance_or_next_to_it_has_another_colour() -> None:
    """A wall of 60 degrees, and twelve people before, behind and beside it; 180 degrees is a column like all others."""
    wall = towards([*np.arange(150, 211, 0.5)], 20)
    places = [(160, 4), (180, 5), (200, 6), (175, 40), (190, 30), (148, 20), (212, 20), (146, 9), (214, 9), (0, 5)]
    people = [towards([azimuth, azimuth + 0.5], reach) for azimuth, reach in places]
    xyz = np.concatenate([wall, *people])
    instance = np.concatenate([np.ones(len(wall)), *(np.full(2, 2 + i) for i in range(len(people)))]).astype(np.uint16)
    colours = instance_colours(instance, xyz)
    of_wall, of_people = colours[0], colours[len(wall) :: 2]
    assert (colours[: len(wall)] == of_wall).all()
    assert not (of_people[:-1] == of_wall).all(axis=1).any()
    side_by_side = [tuple(of_people[i].tolist()) for i in (5, 7)]
    assert len(set(side_by_side)) == 2


def test_points_of_no_instance_are_black_and_few_colours_serve_many_instances() -> None:
    xyz = towards([*np.linspace(-179, 179, 500)], 10)
    instance = np.arange(500, dtype=np.uint16)
    colours = instance_colours(instance, xyz)
    assert (colours[0] == 0).all() and {tuple(c) for c in colours[1:].tolist()} == {tuple(c) for c in PALETTE.tolist()}
    assert (colours[1:-1] != colours[2:]).any(axis=1).all()
    assert instance_colours(np.zeros(2, np.uint16), xyz[:2]).tolist() == [[0] * 3] * 2
    assert instance_colours(np.zeros(0, np.uint16), xyz[:0]).shape == (0, 3)


def test_a_recording_can_be_opened(ten_shards: str, tmp_path: Path, inspect) -> None:
    rerun = pytest.importorskip("rerun", reason="the extra `rerun` is not installed")
    file = tmp_path / "a.rrd"
    done = inspect(ten_shards, "--rerun", str(file), "--show", "1")
    assert done.exit_code == 0, done.output
    assert rerun.__version__
    assert file.read_bytes()[:4] == b"RRF2"
