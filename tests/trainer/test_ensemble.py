"""`trainer evaluate --ensemble`: CLIP's features at points, and OpenScene's ensemble; and runs with one network."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from tests.trainer.conftest import MakeCache, as_int8
from tests.trainer.runs import history, overrides, run_cli
from trainer.errors import UnfitCacheError
from trainer.evaluation.ensemble import ensemble_cosines, fused_cosines


@pytest.fixture(scope="module")
def points_alone(rich_toy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of OpenScene with a small 3D network and no 2D network."""
    out = tmp_path_factory.mktemp("runs") / "openscene"
    more = ("networks.cloud=small", "optimiser.epochs=2", "score_epochs=1")
    run_cli("fit", rich_toy, "--out", out, "--recipe", "openscene-original", *overrides(*more))
    return out


@pytest.fixture(scope="module")
def pictures_alone(rich_toy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of OpenScene with a small 2D network and no 3D network."""
    out = tmp_path_factory.mktemp("runs") / "pictures"
    more = ("networks.image=small", "networks.cloud=none", "optimiser.epochs=2", "score_epochs=1")
    run_cli("fit", rich_toy, "--out", out, "--recipe", "openscene", *overrides(*more))
    return out


GROUPS = ("clip", "images", "points", "pairs")


def test_three_points_by_hand() -> None:
    """Two classes, two pictures of one patch each: point 0 has one view, point 1 has two, point 2 has none."""
    patches = np.zeros((2, 2, 1, 1), np.float16)
    patches[0, :, 0, 0], patches[1, :, 0, 0] = (1, 0), (0, 1)
    arrays = {
        "clip/features": patches,
        "images/rgb": np.zeros((2, 4, 4, 3), np.uint8),
        "points/xyz": np.zeros((3, 3), np.float32),
        "pairs/point": np.array([1, 0, 1]),
        "pairs/image": np.array([0, 0, 1]),
        "pairs/row": np.array([0, 1, 2]),
        "pairs/col": np.array([3, 2, 1]),
    }
    fused, seen = fused_cosines(arrays, torch.eye(2))
    half = math.sqrt(0.5)  # the mean (0.5, 0.5) of two views at right angles, at unit length
    torch.testing.assert_close(fused, torch.tensor([[1.0, 0], [half, half], [0, 0]]))
    assert seen.tolist() == [True, True, False]
    # Point 0: 1 > 0.9, the fused feature decides. Point 1: 0.71 < 0.8, the network decides. Point 2 is not seen.
    network = torch.tensor([[0.1, 0.9], [0.2, 0.8], [-0.9, -0.1]])
    chosen = ensemble_cosines(fused, network, seen)
    torch.testing.assert_close(chosen, torch.tensor([[1.0, 0], [0.2, 0.8], [-0.9, -0.1]]))
    assert chosen.argmax(dim=1).tolist() == [0, 1, 1]
    with pytest.raises(UnfitCacheError, match="2 channels, but the class embeddings of the run have 3"):
        fused_cosines(arrays, torch.eye(3))


def test_features_as_int8_have_the_same_cosines(rich_toy: str) -> None:
    cache, key = Cache(rich_toy), "scene-0-000"
    arrays = {f"{group}/{n}": v for group in GROUPS for n, v in cache.read(GroupPath(key, group)).items()}
    arrays |= {name: values.astype(np.int64) for name, values in arrays.items() if name.startswith("pairs/")}
    exact, _ = fused_cosines(arrays, torch.eye(3, 8))
    compact = {f"clip/{name}": values for name, values in as_int8(arrays["clip/features"]).items()}
    found, _ = fused_cosines(arrays | compact, torch.eye(3, 8))
    assert 0 < (found - exact).abs().max() < 0.01


def test_blocks_of_points_do_not_change_the_cosines(rich_toy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, key = Cache(rich_toy), "scene-0-000"
    arrays = {f"{group}/{n}": v for group in GROUPS for n, v in cache.read(GroupPath(key, group)).items()}
    arrays |= {name: values.astype(np.int64) for name, values in arrays.items() if name.startswith("pairs/")}
    whole, seen = fused_cosines(arrays, torch.eye(3, 8))
    monkeypatch.setattr("trainer.evaluation.ensemble.POINTS_AT_ONCE", 7)
    parts, seen_in_parts = fused_cosines(arrays, torch.eye(3, 8))
    torch.testing.assert_close(parts, whole)
    assert seen.equal(seen_in_parts) and 0 < seen.sum() < len(seen)
    position = torch.from_numpy(np.stack([arrays["pairs/col"], arrays["pairs/row"]], 1)) + 0.5
    position = (2 * position / torch.tensor([64, 48]) - 1)[None, None].float()
    grids = torch.from_numpy(arrays["clip/features"]).float()
    views = functional.grid_sample(
        grids, position.expand(len(grids), -1, -1, -1), padding_mode="border", align_corners=False
    )[:, :, 0]
    view = views[torch.from_numpy(arrays["pairs/image"]), :, torch.arange(len(arrays["pairs/image"]))]
    expected = functional.normalize(view, dim=1)[:, :3]  # each point of the toy world has one view
    torch.testing.assert_close(whole[torch.from_numpy(arrays["pairs/point"])], expected, atol=1e-4, rtol=0)


def test_the_ensemble_is_scored_beside_the_3d_network(points_alone: Path, rich_toy: str) -> None:
    plain = json.loads(run_cli("evaluate", points_alone, rich_toy, "--scenes", "all", "--json").stdout)
    found = json.loads(run_cli("evaluate", points_alone, rich_toy, "--scenes", "all", "--ensemble", "--json").stdout)
    assert "image" not in found and "agreement" not in found and "ensemble" not in plain
    assert found["point"] == plain["point"]
    ensemble, ensemble_seen, fused = found["ensemble"], found["ensemble_seen"], found["fused_2d"]
    assert ensemble["scored"] == found["point"]["scored"] == 10 * 240
    assert fused["scored"] == ensemble_seen["scored"] == found["point_seen"]["scored"] < 10 * 240
    assert fused["accuracy"] > 0.8, "patches fit the classes at their centres"

    def right_unseen(all_points: dict, seen: dict) -> float:
        return all_points["accuracy"] * all_points["scored"] - seen["accuracy"] * seen["scored"]

    assert right_unseen(ensemble, ensemble_seen) == pytest.approx(right_unseen(found["point"], found["point_seen"]))
    assert ensemble_seen["accuracy"] not in (fused["accuracy"], found["point_seen"]["accuracy"]), "both are taken"
    table = " ".join(run_cli("evaluate", points_alone, rich_toy, "--ensemble").stdout.split())
    assert "fused" in table and "unseen points take the 3D network's class" in table
    seen = json.loads(run_cli("evaluate", points_alone, rich_toy, "--ensemble", "--seen", "car", "--json").stdout)
    assert {"fused_2d", "ensemble", "ensemble_seen"} < set(seen["zero_shot"]["scores"])


def test_what_the_ensemble_lacks_is_told(small_run: Path, toy: str, pictures_alone: Path, rich_toy: str) -> None:
    told = run_cli("evaluate", small_run, toy, "--ensemble", exit_code=1).stderr
    assert "clip/features" in told and "clip.store_features=true" in told
    told = run_cli("evaluate", pictures_alone, rich_toy, "--ensemble", exit_code=1).stderr
    assert "--ensemble needs a 3D network" in told
    assert "leave out --refine" in run_cli("evaluate", small_run, toy, "--ensemble", "--refine", exit_code=1).stderr


def test_a_3d_network_alone_predicts_and_is_scored_in_training(
    points_alone: Path, rich_toy: str, tmp_path: Path
) -> None:
    assert {name for row in history(points_alone) for name in row} >= {"cloud_distillation"}
    scores = [json.loads(line) for line in (points_alone / "scores.jsonl").read_text().splitlines()]
    assert [row["image"] for row in scores] == [None, None] and all(row["point"] > 0 for row in scores)
    run_cli("predict", points_alone, rich_toy, "--out", tmp_path / "labels")
    assert len(list((tmp_path / "labels").rglob("segment.npy"))) == 10


def test_a_2d_network_alone_is_scored_but_labels_no_points(pictures_alone: Path, rich_toy: str, tmp_path: Path) -> None:
    scores = [json.loads(line) for line in (pictures_alone / "scores.jsonl").read_text().splitlines()]
    assert [row["point"] for row in scores] == [None, None] and all(row["image"] > 0 for row in scores)
    found = json.loads(run_cli("evaluate", pictures_alone, rich_toy, "--json", "--tta").stdout)
    assert found["image"]["scored"] > 0 and "point" not in found
    told = run_cli("predict", pictures_alone, rich_toy, "--out", tmp_path / "labels", exit_code=1).stderr
    assert "trainer predict needs a 3D network" in told and not (tmp_path / "labels").exists()


def test_classes_that_are_not_shared_do_not_decide(points_alone: Path, make_cache: MakeCache, tmp_path: Path) -> None:
    other = make_cache(tmp_path / "other", scenes=1, rich=True, names=("car", "house", "tree"))
    found = json.loads(run_cli("evaluate", points_alone, other, "--ensemble", "--shared-classes", "--json").stdout)
    assert set(found["ensemble"]["iou"]) == {"car", "tree"}
    assert found["fused_2d"]["accuracy"] > 0.8, "the run's road, which the cache does not have, is never chosen"
    assert found["ensemble"]["scored"] == found["point"]["scored"]
