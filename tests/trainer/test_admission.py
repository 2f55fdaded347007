"""A cache that is incomplete or damaged is refused before a training, with the first problem and its fix."""

import json
import re
import shutil
from pathlib import Path

import pytest

from cache_schemas.documents import Provenance
from cache_schemas.errors import NoCacheError, SchemaVersionError
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from tests.trainer.runs import run_cli
from trainer.data.stream import CacheStream
from trainer.errors import UnfitCacheError

ARRAYS = ["images/rgb", "labels/image", "points/xyz", "pairs/point", "pairs/image", "pairs/row", "pairs/col"]


def test_no_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoCacheError):
        CacheStream(str(tmp_path / "none"), ARRAYS)


def test_unsealed_groups_are_refused(own: str) -> None:
    Cache(own, "a").remove_group(GroupPath("scene-1-000", "labels"))
    with pytest.raises(UnfitCacheError, match=r"scene-1-000/labels: .*not sealed.*; finish .*`labelgen run`"):
        CacheStream(own, ARRAYS)


def test_groups_of_other_upstream_groups_are_refused(own: str) -> None:
    file = Path(own) / "shards/scene-2-000/sam/zarr.json"
    file.write_text(file.read_text().replace('"f-sam"', '"f-new"'))
    with pytest.raises(UnfitCacheError, match=r"scene-2-000/labels: .*made from sam f-sam, which is now f-new"):
        CacheStream(own, ARRAYS)


def test_other_class_names_than_the_labels_were_made_with_are_refused(own: str) -> None:
    file = Path(own) / "text/zarr.json"
    file.write_text(file.read_text().replace('"f-text"', '"f-new"'))
    with pytest.raises(UnfitCacheError, match=r"clip: .*made from text f-text, which is now f-new"):
        CacheStream(own, [*ARRAYS, "clip/logits"])


def test_missing_arrays_are_refused_with_the_way_to_make_them(own: str) -> None:
    with pytest.raises(UnfitCacheError, match=r"clip/features: not in this cache; .*clip\.store_features=true"):
        CacheStream(own, [*ARRAYS, "clip/features"])


def test_pictures_alone_are_no_input_of_the_3d_network(own: str, small_run: Path, tmp_path: Path) -> None:
    file = Path(own) / "zarr.json"
    document = json.loads(file.read_text())
    document["attributes"]["modalities"] = ["image"]
    file.write_text(json.dumps(document))
    refused = "holds pictures alone .*, but `trainer fit` and `trainer predict` need points .*; choose"
    for command in (("fit", own), ("predict", small_run, own)):
        done = run_cli(*command, "--out", tmp_path / "out", exit_code=1)
        assert re.search(refused, done.stderr.replace("\n", " "))


def test_other_schema_versions_are_refused(own: str) -> None:
    file = Path(own) / "zarr.json"
    document = json.loads(file.read_text())
    document["attributes"]["schema_version"] = 3
    file.write_text(json.dumps(document))
    with pytest.raises(SchemaVersionError, match="schema version 3"):
        CacheStream(own, ARRAYS)


def import_labels(cache: str, *, samples: tuple[str, ...], points_seal: str) -> None:
    """Write the source `corrected` of shard scene-1-000, made from points of this fingerprint."""
    own = Cache(cache, "a")
    labels = own.read(GroupPath("scene-1-000", "labels"), "point")["point"]
    provenance = Provenance("imported", upstream={"points": points_seal}, samples=samples)
    own.write_group(GroupPath("scene-1-000", "labels.corrected"), {"point": labels}, provenance)


@pytest.mark.parametrize(
    "samples, points_seal, said", [(None, "f-old", "made from points f-old"), (("a",), "f-points", "holds 1 samples")]
)
def test_imported_labels_that_do_not_fit_matter_only_in_use(
    own: str, samples: tuple[str, ...] | None, points_seal: str, said: str
) -> None:
    record = Cache(own).shard_records(["scene-1-000"])["scene-1-000"]
    import_labels(own, samples=samples or record.samples, points_seal=points_seal)
    assert CacheStream(own, ARRAYS).samples
    with pytest.raises(UnfitCacheError, match=rf"labels.corrected: .*{said}.*`labelgen import-labels --name corrected"):
        CacheStream(own, [*ARRAYS, "labels.corrected/point"])


def edit_document(cache: str, path: str, **changes: object) -> None:
    file = Path(cache) / path / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_attributes(cache: str, path: str, **changes: object) -> None:
    attributes = json.loads((Path(cache) / path / "zarr.json").read_text())["attributes"]
    edit_document(cache, path, attributes=attributes | changes)


def cut(cache: str, array: str, *, keep: int) -> None:
    (file,) = (file for file in (Path(cache) / array / "c").rglob("*") if file.is_file())
    file.write_bytes(file.read_bytes()[:keep])


DAMAGES = {
    "a seal without a field": (
        "shards/scene-0-000/sam",
        lambda c: edit_attributes(c, "shards/scene-0-000/sam", arrays=1),
    ),
    "metadata that is missing": (
        "shards/scene-1-000/clip/logits",
        lambda c: (Path(c) / "shards/scene-1-000/clip/logits/zarr.json").unlink(),
    ),
    "a file that is cut short": (
        "shards/scene-1-000/images/rgb",
        lambda c: cut(c, "shards/scene-1-000/images/rgb", keep=50),
    ),
    "a chunk file that is missing": ("text/embeddings", lambda c: shutil.rmtree(Path(c) / "text/embeddings/c")),
    "a shard of another scene": (
        "shards/scene-7-000",
        lambda c: shutil.copytree(Path(c) / "shards/scene-1-000", Path(c) / "shards/scene-7-000"),
    ),
}
"""One of each kind that `labelgen verify` finds without reading values or metadata of arrays: its path, how to make it.

tests/cache_schemas has all of them; the trainer refuses whatever that audit finds.
"""


@pytest.mark.parametrize(("path", "damage"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_that_verify_finds_without_reading_values_is_refused_at_the_start(own: str, path: str, damage) -> None:
    damage(own)
    with pytest.raises(UnfitCacheError) as caught:
        CacheStream(own, ARRAYS)
    message = str(caught.value)
    assert message.startswith(f"{own}/{path}: ") and "\n" not in message
    assert "`labelgen" in message.rpartition("; ")[2], "the fix comes last"
    assert path in {problem.path for problem in validate(*Cache.open(own))}


def test_stray_files_do_not_stop_a_training(own: str) -> None:
    (Path(own) / "notes.txt").write_text("mine")
    assert len(CacheStream(own, ARRAYS).samples) == 6
