"""The benchmark for a GPU runs from end to end, here on a CPU with a small grid."""

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_the_benchmark_reports_sam_and_clip(tmp_path: Path) -> None:
    small = ["--architectures", "tiny", "--images", "2", "--rounds", "1", "--points-per-side", "2", "--no-compile"]
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", *small, "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sam, clip = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert (sam["network"], clip["network"]) == ("tiny", "CLIP ViT-B/16")
    assert list(sam["stages_ms"]) == ["encoder", "decoder, prompts", "decoder, masks", "survivors", "rest"]
    assert sam["masks"] == sam["stock_masks"] > 0
    assert sam["mask_miou"] == sam["pixel_agreement"] == 1
    assert "| tiny |" in (tmp_path / "gpu.md").read_text()
