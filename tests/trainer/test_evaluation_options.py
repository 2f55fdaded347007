"""`trainer evaluate` on the classes that run and cache share, with test-time augmentation, and by seen classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from cache_schemas.group_path import GroupPath
from cache_schemas.scoring import confusion_with_unlabelled
from cache_schemas.store import Cache
from tests.toy_cache import toy_taxonomy
from tests.trainer.conftest import MakeCache
from tests.trainer.runs import run_cli
from trainer.data.builder import voxel_arrays
from trainer.evaluation.inputs import open_for_scoring
from trainer.evaluation.predictor import Predictor, load_model
from trainer.evaluation.shared_classes import shared_classes
from trainer.evaluation.zero_shot import harmonic_mean, zero_shot_report
from trainer.networks.point_cloud import Cloud
from trainer.run_folder import RunFolder


def test_a_label_of_a_class_that_is_not_shared_is_wrong_and_such_truth_is_not_counted() -> None:
    run, cache = toy_taxonomy(("tree", "sky", "car")), toy_taxonomy(("car", "house", "tree"))
    shared = shared_classes(run, cache, {0, 1, 2})
    assert (shared.names, shared.of_run.tolist(), shared.of_cache.tolist()) == (("car", "tree"), [2, 0], [0, 2])
    truth, label = np.array([[0, 0, 0, 1, 2, 2], [0, 1, 255, 0, 2, 0]], np.uint8)
    counts = shared.confusion(confusion_with_unlabelled(truth, label, 3))
    assert counts.tolist() == [[1, 0, 2], [1, 1, 0]]
    assert shared_classes(run, cache, {0}).names == ("car",), "no element of the truth is a tree"


def test_the_highest_score_among_shared_classes_is_scored(
    small_run: Path, make_cache: MakeCache, tmp_path: Path
) -> None:
    other = make_cache(tmp_path / "other", scenes=1, names=("tree", "house", "car"))
    refused = run_cli("evaluate", small_run, other, exit_code=1).stderr
    assert "tree, house, car" in refused and "car, road, tree" in refused and "--shared-classes" in refused
    found = json.loads(run_cli("evaluate", small_run, other, "--shared-classes", "--json").stdout)
    assert found["shared_classes"] == ["tree", "car"] and set(found["image"]["iou"]) == {"tree", "car"}
    cache, run = Cache(other), RunFolder(small_run)
    pictures, truth = (cache.read(GroupPath("scene-0-000", name)) for name in ("images", "truth"))
    rgb = torch.from_numpy(pictures["rgb"]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        scores = load_model(run, run.record().settings, "last").apply_to_images(rgb).scores.numpy()
    car_wins = scores[:, 0] > scores[:, 2]
    right = np.where(truth["image"] == 2, car_wins, ~car_wins)[truth["image"] != 1]
    assert found["image"]["scored"] == right.size
    assert found["image"]["accuracy"] == pytest.approx(right.mean(), abs=0.002)
    raw = cache.read(GroupPath("scene-0-000", "labels"))["image_raw"]
    counted = truth["image"] != 1
    assert found["labels"]["raw"]["image"]["accuracy"] == pytest.approx((raw == truth["image"])[counted].mean())


def test_without_a_shared_class_nothing_is_scored(small_run: Path, make_cache: MakeCache, tmp_path: Path) -> None:
    other = make_cache(tmp_path / "other", scenes=1, names=("wall", "floor", "sky"))
    done = run_cli("evaluate", small_run, other, "--shared-classes", exit_code=1)
    assert "no class of its truth has the name of a class of the run (car, road, tree)" in done.stderr


def test_tta_is_the_mean_over_turns_and_mirrors(small_run: Path, toy: str) -> None:
    record = RunFolder(small_run).record()
    stream, model = open_for_scoring(record, toy), load_model(RunFolder(small_run), record.settings, "last")
    torch.manual_seed(0)
    assert model.phi_s is not None and model.image is not None
    torch.nn.init.normal_(model.phi_s.weight)  # the trained one is certain of its classes
    shown: list[torch.Tensor] = []
    model.image.register_forward_hook(lambda _, inputs, __: shown.append(inputs[0]))
    found = Predictor(model, record.settings, stream, stream.samples, tta=True).predict(0)
    assert len(shown) == 2 and shown[1].equal(shown[0].flip(3))
    arrays = stream.read(stream.samples[0])
    total = np.zeros((240, 3))
    with torch.inference_mode():
        for y_sign in (1, -1):
            for quarters in range(4):
                moved = dict(arrays)
                x, y, z = (arrays["points/xyz"] * np.float32([1, y_sign, 1])).T
                for _ in range(quarters):
                    x, y = -y, x
                moved["points/xyz"] = np.stack([x, y, z], axis=1)
                inputs = {k: torch.from_numpy(v) for k, v in voxel_arrays(moved, record.settings.networks).items()}
                inputs["voxels"] = functional.pad(inputs["voxels"], (1, 0))
                total += model.apply_to_clouds(Cloud(batch_size=1, **inputs)).scores.numpy()
        rgb = torch.from_numpy(arrays["images/rgb"]).permute(0, 3, 1, 2)
        pixels = model.apply_to_images(rgb).scores + model.apply_to_images(rgb.flip(3)).scores.flip(3)
    assert found.point is not None and found.image is not None
    assert (found.point == total.argmax(axis=1)).mean() > 0.99  # sums of floats in another order
    assert (found.image == pixels.argmax(dim=1).numpy()).mean() > 0.999
    alone = Predictor(model, record.settings, stream, stream.samples).predict(0)
    assert (found.point != alone.point).any()
    told = run_cli("evaluate", small_run, toy, "--tta").stdout
    assert "4 turns of the cloud about z, each also mirrored in y" in " ".join(told.split())


def test_zero_shot_scores_by_hand() -> None:
    iou = {"car": 0.6, "road": 0.4, "tree": 0.2, "sky": None}
    report = zero_shot_report({"point": {"miou": 0.4, "accuracy": 0.5, "scored": 9, "iou": iou}}, ["car", "road"])
    scores = report["scores"]["point"]
    assert (scores["seen"], scores["unseen"]) == (pytest.approx(0.5), pytest.approx(0.2))
    assert scores["harmonic_mean"] == pytest.approx(2 / 7)  # 2 * 0.5 * 0.2 / 0.7
    assert (harmonic_mean(0, 0), harmonic_mean(0.5, 0), harmonic_mean(None, 0.5)) == (0, 0, None)


def test_seen_and_unseen_classes_are_reported(small_run: Path, toy: str) -> None:
    found = json.loads(run_cli("evaluate", small_run, toy, "--seen", "car, road", "--json").stdout)
    iou, scores = found["image"]["iou"], found["zero_shot"]["scores"]["image"]
    assert found["zero_shot"]["seen_classes"] == ["car", "road"]
    assert scores["seen"] == pytest.approx((iou["car"] + iou["road"]) / 2) and scores["unseen"] == iou["tree"]
    told = " ".join(run_cli("evaluate", small_run, toy, "--seen", "car,road").stdout.split())
    assert f"2D network: mIoU of seen classes {100 * scores['seen']:.1f} %" in told and "harmonic mean" in told
    assert "no class 'bus'" in run_cli("evaluate", small_run, toy, "--seen", "bus", exit_code=1).stderr
    assert "none is unseen" in run_cli("evaluate", small_run, toy, "--seen", "car,road,tree", exit_code=1).stderr
