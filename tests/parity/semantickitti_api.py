"""Compare our scores of exported labels with those of semantic-kitti-api's evaluate_semantics.py: `make parity`.

    python tests/parity/semantickitti_api.py OUT/semantickitti19 --code FOLDER

FOLDER is a copy of the repository semantic-kitti-api; it is only run, never changed.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.parity.comparison import compare, our_scores


def main() -> None:
    """Score the labels in a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--code", type=Path, required=True)
    args = parser.parse_args()
    if not (args.code / "evaluate_semantics.py").is_file():
        parser.error(f"{args.code}: has no evaluate_semantics.py; clone semantic-kitti-api there, online")
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "evaluate_semantics.py", "--split", "valid", "--backend", "numpy"]
        command += ["--dataset", str((args.folder / "truth").resolve())]
        command += ["--predictions", str((args.folder / "labels").resolve()), "--codalab", scratch]
        subprocess.run(command, cwd=args.code, check=True, capture_output=True)
        theirs = yaml.safe_load((Path(scratch) / "scores.txt").read_text())
    ours = our_scores(args.folder / "miss-zero.json")
    # Its accuracy leaves out points without a label, unlike its IoU.
    accuracy = our_scores(args.folder / "ignore-leave.json")["accuracy"]
    by_class = {f"iou_{name}": iou for name, iou in ours["iou"].items()}
    compare("SemanticKITTI", {**by_class, "iou_mean": ours["miou"], "accuracy_mean": accuracy}, theirs)


if __name__ == "__main__":
    main()
