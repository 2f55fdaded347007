"""`labelgen plan`: what a run would do and take, forecast from a summary with known rates."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.fingerprints import recipe_of
from pipelines.forecast import Forecast, forecast
from pipelines.resolve import open_dataset, resolve
from pipelines.run import RunRequest
from tests.pipelines.conftest import small_settings


def request(made: Path, cache: Path, *overrides: str, **how: object) -> RunRequest:
    config = load_config("nuscenes", teachers="untrained", overrides=[*small_settings(made), *overrides])
    return RunRequest(config, made / "nuscenes", str(cache), **how)


def summarise(made: Path, cache: Path, **changes: object) -> None:
    """Write a summary of a run on 8 GPUs: SAM 0.5 s and CLIP 0.1 s a picture, twice the teachers' work in wall time."""
    config = request(made, cache).config
    resolved = resolve(config, open_dataset("nuscenes", made / "nuscenes"))
    summary = {
        "finished": "2026-01-02T03:04:05+00:00",
        "gpus": 8.0,
        "teacher_recipes": {name: recipe_of(name, resolved) for name in ("clip", "sam")},
        "stage_seconds": {"sam": 50.0, "clip": 10.0, "labels": 1.0},
        "stage_pictures": {"sam": 100, "clip": 100, "labels": 100},
        "wall_over_teachers": 2.0,
        "later_field": 1,
    }
    (cache / "summary.json").write_text(json.dumps(summary | changes))


def test_an_absent_cache_has_all_to_do_and_nothing_is_made(made: Path, tmp_path: Path) -> None:
    found = forecast(request(made, tmp_path / "new.zarr"))
    assert (found.shards_due, found.shards_up_to_date, found.samples, found.pictures) == (3, 0, 5, 30)
    assert found.root_groups == ("text",)
    assert (found.wall_seconds, found.gpu_hours, found.bytes, found.measured) == (None, None, None, None)
    assert "hours: unknown" in found.render(100)
    assert list(tmp_path.iterdir()) == []


def test_the_parts_of_an_array_job_are_forecast_each_by_itself(made: Path, tmp_path: Path, labelgen_here) -> None:
    found = [forecast(request(made, tmp_path / "new.zarr", part=(number, 2))) for number in (1, 2)]
    assert [part.shards_due for part in found] == [2, 1]
    assert sum(part.samples for part in found) == 5
    options = ["--dataset", "nuscenes", "--data", str(made / "nuscenes"), "--cache", str(tmp_path / "new.zarr")]
    done = labelgen_here("plan", *options, "--teachers", "untrained", "--part", "2/2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shards_due"] == 1


def test_a_finished_cache_has_nothing_to_do(made: Path, cache: Path) -> None:
    found = forecast(request(made, cache))
    assert (found.shards_due, found.shards_up_to_date, found.groups) == (0, 3, {})


def due_clip(made: Path, cache: Path) -> Forecast:
    """Forecast a run with another list of prompts, which redoes CLIP and the labels of all 30 pictures."""
    return forecast(request(made, cache, "images.width=112", "prompts=nuscenes-paper"))


def test_rates_of_other_settings_are_not_used(made: Path, cache: Path) -> None:
    summarise(made, cache)
    assert due_clip(made, cache).groups["clip"].teacher_seconds is None
    assert due_clip(made, cache).wall_seconds is None


def test_the_rates_of_the_last_run_give_hours(made: Path, cache: Path) -> None:
    summarise(made, cache)
    shutil.rmtree(cache / "shards" / "scene-0103-000" / "sam")  # two samples with six pictures each
    found = forecast(request(made, cache))
    assert set(found.groups) == {"sam"}
    assert found.groups["sam"].teacher_seconds == pytest.approx(12 * 0.5)
    assert found.wall_seconds == pytest.approx(12 * 0.5 * 2)
    assert found.gpu_hours == pytest.approx(12 * 8 / 3600)
    assert found.measured == "2026-01-02T03:04:05+00:00"


def test_bytes_are_those_of_the_samples_that_are_sealed(made: Path, cache: Path) -> None:
    folder = cache / "shards" / "scene-0103-000" / "images"
    shutil.rmtree(folder)
    found = forecast(request(made, cache))
    assert found.groups["images"].bytes == pytest.approx(2 * 6 * 64 * 112 * 3, rel=0.02)  # raw bytes and checksums


def test_a_summary_that_cannot_be_read_is_unknown(made: Path, cache: Path) -> None:
    summarise(made, cache, gpus="many")
    assert forecast(request(made, cache)).measured is None
