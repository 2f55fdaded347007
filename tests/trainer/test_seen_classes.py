"""Labels of points by instances, and truth of seen classes beside pseudo labels of the others."""

import json
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from tests.trainer.conftest import make_instances
from tests.trainer.runs import history, overrides, run_cli
from tests.trainer.test_builder import batches
from trainer.data.sampler import Step
from trainer.data.seen_classes import labels_with_truth
from trainer.errors import UnfitCacheError


def add_instance_labels(url: str) -> dict[str, np.ndarray]:
    """Write both groups of instances with random labels of points, and return these by shard."""
    cache, rng = Cache(url, "a"), np.random.default_rng(0)
    written = {}
    for key, record in cache.shard_records(list(cache.shard_keys())).items():
        for group, arrays in make_instances(rng, len(record.samples)).items():
            cache.write_group(GroupPath(key, group), arrays, Provenance(group, samples=record.samples))
            written[key] = arrays["point"]
    return written


def test_seen_classes_have_truth_and_others_visible_pseudo_labels() -> None:
    #                          seen class: truth   unseen: pseudo label or none      no truth
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 255, 255, 255], np.uint8)
    labels = np.array([0, 2, 255, 1, 1, 2, 0, 255, 1, 2, 0, 1], np.uint8)
    hidden = np.array([0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 1], bool)
    expected = [0, 0, 0, 0, 1, 2, 255, 255, 255, 2, 255, 255]
    np.testing.assert_array_equal(labels_with_truth(labels, truth, hidden, [0]), expected)


def test_labels_by_instances_and_truth_of_seen_classes_enter_batches(own: str) -> None:
    with pytest.raises(UnfitCacheError, match=r"instance_labels: not sealed; make it with .*instances.enabled=true"):
        batches(own, "stream.label_source=instances")
    written = add_instance_labels(own)["scene-0-000"][240:]
    by_instances, stream = batches(own, "stream.label_source=instances")
    np.testing.assert_array_equal(by_instances[Step(0, 0, (1,))].point_labels, written)

    arrays = Cache(own).read(GroupPath("scene-0-000", "truth"), "point")["point"][240:]
    car = stream.manifest.taxonomy.names[0]
    seen, _ = batches(own, "stream.label_source=instances", f"classes.seen=[{car}]")
    found = seen[Step(0, 0, (1,))].point_labels.numpy()
    np.testing.assert_array_equal(found == 0, arrays == 0)  # class 0 is where truth says, on hidden points too
    kept = (found != 0) & (found != 255)
    np.testing.assert_array_equal(found[kept], written[kept])
    assert 0 < kept.sum() < (arrays != 0).sum()


@pytest.mark.parametrize("names", ["[cra]", "ALL"])
def test_names_of_seen_classes_are_checked_before_anything_is_written(toy: str, tmp_path: Path, names: str) -> None:
    known = ", ".join(Cache.open(toy)[1].taxonomy.names)
    setting = f"classes.seen=[{known}]" if names == "ALL" else f"classes.seen={names}"
    done = run_cli("fit", toy, "--out", tmp_path / "run", *overrides(setting), exit_code=1)
    expected = "names all classes" if names == "ALL" else f"has no class 'cra'; choose from {known}"
    assert expected in done.stderr and not (tmp_path / "run" / "run.json").exists()


def test_truth_of_seen_classes_is_in_the_record_the_log_and_the_report(own: str, tmp_path: Path) -> None:
    add_instance_labels(own)
    names = list(Cache.open(own)[1].taxonomy.names)
    recipe = ("--recipe", "affinity3d", "--set", "networks.cloud=small", "--set", f"classes.seen=[{names[1]}]")
    short = overrides("optimiser.epochs=1", "optimiser.class_balance=0.5")
    done = run_cli("fit", own, "--out", tmp_path / "run", *recipe, *short)
    assert f"truth supervises the classes {names[1]} (classes.seen)" in done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["settings"]["classes"]["seen"] == [names[1]]
    assert history(tmp_path / "run")[0]["cloud_kl"] > 0
    report = json.loads(run_cli("evaluate", tmp_path / "run", own, "--json").stdout)
    assert report["truth_in_training"] == report["zero_shot"]["seen_classes"] == [names[1]]
    iou = report["point"]["iou"]
    assert report["zero_shot"]["scores"]["point"]["seen"] == iou[names[1]]
    assert "Truth of these classes supervised the training" in run_cli("evaluate", tmp_path / "run", own).stdout
