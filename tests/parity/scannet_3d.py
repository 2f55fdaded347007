"""Compare our scores of exported labels with those of ScanNet's evaluate_semantic_label.py: `make parity`.

    python tests/parity/scannet_3d.py OUT/scannet20 --code FOLDER

FOLDER is a copy of the repository ScanNet; it is not changed. Its script is Python 2, so a scratch copy is translated
with lib2to3, and modules that it imports but does not need here are empty. The scores are those of the counts that it
prints, since it prints the scores themselves with three digits.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.parity.comparison import compare, our_scores

SCRIPTS = ("3d_evaluation/evaluate_semantic_label.py", "util.py", "util_3d.py")
GUARD = re.compile(r"try:\s+from itertools import izip\s+except ImportError:\s+izip = zip\n")
"""What lib2to3 would leave as a `try` without a body."""

STUBS = {"imageio": "", "plyfile": "PlyData = PlyElement = None\n"}


def translated(code: Path, scratch: Path) -> Path:
    """Copy the scripts to `scratch`, translate them, and return the one to run."""
    for name in SCRIPTS:
        file = scratch / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(GUARD.sub("", (code / "BenchmarkScripts" / name).read_text()))
    for name, content in STUBS.items():
        (scratch / f"{name}.py").write_text(content)
    command = [sys.executable, "-W", "ignore", "-m", "lib2to3", "--write", "--nobackups", str(scratch)]
    subprocess.run(command, check=True, capture_output=True)
    return scratch / SCRIPTS[0]


def main() -> None:
    """Score the labels in a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--code", type=Path, required=True)
    args = parser.parse_args()
    if not (args.code / "BenchmarkScripts" / SCRIPTS[0]).is_file():
        parser.error(f"{args.code}: has no BenchmarkScripts/{SCRIPTS[0]}; clone ScanNet there, online")
    with tempfile.TemporaryDirectory() as place:
        script, labels = translated(args.code, Path(place)), Path(place) / "labels"
        shutil.copytree(args.folder / "labels", labels)
        command = [sys.executable, str(script), "--pred_path", str(labels), "--gt_path", str(args.folder / "truth")]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = re.findall(r"^(\w[\w ]*?)\s*:\s+[\d.]+\s+\(\s*(\d+)/(\d+)\s*\)$", printed, re.MULTILINE)
    theirs = {name.replace(" ", "_"): int(right) / int(union) for name, right, union in rows}
    compare("ScanNet 3D", our_scores(args.folder / "miss-leave.json")["iou"], theirs)


if __name__ == "__main__":
    main()
