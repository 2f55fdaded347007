"""The text of the audit: what it says, that it fits its width, and that a pipe gets plain text."""

import re
from pathlib import Path

import pytest

from cache_schemas.command_line import WIDTH_OUTSIDE_TERMINALS
from labelgen.inspection.audit import inspect_cache
from labelgen.inspection.report import QuarantineReason, Report, SampleCounts, Selection
from labelgen.inspection.showing.terminal import render_text
from labelgen.stages import STAGES


@pytest.fixture(scope="module")
def compared(ten_shards: str, without_truth: str) -> Report:
    """The report with most sections."""
    return inspect_cache(ten_shards, against=without_truth)


def words(text: str) -> str:
    """Return text with runs of whitespace as one space."""
    return " ".join(text.split())


def test_text_in_a_pipe_is_plain_and_the_same_in_any_environment(
    compared: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = render_text(compared)
    for name, value in {"COLUMNS": "40", "FORCE_COLOR": "1", "TERM": "dumb", "NO_COLOR": "1"}.items():
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            assert render_text(compared) == plain
    assert "\x1b" not in plain
    assert all(line == line.rstrip() and len(line) <= WIDTH_OUTSIDE_TERMINALS for line in plain.splitlines())


@pytest.mark.parametrize("width", [80, 120, 250])
def test_text_fits_the_terminal_and_nothing_is_cut_off(compared: Report, width: int) -> None:
    text = render_text(compared, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for sample in compared.worst_samples[:5]:
        assert sample.sample in text


def test_colours_change_no_word(compared: Report) -> None:
    coloured = render_text(compared, colours=True)
    assert "\x1b[" in coloured
    assert words(re.sub(r"\x1b\[[0-9;]*m", "", coloured)) == words(render_text(compared))


def test_the_text_says_what_the_report_says(ten_shards: str, without_truth: str, inspect) -> None:
    text = words(inspect(ten_shards, "--against", without_truth).stdout)
    for part in (
        "complete yes",
        "whole yes",
        "plausible LOOK: shards that are outliers: 1, see below",
        "shards 10 sealed, 0 unfinished, 0 with no usable sample",
        "s9-000 pixels under a mask 0.0% 100.0% -100.0",
        "car 50.0% -> 45.0% 100.0% -> 90.0% 100.0% -> 90.0%",
        "precision 0%, confused with car (100%)",
        "s9-0 s9-000 50.0% 33.3% 0.0 75.0% 0.0%",
        "... and 5 more, see --json",
        f"compared with {without_truth}, there -> here",
        "shards only here: 1, only there: 0",
        "bytes on disk",
    ):
        assert part in text


def test_every_stage_is_listed_with_its_description(ten_shards: str) -> None:
    text = words(render_text(inspect_cache(ten_shards)))
    assert [name for name, stage in STAGES.items() if f"{name} {stage.description}" not in text] == []
    assert f"sam {STAGES['sam'].description} 10 " in text, "it is sealed in ten shards"


def test_shards_with_changed_labels_are_listed(ten_shards: str, tmp_path: Path, make_cache, sample, inspect) -> None:
    better = make_cache(tmp_path / "better.zarr", {"s9": [sample()], "s1": [sample(), sample()]})
    text = words(inspect(better, "--against", ten_shards).stdout)
    assert "s9-000 50.0% 50.0%" in text
    assert "cannot be compared label by label: 1, holds other samples there" in text


def test_a_selection_is_announced_and_bytes_of_the_whole_cache_are_left_out(ten_shards: str) -> None:
    text = words(render_text(inspect_cache(ten_shards, Selection(class_name="tree", worst=2))))
    assert "ONLY samples with tree; the worst 2: all numbers below are of these samples" in text
    assert "bytes on disk" not in text


def test_a_cache_without_labels_has_a_text(empty: str, inspect) -> None:
    assert "complete NO: nothing is labelled yet" in words(inspect(empty).stdout)


def test_what_a_terminal_obeys_is_escaped(compared: Report) -> None:
    bell, reset = "\x07", "\x1bc"
    reason = QuarantineReason(sample="s", stage="images", reason=f"no file {reset}")
    hostile = compared.model_copy(
        update={
            "samples": SampleCounts(labelled=1, quarantined=1, reasons=(reason,)),
            "outliers": tuple(o.model_copy(update={"shard": f"s9{bell}"}) for o in compared.outliers),
            "worst_samples": tuple(s.model_copy(update={"shard": f"s9{reset}"}) for s in compared.worst_samples),
        }
    )
    text = render_text(hostile)
    assert all(line.isprintable() for line in text.splitlines())
    assert "no file \\x1bc" in text


def test_markup_in_class_names_is_only_text(tmp_path: Path, make_cache, sample) -> None:
    names = ("[red]car[/red]", ":car:", "[/]")
    text = render_text(inspect_cache(make_cache(tmp_path / "c.zarr", {"s": [sample()]}, names)))
    assert [name for name in names if name not in text] == []
