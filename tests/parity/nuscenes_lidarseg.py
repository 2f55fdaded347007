"""Compare our scores of exported labels with those of nuScenes' LidarSegEval: `make parity`.

    python tests/parity/nuscenes_lidarseg.py OUT/nuscenes16

Runs in an environment with nuscenes-devkit, on what `made_exports.py` made. LidarSegEval refuses points without a
label, so it gets a copy in which they have no truth, and any class.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from nuscenes.eval.lidarseg import utils
from nuscenes.eval.lidarseg.evaluate import LidarSegEval
from nuscenes.nuscenes import NuScenes

from tests.parity.comparison import compare, our_scores


def main() -> None:
    """Score the labels in the folder that is the only argument."""
    folder = Path(sys.argv[1])
    copy = folder / "for-devkit"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "truth", copy)
    shutil.copytree(folder / "labels", copy, dirs_exist_ok=True)
    for file in sorted((copy / "lidarseg/val").iterdir()):
        labels, truth_file = np.fromfile(file, np.uint8), copy / "lidarseg/v1.0-mini" / file.name
        truth = np.fromfile(truth_file, np.uint8)
        np.where(labels == 0, 0, truth).astype(np.uint8).tofile(truth_file)
        np.where(labels == 0, 1, labels).astype(np.uint8).tofile(file)
    devkit = NuScenes("v1.0-mini", str(copy), verbose=False)
    scenes = [scene["name"] for scene in devkit.scene]
    utils.create_splits_scenes = lambda verbose=False: {"val": scenes}
    theirs = LidarSegEval(devkit, str(copy), "val").evaluate()
    ours = our_scores(folder / "ignore-leave.json")
    by_class = {name: float(iou) for name, iou in theirs["iou_per_class"].items() if name != "ignore"}
    compare("nuScenes LidarSegEval", {**ours["iou"], "mIoU": ours["miou"]}, {**by_class, "mIoU": theirs["miou"]})


if __name__ == "__main__":
    main()
