"""The script for a GPU runs from end to end on a CPU at tiny sizes, and its page says what was measured."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_check.page import write_page
from benchmarks.pack_for_gpu import read_packages, transfers

REPOSITORY = Path(__file__).parents[2]
LABELGEN = [sys.executable, "-m", "labelgen.cli"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of all stages on a demo world of two scenes."""
    folder = tmp_path_factory.mktemp("gpu")
    world, cache, found = folder / "demo", folder / "demo.zarr", folder / "results"
    run = [*LABELGEN, "run", "--dataset", "demo", "--data", str(world), "--cache", str(cache)]
    for command in (
        [*LABELGEN, "demo", "make", "--out", str(world), "--scenes", "2"],
        [*run, "--preset", "paper", "--set", "sam.points_per_side=4"],
        [sys.executable, "-m", "benchmarks.gpu_check", "--minutes", "10", "--device", "cpu", "--sizes", "tiny"]
        + ["--world", str(world), "--cache", str(cache), "--out", str(found)],
    ):
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=_environment())
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return found


def _environment() -> dict[str, str]:
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def _figures(results: Path, stage: str) -> dict[str, Any]:
    record = json.loads((results / f"{stage}.json").read_text())
    assert record["state"] == "done"
    figures: dict[str, Any] = record["figures"]
    assert not [name for name in figures if name.endswith((", failed", ", skipped"))], figures
    return figures


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_every_stage_measures_what_the_page_shows(results: Path) -> None:
    assert _figures(results, "environment")["device"] == "CPU"
    sam = _figures(results, "sam")
    assert sam["tiny"]["ms_an_image"] > 0
    assert sam["agreement of float32"]["mean_iou"] == sam["agreement of float32"]["equal_pixels"] == 1
    assert 0.9 < sam["agreement of bfloat16"]["mean_iou"] <= 1
    assert _figures(results, "clip")["batch 2"]["images_a_second"] > 0
    dense = _figures(results, "dense_clip")
    assert [found["settings"] for found in dense.values()] == [
        *("", "clip.scope=sam", ""),
        *("clip.window=224 clip.stride=112", "clip.window=224 clip.stride=112 clip.scope=sam"),
    ]
    training = _figures(results, "training")
    assert training["step"]["ms"]["whole step"] > training["step"]["ms"]["2D forward"]
    assert training["curves"]["within_tolerance"]
    assert training["resume"]["steps"] == training["curves"]["steps"]
    assert _figures(results, "sparse")["small, TF32 off"]["within_tolerance"]
    run = _figures(results, "run")
    assert run["run"]["samples_labelled"] == 1
    assert run["second run"] == {"exit_code": 0, "shards_done": 0}
    page = (results / "gpu.md").read_text()
    assert f"| tiny | {sam['tiny']['ms_an_image']:,.1f} |" in page
    assert "not measured" not in page.lower()


def test_the_committed_page_is_written_from_the_committed_figures(tmp_path: Path) -> None:
    write_page(REPOSITORY / "docs/results/gpu", tmp_path / "gpu.md")
    assert (tmp_path / "gpu.md").read_text() == (REPOSITORY / "docs/results/gpu.md").read_text()


def test_an_interrupted_stage_keeps_its_figures_and_its_state_is_on_the_page(tmp_path: Path) -> None:
    record = {"stage": "clip", "state": "stopped after 9 s", "seconds": 9.0}
    figures = {"batch 6": {"ms_an_image": 2.0, "images_a_second": 500.0, "peak_memory_gb": None, "bytes_an_image": 1e6}}
    (tmp_path / "clip.json").write_text(json.dumps({**record, "figures": figures}))
    write_page(tmp_path, tmp_path / "gpu.md")
    page = (tmp_path / "gpu.md").read_text()
    assert "| clip | stopped after 9 s | 9 |" in page
    assert "| 6 | 500.0 | 2.00 | - |" in page
    assert "| CLIP ViT-B/16 | 0.1 | 205 |" in page  # 204,894 pictures of 2 ms and 1 MB


def test_windows_are_shown_beside_one_picture_and_beside_sam(tmp_path: Path) -> None:
    sam = {"ms_an_image": 80.0, "stages_ms_an_image": {}, "stock_ms_an_image": 1.0, "ratio": 1.0, "first_call_s": 1.0}
    sam |= {"peak_memory_gb": None, "bytes_an_image": 1.0}
    one = {"network": "b", "size": [224, 416], "settings": "", "ms_an_image": 2.0, "peak_memory_gb": None}
    larger = {**one, "size": [448, 832], "ms_an_image": 8.0}
    windows = {**larger, "settings": "clip.window=224", "ms_an_image": 20.0}
    for stage, figures in (("sam", {"vit_h": sam}), ("dense_clip", {"a": one, "b": larger, "c": windows})):
        (tmp_path / f"{stage}.json").write_text(json.dumps({"state": "done", "seconds": 9.0, "figures": figures}))
    write_page(tmp_path, tmp_path / "gpu.md")
    page = (tmp_path / "gpu.md").read_text()
    assert "| b | 224 x 416 | - | 2.00 | 1.0 | 2.5 % | - |" in page
    assert "| b | 448 x 832 | `clip.window=224` | 20.00 | 10.0 | 25.0 % | - |" in page


def test_parts_share_a_transfer_as_long_as_they_fit() -> None:
    assert transfers({"core": 3, "demo": 4, "spconv": 6, "ray": 5}, room=10) == [["core", "demo"], ["spconv"], ["ray"]]


def test_every_package_is_pinned() -> None:
    packages = read_packages()
    assert list(packages) == ["core", "spconv", "ray"]
    assert all("==" in package for part in packages.values() for package in part)
