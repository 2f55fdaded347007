"""The audit against hand counts: statistics, what stands out, classes and why, narrowing, comparison, the page."""

import json
import re
import runpy
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from labelgen.cli import main
from labelgen.inspection import statistics
from labelgen.inspection.statistics import best_ious, count_together

CAR, ROAD, TREE = 0, 1, 2
NAMES = ("car", "road", "tree")
LEFT = np.arange(6) < 3
"""The left half of a picture; broadcasts over rows."""

make_cache = runpy.run_path(str(Path(__file__).with_name("make_cache.py")))["make_cache"]


def sample(**changes: Any) -> dict[str, Any]:
    """Half car, half road; the vote and the truth agree, raw labels call a quarter of the road a tree."""
    road = np.where(np.arange(4)[:, None] < 2, TREE, ROAD)
    halves = np.where(LEFT, CAR, ROAD)
    return {
        "raw": np.where(LEFT, CAR, road),
        "voted": halves,
        "masks": np.where(LEFT, 2, 1),
        "truth": halves,
        "logits": np.array([1.0, 0.0, 0.0])[:, None, None],
        **changes,
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten shards of one sample; all alike but `s9`, which has no masks and calls every car a tree."""
    odd = sample(masks=0, voted=np.where(LEFT, TREE, ROAD))
    return make_cache(
        tmp_path_factory.mktemp("ten") / "c.zarr", {f"s{i}": [odd if i == 9 else sample()] for i in range(10)}, NAMES
    )


def inspect(*arguments: str) -> Result:
    """Run `labelgen inspect`."""
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def report(*arguments: str) -> dict[str, Any]:
    """Return what `labelgen inspect --json` prints."""
    done = inspect(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_labels_are_counted_before_and_after_the_vote(cache: str) -> None:
    found = report(cache)
    labels = found["labels"]["image"]
    # 10 samples x 48 pixels, half of them car in raw labels; a quarter of all is road called tree.
    assert labels["raw"] == {"car": 240, "road": 120, "tree": 120, "ignore": 0}
    assert labels["refined"] == {"car": 216, "road": 240, "tree": 24, "ignore": 0}
    # The vote changes 12 pixels of each sample, and in s9 the 24 of cars as well.
    assert labels["changed"] == pytest.approx((9 * 12 + 36) / 480)
    assert np.array(labels["flow"])[TREE].tolist() == [0, 120, 0, 0]


def test_views_masks_and_scores_are_counted(cache: str) -> None:
    found = report(cache, "--sample", "s0-0")
    assert found["points"]["by_cameras"] == {"0": 1, "1": 2, "2+": 1}
    assert found["points"]["pairs"] == 4
    # Points 0 and 1 lie on cars, point 2 at column 3 on the road; (1, 1) and (2, 2) are both car.
    assert found["points"]["camera_disagreement"] == 0
    assert found["points"]["pair_agreement"] == 1
    assert found["masks"]["per_image"] | {"histogram": 0} == {"mean": 2, "min": 2, "max": 2, "histogram": 0}
    assert found["masks"]["covered_share"] == 1
    assert [part["masks"] for part in found["masks"]["by_share"]] == [0] * 8 + [4]
    assert found["scores"]["entropy"]["mean"] == pytest.approx(0, abs=1e-6)
    assert found["scores"]["margin"]["histogram"][-1] == found["scores"]["patches"] == 4


def test_scores_that_know_nothing_have_full_entropy(tmp_path: Path) -> None:
    found = report(make_cache(tmp_path / "c.zarr", {"s": [sample(logits=0.2)]}, NAMES))
    assert found["scores"]["entropy"]["mean"] == pytest.approx(1, abs=1e-6)
    assert found["scores"]["margin"]["mean"] == 0


def test_cameras_that_see_a_point_differently_disagree(tmp_path: Path) -> None:
    voted = np.stack([np.full((4, 6), CAR), np.full((4, 6), TREE)])
    found = report(make_cache(tmp_path / "c.zarr", {"s": [sample(voted=voted)]}, NAMES))
    assert found["points"]["camera_disagreement"] == 1
    assert found["points"]["pair_agreement"] == pytest.approx(3 / 4), "the second camera of point 1 says tree"


def test_shards_that_stand_out_are_named_with_the_reason(cache: str) -> None:
    found = report(cache)
    assert {entry["shard"] for entry in found["suspicious"]} == {"s9-000"}
    reasons = {entry["measure"]: (entry["value"], entry["usual"]) for entry in found["suspicious"]}
    assert reasons["masked"] == (0, 1)
    assert reasons["changed"] == (0.75, 0.25)
    printed = inspect(cache).stdout
    assert "plausible LOOK: 1 shards stand out" in printed
    assert "s9-000: pixels under a mask: 0.0%, where 100.0% is usual" in printed


def test_shards_that_differ_as_shards_do_are_not_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shards = {f"s{i}": [sample(voted=np.where(rng.random((2, 4, 6)) < 0.5, CAR, ROAD))] for i in range(12)}
    found = report(make_cache(tmp_path / "c.zarr", shards, NAMES))
    assert [e for e in found["suspicious"] if e["measure"] in ("changed", "main_class", "class_mix")] == []


def test_classes_come_worst_first_with_what_where_and_why(cache: str) -> None:
    worst, *others = report(cache)["classes"]
    assert worst["name"] == "tree"
    assert worst["voted_iou"] == 0
    assert worst["takes"] == [["car", 1.0]], "all that is called tree is car"
    assert worst["shards"] == [["s9-000", None, 1.0, "car labelled tree"]], (
        "and all of it is in s9, where truth has no tree"
    )
    car = next(entry for entry in others if entry["name"] == "car")
    assert car["taken_for"] == [["tree", pytest.approx(0.1)]]
    assert car["voted_iou"] == pytest.approx(0.9)
    assert "10% of it is missed, taken for tree (10%)" in car["reason"]
    assert "the vote costs it 10.0% IoU" in car["reason"]


def test_samples_come_worst_first_and_worst_narrows_all(cache: str) -> None:
    found = report(cache, "--worst", "2")
    assert found["worst_samples"][0]["sample"] == "s9-0"
    assert found["labels"]["image"]["refined"] == {"car": 24, "road": 48, "tree": 24, "ignore": 0}
    assert "the worst 2: all that follows is about these" in inspect(cache, "--worst", "2").stdout


def test_without_truth_what_stands_out_comes_first(tmp_path: Path) -> None:
    blind = {key: value for key, value in sample().items() if key != "truth"}
    shards = {f"s{i}": [{**blind, "masks": 0} if i == 4 else blind] for i in range(9)}
    found = report(make_cache(tmp_path / "c.zarr", shards, NAMES))
    assert found["worst_samples"][0]["shard"] == "s4-000"
    assert found["classes"] == []


def test_a_class_narrows_to_the_samples_that_have_it(tmp_path: Path) -> None:
    plain = sample(raw=np.where(LEFT, CAR, ROAD))
    cache = make_cache(tmp_path / "c.zarr", {"a": [plain, sample()], "b": [plain]}, NAMES)
    found = report(cache, "--class", "tree")
    assert [entry["sample"] for entry in found["worst_samples"]] == ["a-1"]
    printed = inspect(cache, "--class", "tree").stdout
    assert re.search(r"^tree .*12\.|^tree .*25\.0%", printed, re.MULTILINE)
    assert not re.search(r"^car ", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [("--class", "lorry", "it has car, road, tree"), ("--sample", "nobody", "ids of samples are in")],
)
def test_what_is_not_in_the_cache_is_one_error(cache: str, option: str, value: str, fix: str) -> None:
    done = inspect(cache, option, value)
    assert done.exit_code == 1
    assert repr(value) in done.stderr
    assert fix in done.stderr


def test_a_damaged_shard_is_named_and_the_rest_is_reported(cache: str, tmp_path: Path) -> None:
    cache = str(shutil.copytree(cache, tmp_path / "c.zarr"))
    (chunk,) = Path(cache, "shards/s3-000/sam/mask_ids/c").rglob("0/0/0")
    chunk.write_bytes(chunk.read_bytes()[:-9])
    done = inspect(cache, "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert [entry["shard"] for entry in found["damaged"]] == ["s3-000"]
    assert "s3-000/sam" in found["verdict"]["whole"][0]
    assert len(found["by_shard"]) == 9


def test_a_cache_against_itself_has_not_changed(cache: str) -> None:
    against = report(cache, "--against", cache)["against"]
    assert against["settings"] == {}
    assert against["moved"]["image"] == {"share": 0, "moves": []}
    assert {entry["image"] for entry in against["by_shard"]} == {0}


def test_two_caches_are_compared_by_class_and_by_shard(cache: str, tmp_path: Path) -> None:
    shards = {"s0": [sample()], "s9": [sample()], "new": [sample()], "s1": [sample(), sample()]}
    better = make_cache(tmp_path / "better.zarr", shards, NAMES)
    against = report(better, "--against", cache)["against"]
    assert against["moved"]["image"]["moves"] == [{"from": "tree", "to": "car", "count": 24}]
    assert against["moved"]["image"]["share"] == pytest.approx(24 / 96)
    assert against["by_shard"][0] == {"shard": "s9-000", "image": 0.5, "point": 0.5, "reason": None}
    assert {"shard": "s1-000", "image": None, "point": None, "reason": "holds other samples there"} in against[
        "by_shard"
    ]
    assert against["only_here"] == ["new-000"]
    assert len(against["only_there"]) == 7
    assert against["classes"]["car"]["image"]["iou"] == {"here": 1, "there": pytest.approx(0.9)}
    assert "s9-000: 50.0% of its pixels changed" in inspect(better, "--against", cache).stdout


def test_caches_of_other_classes_are_not_compared(cache: str, tmp_path: Path) -> None:
    other = make_cache(tmp_path / "other.zarr", {"s": [sample()]}, ("car", "road", "sky"))
    done = inspect(cache, "--against", other)
    assert done.exit_code == 1
    assert "compare caches of one taxonomy" in done.stderr


class Links(HTMLParser):
    """Collects what a page would load, its text, and tags that were opened and not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., Links]:
    """Write the page of a cache and parse it."""

    def write(*arguments: str) -> Links:
        done = inspect(*arguments, "--html", str(tmp_path / "new" / "report.html"))
        assert done.exit_code == 0, done.output
        links = Links()
        links.feed((tmp_path / "new" / "report.html").read_text())
        assert links.open == []
        return links

    return write


def test_the_page_is_one_file_that_loads_nothing(cache: str, page: Callable[..., Links]) -> None:
    links = page(cache, "--show", "2")
    assert links.loads
    assert [load for load in links.loads if not load.startswith(("data:image/", "#"))] == []
    # Two samples of two cameras: picture, raw, masks, voted, truth, wrong, twice points; and two clouds each.
    assert len([load for load in links.loads if load.startswith("data:")]) == 2 * (2 * 8 + 2)
    text = " ".join(" ".join(links.text).split())
    assert "complete: yes" in text
    assert "2 of 10 are shown" in text
    assert "plausible: look" in text
    assert "100% of its label is wrong, lying on car (100%)" in text


def test_the_page_compares_and_narrows(cache: str, page: Callable[..., Links]) -> None:
    text = " ".join(page(cache, "--against", cache, "--class", "tree", "--worst", "1").text)
    assert "Made under the same settings." in text
    assert "with tree" in text


def test_class_names_cannot_write_into_the_page(tmp_path: Path, page: Callable[..., Links]) -> None:
    names = ("<script>alert(1)</script>", 'road" onload="x', "tree&amp;")
    links = page(make_cache(tmp_path / "c.zarr", {"s": [sample()]}, names))
    assert names[0] in "".join(links.text)
    assert names[2] in "".join(links.text)


def test_a_cache_without_labels_still_has_a_report_and_a_page(tmp_path: Path, page: Callable[..., Links]) -> None:
    cache = make_cache(tmp_path / "c.zarr", {}, NAMES)
    assert "complete  NO: nothing is labelled yet" in inspect(cache).stdout
    assert "Nothing is labelled yet." in " ".join(page(cache).text)


def test_a_recording_can_be_opened(cache: str, tmp_path: Path) -> None:
    rerun = pytest.importorskip("rerun", reason="the extra `rerun` is not installed")
    file = tmp_path / "a.rrd"
    done = inspect(cache, "--rerun", str(file), "--show", "1")
    assert done.exit_code == 0, done.output
    assert rerun.__version__
    assert file.read_bytes()[:4] == b"RRF2"


def test_best_iou_of_each_truth_segment_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SMALLEST_SEGMENT_PX", 2)
    segments = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 3, 2]], np.uint16)
    masks = np.array([[7, 7, 0, 5], [7, 0, 0, 5], [7, 7, 5, 5]], np.uint16)
    # Segment 1: 4 px, mask 7 has 5, 3 shared: 3/6. Segment 2: 5 px, mask 5 has 4, 3 shared: 3/6. Segment 3: too small.
    assert best_ious(segments, masks).tolist() == [[0.5, 0.5], [4 / 12, 5 / 12]]


def test_a_segment_under_no_mask_scores_nothing() -> None:
    segments = np.ones((20, 20), np.uint16)
    assert best_ious(segments, np.zeros((20, 20), np.uint16)).tolist() == [[0.0], [1.0]]
    assert best_ious(segments, segments).tolist() == [[1.0], [1.0]]
    assert best_ious(np.zeros((20, 20), np.uint16), segments).tolist() == [[], []]


def test_ids_that_are_no_class_are_refused() -> None:
    with pytest.raises(ValueError, match="label id 3 is neither below 3 nor 255"):
        count_together(np.array([0, 3], np.uint8), np.array([0, 0], np.uint8), 3)
