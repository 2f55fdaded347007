"""docs/generate_reference.py: its pages are up to date, and name what they should."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from docs import generate_reference


def test_the_pages_are_up_to_date() -> None:
    result = CliRunner().invoke(generate_reference.main, ["--check"])
    assert result.exit_code == 0, result.output


def test_check_names_a_stale_page_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_reference, "FOLDER", tmp_path)
    (tmp_path / "cli.md").write_text("an older page")
    result = CliRunner().invoke(generate_reference.main, ["--check"])
    assert result.exit_code == 1
    assert str(tmp_path / "cli.md") in result.output and "make reference" in result.output
    assert (tmp_path / "cli.md").read_text() == "an older page"
    CliRunner().invoke(generate_reference.main, [])
    assert CliRunner().invoke(generate_reference.main, ["--check"]).exit_code == 0


def test_a_row_has_key_type_range_default_and_values() -> None:
    page = generate_reference.settings_page()
    assert "| `sam.points_per_side` | int, >= 1 | `32` | `32` | `20` |" in page
    assert "| `clip.key_smoothing` | float or null, > 0, <= 1 | - | - | - |" in page


def test_attributes_of_a_docstring_become_meanings() -> None:
    class Example(BaseModel):
        """What is read.

        Attributes:
            width: of a picture,
                in pixels.
            depth: in metres.
        """

        width: int = 3
        depth: float

    title, text, table = generate_reference._section(Example, "read.", {"demo": {"width": 3, "depth": 1.5}})
    assert (title, text) == ("### `read`", "What is read.")
    assert table.splitlines()[2:] == [
        "| `read.width` | int | `3` | `3` | of a picture, in pixels. |",
        "| `read.depth` | float | required | `1.5` | in metres. |",
    ]


def test_every_command_has_its_section() -> None:
    page = generate_reference.cli_page()
    for command in ("labelgen run", "labelgen demo make", "labelgen weights fetch", "trainer fit", "trainer predict"):
        assert f"\n### {command}\n" in page
