"""Instances and their labels: groups of their own, made only if a run asks for them, and scored by the audit."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.errors import ConfigError
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from demo.world import make_world
from labelgen.inspection.audit import inspect_cache
from labelgen.inspection.counting.samples import SampleId, read_samples
from labelgen.inspection.report import Scoring
from labelgen.inspection.showing.instance_colours import instance_colours
from labelgen.inspection.showing.page import write_page
from labelgen.inspection.showing.sample_pictures import DRAWN_ARRAYS, draw_sample
from labelgen.inspection.showing.top_view import draw_top_views
from labelgen.visibility import visible_pairs
from pipelines.config import load_config
from pipelines.plan import Planner
from pipelines.resolve import open_dataset, resolve
from tests.pipelines.conftest import small_settings
from tests.pipelines.in_process import build_cache

pytestmark = pytest.mark.slow

ENABLED = "instances.enabled=true"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    make_world(out, 41, scenes=1, keyframes=2, difficulty=0, size=(45, 80))
    return out


@pytest.fixture(scope="module")
def cache(made: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    url = str(tmp_path_factory.mktemp("cache") / "cache.zarr")
    build_cache(
        load_config("demo", preset="paper", teachers="untrained", overrides=[*small_settings(made), ENABLED]),
        world,
        url,
    )
    return Cache(url)


def test_the_groups_are_sound_and_count_instances_by_sample(cache: Cache) -> None:
    assert list(validate(*Cache.open(cache.url))) == []
    (key,) = cache.shard_keys()
    found, labels = cache.read(GroupPath(key, "instances")), cache.read(GroupPath(key, "instance_labels"))
    points = cache.read(GroupPath(key, "points"))
    for sample in (0, 1):
        own = slice(*points["offsets"][sample : sample + 2])
        ids, xyz = found["point"][own], points["xyz"][own]
        assert sorted(set(ids.tolist()) - {0}) == list(
            range(1, found["offsets"][sample + 1] - found["offsets"][sample] + 1)
        )
        assert Counter(ids.tolist()).most_common()[-1][1] >= 20 or 0 in ids
        sides = np.ptp(xyz[ids == 1], axis=0)
        np.testing.assert_allclose(found["extent"][found["offsets"][sample]], sides, rtol=1e-6)
    assert len(labels["scores"]) == found["offsets"][-1]
    seen = labels["pixels"] > 0
    assert seen.any()
    assert np.array_equal(labels["instance_raw"][seen], labels["scores"][seen].argmax(axis=1))
    assert (labels["instance"][~seen] == 255).all()


def test_the_audit_judges_instances_by_the_class_of_most_of_their_points(cache: Cache) -> None:
    (key,) = cache.shard_keys()
    found, labels = cache.read(GroupPath(key, "instances")), cache.read(GroupPath(key, "instance_labels"))
    truth, ends = cache.read(GroupPath(key, "truth"))["point"], cache.read(GroupPath(key, "points"))["offsets"]
    right, judged = 0, 0
    for sample in (0, 1):
        own = slice(*ends[sample : sample + 2])
        for local in range(1, found["offsets"][sample + 1] - found["offsets"][sample] + 1):
            classes = truth[own][found["point"][own] == local]
            row = found["offsets"][sample] + local - 1
            if labels["pixels"][row] and (classes != 255).any():
                judged += 1
                right += np.bincount(classes[classes != 255]).argmax() == labels["instance_raw"][row]
    report = inspect_cache(cache.url).instances
    assert report is not None and report.truth is not None
    assert report.truth.judged == judged
    assert report.truth.right_by_steps["1"] == pytest.approx(right / judged)
    assert report.instances == found["offsets"][-1]
    assert report.points_labelled == pytest.approx((labels["point"] != 255).mean())


def test_the_audit_draws_points_by_instance_and_by_its_label(cache: Cache, tmp_path: Path) -> None:
    (key,) = cache.shard_keys()
    cache, manifest = Cache.open(cache.url)
    (sample,) = read_samples(cache, key, cache.shard_records([key])[key].samples[1:], DRAWN_ARRAYS)
    layers, views = draw_sample(sample, manifest), draw_top_views(sample, manifest.taxonomy)
    ids, pairs = sample["instances"]["point"], visible_pairs(sample["pairs"])
    colours = instance_colours(ids, sample["points"]["xyz"])
    last = ids[pairs["point"]].nonzero()[0][-1]  # no later point of an instance covers it
    row, col, image = (int(pairs[name][last]) for name in ("row", "col", "image"))
    assert layers["points, instances"][image][row, col].tolist() == colours[pairs["point"][last]].tolist()
    own = np.array(manifest.taxonomy.colours)[sample["instance_labels"]["point"][pairs["point"][-1]]]
    row, col, image = (int(pairs[name][-1]) for name in ("row", "col", "image"))
    assert layers["points, with instances"][image][row, col].tolist() == own.tolist()
    drawn = {tuple(colour) for colour in views["instances"].reshape(-1, 3).tolist()}
    assert drawn - {(255,) * 3, (205,) * 3} == {tuple(colour) for colour in colours[ids > 0].tolist()}
    page = write_page(inspect_cache(cache.url), [SampleId(key, sample.token)], tmp_path / "page.html").read_text()
    assert "points, with instances" in page and "m wide: instances" in page


@pytest.mark.parametrize("unlabelled", ["ignore", "miss"])
@pytest.mark.parametrize("absent", ["leave", "zero"])
def test_points_of_instances_are_scored_by_the_rule_of_the_report(cache: Cache, unlabelled: str, absent: str) -> None:
    (key,) = cache.shard_keys()
    truth = cache.read(GroupPath(key, "truth"))["point"].tolist()
    scoring = Scoring.model_validate({"unlabelled": unlabelled, "absent": absent})
    report = inspect_cache(cache.url, scoring=scoring).instances
    assert report is not None and report.truth is not None
    found = {"labels": report.truth.point_miou_by_pixels, "instance_labels": report.truth.point_miou_by_instances}
    for group, miou in found.items():
        labels = cache.read(GroupPath(key, group), "point")["point"].tolist()
        pairs = [p for p in zip(truth, labels, strict=True) if p[0] != 255 and (p[1] != 255 or unlabelled == "miss")]
        ious = []
        for own in range(16):
            union = sum(own in pair for pair in pairs)
            if union or absent == "zero":
                ious.append(pairs.count((own, own)) / union if union else 0.0)
        assert miou == pytest.approx(sum(ious) / len(ious))


def test_asking_for_instances_redoes_nothing_else_and_prompts_redo_only_their_labels(
    made: Path, world: Path, cache: Cache, tmp_path: Path
) -> None:
    def todo(*more: str) -> frozenset[str]:
        config = load_config("demo", preset="paper", teachers="untrained", overrides=[*small_settings(made), *more])
        adapter = open_dataset("demo", world)
        (shard,) = Planner(world, cache, resolve(config, adapter)).plan(adapter.scenes("all", None))
        return shard.todo

    assert todo() == set() and todo(ENABLED) == set()
    assert todo(ENABLED, "instances.min_points=30") == {"instances", "instance_labels"}
    assert todo(ENABLED, "instances.steps=3") == {"instance_labels"}
    assert todo(ENABLED, "prompts=nuscenes-paper") == {"clip", "labels", "instance_labels"}
    assert todo("instances.min_points=30") == set(), "not asked for"


def test_a_thing_that_is_no_class_is_refused(made: Path, world: Path, cache: Cache) -> None:
    config = load_config(
        "demo",
        preset="paper",
        teachers="untrained",
        overrides=[*small_settings(made), ENABLED, "instances.things=[cra]"],
    )
    adapter = open_dataset("demo", world)
    with pytest.raises(ConfigError, match=r"instances.things: 'cra' is not a class of nuscenes16"):
        Planner(world, cache, resolve(config, adapter)).plan(adapter.scenes("all", None))
