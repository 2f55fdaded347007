"""Caches of small official data sets: their labels leave and come back, and pixels score as their rules say."""

import json
from collections import Counter
from collections.abc import Hashable, Iterable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.taxonomy import load_taxonomy
from labelgen.cli import main
from labelgen.datasets import find_dataset
from pipelines.config import load_config
from tests.labelgen.make_nuimages import HEIGHT_PX, SAMPLES, WIDTH_PX, make_nuimages, token
from tests.labelgen.make_scannet import NUMBERS, SCANS, MadeScan, make_scannet
from tests.labelgen.make_semantickitti import make_semantickitti
from tests.made_labels import read_points
from tests.pipelines.in_process import build_cache

RAW_IDS = [10, 11, 15, 18, 20, 30, 31, 32, 40, 44, 48, 49, 50, 51, 70, 71, 72, 80, 81]
"""SemanticKITTI's raw id of each of its classes."""

NYU40 = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39]
"""The nyu40 id of each of ScanNet's classes."""

SHARED_CLASSES = {
    **{"human.pedestrian.adult": "pedestrian", "human.pedestrian.child": "pedestrian"},
    **{"human.pedestrian.construction_worker": "pedestrian", "human.pedestrian.police_officer": "pedestrian"},
    **{"movable_object.barrier": "barrier", "movable_object.trafficcone": "traffic_cone"},
    **{"vehicle.bicycle": "bicycle", "vehicle.bus.bendy": "bus", "vehicle.bus.rigid": "bus", "vehicle.car": "car"},
    **{"vehicle.construction": "construction_vehicle", "vehicle.motorcycle": "motorcycle"},
    **{"vehicle.trailer": "trailer", "vehicle.truck": "truck", "flat.driveable_surface": "driveable_surface"},
}
"""The class of nuScenes of each category of nuImages that has one: 11 classes."""

Pairs = Counter[tuple[Hashable, Hashable]]
"""How often each (truth, label) occurs."""


def label(data: Path, url: str, dataset: str, split: str, height: int = 32, width: int = 112) -> None:
    """Label a data set with untrained teachers and one sentence a class."""
    names = load_taxonomy(find_dataset(dataset).adapter.taxonomy_name).names
    prompts = data / "prompts.yaml"
    prompts.write_text(json.dumps({"templates": ["a {}."], "classes": {name: [name] for name in names}}))
    small = [f"images.height={height}", f"images.width={width}", "sam.points_per_side=1", f"prompts={prompts}"]
    build_cache(load_config(dataset, teachers="untrained", split=split, overrides=small), data, url)


def command(*arguments: object) -> str:
    """Run `labelgen`; returns what it printed."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def ious(pairs: Pairs, ids: Iterable[Hashable]) -> list[float | None]:
    """Return the IoU of each id, None for one in neither truth nor labels."""
    found = []
    for own in ids:
        union = sum(count for pair, count in pairs.items() if own in pair)
        found.append(pairs[own, own] / union if union else None)
    return found


def read_raw_ids(file: Path) -> list[int]:
    return [int(value) for value in np.fromfile(file, "<u4")]


def read_lines(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().splitlines()]


def take_back(url: str, out: Path, file_format: str) -> dict[str, object]:
    """Export a cache, import the export as `back`, check that it is equal; returns the scores against it."""
    command("export", url, "--format", file_format, "--out", out)
    command("import-labels", url, out, "--format", file_format, "--name", "back")
    exported, imported = read_points(url, "labels", "point"), read_points(url, "labels.back", "point")
    assert exported.keys() == imported.keys() and all(np.array_equal(exported[t], imported[t]) for t in exported)
    assert "sound" in command("verify", url)
    found: dict[str, object] = json.loads(command("inspect", url, "--against-source", "back", "--json"))
    return found


def check_scores_against_itself(found: dict, cached: dict[str, np.ndarray]) -> None:
    labelled = sum(int((labels != 255).sum()) for labels in cached.values())
    assert labelled > 0 and found["scoring"]["source"] == "back" and found["truth"]["image"] is None
    refined = found["truth"]["point"]["refined"]
    assert (refined["accuracy"], refined["miou"], refined["scored"]) == (1, 1, labelled)


def test_labels_of_semantickitti_leave_and_come_back(tmp_path: Path) -> None:
    data, url, out = make_semantickitti(tmp_path / "data"), str(tmp_path / "cache"), tmp_path / "out"
    for split in ("valid", "train"):
        label(data, url, "semantickitti", split)
    found = take_back(url, out, "semantickitti")
    cached = read_points(url, "labels", "point")
    assert len(cached) == 6
    for sample, labels in cached.items():
        sequence, frame = sample.split("-")
        written = read_raw_ids(out / f"sequences/{sequence}/predictions/{frame}.label")
        assert written == [0 if own == 255 else RAW_IDS[own] for own in labels.tolist()]
    assert len((out / "sequences/08/poses.txt").read_text().splitlines()) == 3
    check_scores_against_itself(found, cached)
    command("export", url, "--format", "pointcept", "--out", tmp_path / "pointcept")
    folders = {str(file.parent.relative_to(tmp_path / "pointcept")) for file in tmp_path.rglob("segment.npy")}
    assert folders == {f"{'valid' if name.startswith('08') else 'train'}/{name}" for name in cached}


def scores_of_pixels(url: str, *rule: str) -> dict:
    scores: dict = json.loads(command("inspect", url, *rule, "--json"))["truth"]["image"]["refined"]
    return scores


def scannet_pairs(cache: Cache, made: MadeScan) -> Pairs:
    """Return the pairs of truth and label by ScanNet's 2D rule: nyu40 ids at 640x480, truth one of the 20."""
    key = "scene0191-000"
    images = cache.read(GroupPath(key, "labels"), "image")["image"]
    pictures = [picture.file for picture in cache.shard_records([key])[key].pictures]
    pairs: Pairs = Counter()
    for labels, file in zip(images, pictures, strict=True):
        frame = made.frames[NUMBERS["frames_25k"].index(int(Path(str(file)).stem))]
        truth = np.asarray(Image.fromarray(frame.nyu40).resize((640, 480), Image.Resampling.NEAREST))
        predicted = [NYU40[own] if own < 20 else 0 for own in labels.ravel().tolist()]
        pairs += Counter(zip(truth.ravel().tolist(), predicted, strict=True))
    return Counter({pair: count for pair, count in pairs.items() if pair[0] in NYU40})


def test_scannet_leaves_comes_back_and_scores_pixels_as_its_2d_rule(tmp_path: Path) -> None:
    data, url, out = tmp_path / "data", str(tmp_path / "cache"), tmp_path / "out"
    made = make_scannet(data, scans={"scene0191_00": SCANS["scene0191_00"]})["scene0191_00"]
    label(data, url, "scannet", "all", height=480, width=640)
    found = take_back(url, out, "scannet")
    cached = read_points(url, "labels", "point")
    assert read_lines(out / "scene0191_00.txt") == [0 if own == 255 else NYU40[own] for own in cached["scene0191_00"]]
    check_scores_against_itself(found, cached)

    pairs = scannet_pairs(Cache(url), made)
    expected = ious(pairs, NYU40)
    known = [iou for iou in expected if iou is not None]
    scores = scores_of_pixels(url, "--unlabelled", "miss")
    assert list(scores["iou"].values()) == [None if iou is None else pytest.approx(iou) for iou in expected]
    assert 1 < len(known) < 20 and scores["miou"] == pytest.approx(sum(known) / len(known))
    assert scores["scored"] == pairs.total()


def test_nuimages_scores_pixels_of_the_shared_classes(tmp_path: Path) -> None:
    data, url = make_nuimages(tmp_path / "data"), str(tmp_path / "cache")
    label(data, url, "nuimages", "mini", HEIGHT_PX, WIDTH_PX)
    names = load_taxonomy("nuscenes16").names
    cache, pairs = Cache(url), Counter()
    tokens = {token("sample", name): made for name, made in SAMPLES.items()}
    for key, record in cache.shard_records(cache.shard_keys()).items():
        images = cache.read(GroupPath(key, "labels"), "image")["image"]
        for sample, labels in zip(record.samples, images, strict=True):
            made = tokens[sample]
            truth = np.full((HEIGHT_PX, WIDTH_PX), "-", object)
            for annotation in (*made.surfaces, *sorted(made.objects)):
                truth[annotation.mask] = SHARED_CLASSES.get(annotation.category, "-")
            predicted = [names[own] if own < 16 else "none" for own in labels.ravel().tolist()]
            pairs += Counter(zip(truth.ravel().tolist(), predicted, strict=True))
    pairs = Counter({pair: count for pair, count in pairs.items() if pair[0] != "-"})
    shared = sorted(set(SHARED_CLASSES.values()))
    scores = scores_of_pixels(url, "--unlabelled", "miss")
    for name, iou in zip(shared, ious(pairs, shared), strict=True):
        assert scores["iou"][name] == pytest.approx(iou), name
    assert len(shared) == 11 and scores["scored"] == pairs.total()
    known = [iou for iou in ious(pairs, names) if iou is not None]
    assert scores["miou"] == pytest.approx(sum(known) / len(known)), "a label that no truth has: IoU 0"
