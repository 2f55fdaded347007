"""The audit's HTML page: one file that loads nothing, safe against names, complete."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest


class ParsedPage(HTMLParser):
    """Collects what a page would load, its text, and tags that were opened and not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open_tags: list[str] = []
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        if tag not in ("meta", "img", "br"):
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def text(self) -> str:
        """All text, runs of whitespace as one space."""
        return " ".join(" ".join(self.parts).split())


@pytest.fixture
def page(tmp_path: Path, inspect) -> Callable[..., ParsedPage]:
    """Write the page of a cache and parse it."""

    def write(*arguments: str) -> ParsedPage:
        done = inspect(*arguments, "--html", str(tmp_path / "new" / "report.html"))
        assert done.exit_code == 0, done.output
        parsed = ParsedPage()
        parsed.feed((tmp_path / "new" / "report.html").read_text())
        assert parsed.open_tags == []
        return parsed

    return write


def test_the_page_is_one_file_that_loads_nothing(ten_shards: str, page) -> None:
    parsed = page(ten_shards, "--show", "2")
    assert parsed.loads
    assert [load for load in parsed.loads if not load.startswith(("data:image/", "#"))] == []
    # Two samples of two cameras: picture, raw, masks, voted, truth, wrong, twice points; and two views from above each.
    assert len([load for load in parsed.loads if load.startswith("data:")]) == 2 * (2 * 8 + 2)


def test_the_page_shows_verdict_outliers_and_reasons(ten_shards: str, page) -> None:
    text = page(ten_shards, "--show", "2").text
    assert "complete: yes" in text
    assert "plausible: look" in text
    assert "The page shows 2 of 10 samples" in text
    assert "precision 0%, confused with car (100%)" in text
    assert "pixels under a mask: 0.0%, the median is 100.0%" in text
    assert "SAM masks as one id a pixel" in text


def test_the_page_compares_and_selects(ten_shards: str, page) -> None:
    text = page(ten_shards, "--against", ten_shards, "--class", "tree", "--worst", "1").text
    assert "Made with the same settings." in text
    assert "Only a selection: samples with tree; the worst 1." in text


def test_class_names_cannot_add_code_to_the_page(tmp_path: Path, make_cache, sample, page) -> None:
    names = ("<script>alert(1)</script>", 'road" onload="x', "tree&amp;")
    parsed = page(make_cache(tmp_path / "c.zarr", {"s": [sample()]}, names))
    assert [name for name in names if name not in parsed.text] == []


def test_a_cache_without_truth_has_a_page(without_truth: str, page) -> None:
    parsed = page(without_truth, "--show", "1")
    assert "Confusions" not in parsed.text
    assert "cameras disagree on" in parsed.text


def test_a_cache_without_labels_has_a_page(empty: str, page) -> None:
    assert "Nothing is labelled yet." in page(empty).text
