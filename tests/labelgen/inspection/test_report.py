"""The typed report as the contract of `--json`."""

import json

import pytest
from pydantic import ValidationError

from labelgen.inspection.audit import inspect_cache
from labelgen.inspection.command import report_as_json
from labelgen.inspection.report import Selection

KEYS = [
    "cache",
    "schema_version",
    "dataset",
    "split",
    "taxonomy",
    "prompts",
    "preset",
    "teachers",
    "config_digest",
    "software",
    "selection",
    "scoring",
    "shards",
    "groups_sealed",
    "samples",
    "problems",
    "damaged",
    "labels",
    "scores",
    "points",
    "masks",
    "truth",
    "ranked",
    "by_shard",
    "worst_samples",
    "outliers",
    "classes",
    "instances",
    "over_time",
    "bytes",
    "verdict",
]


def test_json_has_the_keys_of_schema_version_1_in_order(ten_shards: str, report) -> None:
    found = report(ten_shards)
    assert list(found) == KEYS
    assert list(found["teachers"]) == ["preset", "clip", "sam", "untrained"]
    assert found["teachers"]["sam"] == {"architecture": "toy", "weights": "toy.safetensors", "sha256": "ab" * 32}
    assert list(found["by_shard"][0]) == ["shard", "samples", "measures", "iou"]
    assert list(found["worst_samples"][0]) == ["shard", "sample", "measures", "iou"]
    assert list(found["masks"]["by_share"][0]) == ["from", "to", "masks"]
    assert found["selection"] is None
    assert list(report(ten_shards, "--against", ten_shards)) == [*KEYS, "against"]


def test_json_has_no_numbers_that_are_not_finite(without_truth: str, empty: str) -> None:
    for url in (without_truth, empty):
        text = report_as_json(inspect_cache(url))
        assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_a_report_does_not_change_and_refuses_unknown_fields() -> None:
    selection = Selection(worst=3)
    with pytest.raises(ValidationError, match="frozen"):
        selection.worst = 4
    with pytest.raises(ValidationError, match="Extra inputs"):
        Selection(least=3)
