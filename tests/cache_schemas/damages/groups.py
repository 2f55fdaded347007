"""Whole groups and shards that do not fit the others: axis sizes, unsealed groups, other runs."""

import shutil
from pathlib import Path

import numpy as np

from cache_schemas.problems import ProblemKind as K
from cache_schemas.store import Cache
from tests.cache_schemas.damages.registry import SHARD, makes
from tests.cache_schemas.editing import edit_attributes, reseal

# Sizes of axes that do not agree


@makes(K.WRONG_LAYOUT, f"{SHARD}/truth")
def truth_of_fewer_points_than_there_are(folder: Path) -> None:
    reseal(folder, f"{SHARD}/truth", point=lambda array: array[:-1])


@makes(K.WRONG_LAYOUT, f"{SHARD}/images")
def pictures_of_another_size_than_their_labels(folder: Path) -> None:
    reseal(folder, f"{SHARD}/images", rgb=lambda array: array[:, :2])


@makes(K.WRONG_LAYOUT, f"{SHARD}/clip")
def scores_of_fewer_classes_than_the_taxonomy(folder: Path) -> None:
    reseal(folder, f"{SHARD}/clip", logits=lambda array: array[:, :2])


@makes(K.WRONG_LAYOUT, "text")
def embeddings_of_fewer_classes_than_the_taxonomy(folder: Path) -> None:
    reseal(folder, "text", embeddings=lambda array: array[:2])


@makes(K.WRONG_LAYOUT, f"{SHARD}/points")
def offsets_of_more_samples_than_the_record(folder: Path) -> None:
    reseal(folder, f"{SHARD}/points", offsets=lambda array: np.append(array, array[-1]))


# Unsealed groups


@makes(K.UNSEALED_GROUP, f"{SHARD}/sam")
def a_group_that_was_never_written(folder: Path) -> None:
    shutil.rmtree(folder / SHARD / "sam")


@makes(K.UNSEALED_GROUP, "text")
def embeddings_that_were_never_written(folder: Path) -> None:
    shutil.rmtree(folder / "text")


@makes(K.UNSEALED_GROUP, f"{SHARD}/sam")
def a_group_whose_writer_was_killed(folder: Path) -> None:
    edit_attributes(folder, f"{SHARD}/sam", dict.clear)


@makes(K.UNSEALED_GROUP, f"{SHARD}/truth")
def an_optional_group_whose_writer_was_killed(folder: Path) -> None:
    edit_attributes(folder, f"{SHARD}/truth", dict.clear)


@makes(K.UNSEALED_GROUP, f"{SHARD}/clip")
def arrays_without_their_group(folder: Path) -> None:
    (folder / SHARD / "clip/zarr.json").unlink()


# Groups and shards of another run


@makes(K.STALE_GROUP, f"{SHARD}/labels")
def a_group_whose_source_was_redone(folder: Path) -> None:
    reseal(folder, f"{SHARD}/sam", fingerprint="new")


@makes(K.STALE_GROUP, f"{SHARD}/clip")
def a_group_whose_class_names_were_redone(folder: Path) -> None:
    reseal(folder, "text", fingerprint="new")


@makes(K.STALE_GROUP, f"{SHARD}/clip")
def a_group_made_under_other_settings(folder: Path) -> None:
    reseal(folder, f"{SHARD}/clip", recipe="of another run", fingerprint="of another run")


@makes(K.STALE_GROUP, "text")
def class_names_made_under_other_settings(folder: Path) -> None:
    reseal(folder, "text", recipe="of another run", fingerprint="of another run")


@makes(K.STALE_GROUP, f"{SHARD}/sam")
def a_group_made_by_another_network(folder: Path) -> None:
    clip = Cache.open(str(folder))[1].teachers.networks["clip"]
    reseal(folder, f"{SHARD}/sam", teacher=clip.model_copy(update={"weights": "untrained:3"}))


@makes(K.FOREIGN_GROUP, f"{SHARD}/sam")
def a_group_of_other_samples(folder: Path) -> None:
    reseal(folder, f"{SHARD}/sam", samples=("s7", "s8"), fingerprint="of another shard")


@makes(K.FOREIGN_GROUP, "shards/toy-001/points")
def a_group_in_a_shard_whose_samples_are_all_quarantined(folder: Path) -> None:
    reseal(folder, f"{SHARD}/points", to="shards/toy-001/points")


@makes(K.FOREIGN_RECORD, SHARD, costs=f"{SHARD}/zarr.json")
def a_record_of_other_samples_than_all_groups(folder: Path) -> None:
    edit_attributes(folder, SHARD, lambda attrs: attrs.update(samples=["s0", "s1", "s9"]))


@makes(K.FOREIGN_SHARD, "shards/street-000", costs="shards/street-000")
def a_shard_of_another_scene_than_its_name(folder: Path) -> None:
    shutil.copytree(folder / SHARD, folder / "shards/street-000")


@makes(K.FOREIGN_SHARD, "shards/toy-002", costs="shards/toy-002")
def a_shard_that_holds_samples_of_another(folder: Path) -> None:
    shutil.copytree(folder / SHARD, folder / "shards/toy-002")


@makes(K.STALE_GROUP, "shards/toy-002/clip", (K.STALE_GROUP, "shards/toy-002/labels"), (K.STALE_GROUP, f"{SHARD}/clip"))
def a_shard_out_of_a_cache_of_other_settings(folder: Path) -> None:
    """The other cache has other samples, class names and masks; the last problem shows that ours stay as they are."""
    other = shutil.copytree(folder, folder.parent / "other")
    tokens = ("o0", "o1")
    edit_attributes(other, SHARD, lambda attrs: attrs.update(samples=list(tokens)))
    upstream = {"images": "f-images", "text": "other class names"}
    for group in ("images", "clip", "sam", "points", "pairs", "labels", "truth"):
        reseal(other, f"{SHARD}/{group}", samples=tokens, **({"upstream": upstream} if group == "clip" else {}))
    reseal(other, f"{SHARD}/sam", fingerprint="other masks")
    shutil.copytree(other / SHARD, folder / "shards/toy-002")
    reseal(folder, f"{SHARD}/clip", recipe="ours is old too")
