"""Validation: a sound cache has no problem; each way of damaging it gives one name at one path, and no other."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from cache_schemas.layout import AnyArray
from cache_schemas.repair import repair
from cache_schemas.store import Cache
from cache_schemas.validate import Problem, ProblemKind, validate

SHARD = "shards/toy-000"

Damage = Callable[[Path], None]
Change = Callable[[AnyArray], AnyArray]
Groups = dict[str, dict[str, AnyArray]]


def problems_of(place: str | Path) -> list[Problem]:
    return list(validate(*Cache.open(str(place))))


def places_of(place: str | Path) -> list[tuple[str, str]]:
    return [(problem.kind.value, problem.path) for problem in problems_of(place)]


# Ways to damage a cache. Each returns the damage to do to a cache folder.


def remove(path: str) -> Damage:
    return lambda folder: shutil.rmtree(folder / path)


def put_file(path: str, content: bytes = b"x") -> Damage:
    def damage(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)

    return damage


def edit_attributes(path: str, edit: Callable[[dict[str, Any]], object]) -> Damage:
    """Edit the attributes of a Zarr group, as with a text editor."""

    def damage(folder: Path) -> None:
        document = folder / path / "zarr.json"
        content = json.loads(document.read_text())
        edit(content["attributes"])
        document.write_text(json.dumps(content))

    return damage


def edit_chunk(path: str, edit: Callable[[bytes], bytes]) -> Damage:
    """Edit the one chunk file of an array."""

    def damage(folder: Path) -> None:
        (chunk,) = (file for file in (folder / path / "c").rglob("*") if file.is_file())
        chunk.write_bytes(edit(chunk.read_bytes()))

    return damage


def flip(position: int) -> Callable[[bytes], bytes]:
    """Flip one bit of the byte at `position`."""

    def edit(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[position] ^= 1
        return bytes(changed)

    return edit


def assign(path: str, index: Any, value: float) -> Damage:
    """Change values in place with Zarr, behind the back of the seal."""

    def damage(folder: Path) -> None:
        array = zarr.open_array(folder / path, mode="r+")
        array[index] = value

    return damage


def replace_array(path: str, values: AnyArray) -> Damage:
    """Put another array in place of one, behind the back of the seal."""

    def damage(folder: Path) -> None:
        zarr.create_array(folder / path, data=values, overwrite=True)

    return damage


def rewrite(group: str, **changes: Change) -> Damage:
    """Write a group anew, with the same fingerprint and a fitting seal, after changing some of its arrays."""

    def damage(folder: Path) -> None:
        cache, _ = Cache.open(str(folder), "a")
        seal, arrays = cache.seals([group])[group], cache.read(group)
        arrays |= {name: change(arrays[name]) for name, change in changes.items()}
        cache.write_group(group, arrays, fingerprint=seal.fingerprint, upstream=seal.upstream)

    return damage


def redo(group: str, fingerprint: str = "new") -> Damage:
    """Write a group anew with another fingerprint."""

    def damage(folder: Path) -> None:
        cache, _ = Cache.open(str(folder), "a")
        seal, arrays = cache.seals([group])[group], cache.read(group)
        cache.write_group(group, arrays, fingerprint=fingerprint, upstream=seal.upstream)

    return damage


def with_value(index: Any, value: float) -> Change:
    def change(array: AnyArray) -> AnyArray:
        changed = array.copy()
        changed[index] = value
        return changed

    return change


@dataclass(frozen=True)
class Case:
    """A way of damaging the cache, and the one problem that it makes."""

    name: str
    kind: ProblemKind
    path: str
    damage: Damage


K = ProblemKind
CASES = [
    Case("seal with a field missing", K.DAMAGED_DOCUMENT, f"{SHARD}/clip",
         edit_attributes(f"{SHARD}/clip", lambda attrs: attrs.pop("fingerprint"))),
    Case("seal that is cut short", K.DAMAGED_DOCUMENT, f"{SHARD}/clip",
         put_file(f"{SHARD}/clip/zarr.json", b'{"attributes": {"state": "sea')),
    Case("seal that is no JSON object", K.DAMAGED_DOCUMENT, "text", put_file("text/zarr.json", b"[]")),
    Case("record with an unknown field", K.DAMAGED_DOCUMENT, "shards/toy-001",
         edit_attributes("shards/toy-001", lambda attrs: attrs.update(colour="blue"))),
    Case("record that is wiped", K.MISSING_RECORD, SHARD, edit_attributes(SHARD, dict.clear)),
    Case("folder without a record", K.MISSING_RECORD, "shards/toy-002",
         lambda folder: (folder / "shards" / "toy-002").mkdir()),
    Case("group that was never written", K.UNSEALED_GROUP, f"{SHARD}/sam", remove(f"{SHARD}/sam")),
    Case("text that was never written", K.UNSEALED_GROUP, "text", remove("text")),
    Case("group whose seal is wiped", K.UNSEALED_GROUP, f"{SHARD}/sam", edit_attributes(f"{SHARD}/sam", dict.clear)),
    Case("optional group killed half-way", K.UNSEALED_GROUP, f"{SHARD}/truth",
         edit_attributes(f"{SHARD}/truth", dict.clear)),
    Case("group whose source was redone", K.STALE_GROUP, f"{SHARD}/labels", redo(f"{SHARD}/sam")),
    Case("group whose text was redone", K.STALE_GROUP, f"{SHARD}/clip", redo("text")),
    Case("array whose folder is gone", K.MISSING_ARRAY, f"{SHARD}/sam/mask_ids", remove(f"{SHARD}/sam/mask_ids")),
    Case("array in the group but not in the seal", K.UNKNOWN_ARRAY, f"{SHARD}/images/depth",
         replace_array(f"{SHARD}/images/depth", np.ones(3))),
    Case("array of another dtype", K.WRONG_LAYOUT, f"{SHARD}/points/intensity",
         replace_array(f"{SHARD}/points/intensity", np.zeros(7, np.float64))),
    Case("array of another shape", K.WRONG_LAYOUT, f"{SHARD}/points/intensity",
         replace_array(f"{SHARD}/points/intensity", np.zeros(8, np.float32))),
    Case("group that does not fit its neighbours", K.WRONG_LAYOUT, f"{SHARD}/truth",
         rewrite(f"{SHARD}/truth", point=lambda array: array[:-1])),
    Case("group for another number of classes", K.WRONG_LAYOUT, f"{SHARD}/clip",
         rewrite(f"{SHARD}/clip", logits=lambda array: array[:, :2])),
    Case("embeddings for another number of classes", K.WRONG_LAYOUT, "text",
         rewrite("text", embeddings=lambda array: array[:2])),
    Case("flipped bit in an uncompressed chunk", K.UNREADABLE_ARRAY, f"{SHARD}/images/rgb",
         edit_chunk(f"{SHARD}/images/rgb", flip(10))),
    Case("flipped bit in a compressed chunk", K.UNREADABLE_ARRAY, f"{SHARD}/labels/point",
         edit_chunk(f"{SHARD}/labels/point", flip(10))),
    Case("flipped bit in the index of a chunk file", K.UNREADABLE_ARRAY, f"{SHARD}/images/rgb",
         edit_chunk(f"{SHARD}/images/rgb", flip(-8))),
    Case("truncated chunk", K.UNREADABLE_ARRAY, f"{SHARD}/sam/features",
         edit_chunk(f"{SHARD}/sam/features", lambda content: content[:100])),
    Case("truncated compressed chunk", K.UNREADABLE_ARRAY, f"{SHARD}/sam/mask_ids",
         edit_chunk(f"{SHARD}/sam/mask_ids", lambda content: content[:-1])),
    Case("emptied chunk", K.CHECKSUM_MISMATCH, f"{SHARD}/pairs/row",
         edit_chunk(f"{SHARD}/pairs/row", lambda content: b"")),
    Case("damaged array document", K.UNREADABLE_ARRAY, f"{SHARD}/pairs/row",
         put_file(f"{SHARD}/pairs/row/zarr.json", b"{")),
    Case("value changed behind the seal", K.CHECKSUM_MISMATCH, f"{SHARD}/points/xyz",
         assign(f"{SHARD}/points/xyz", (3, 1), 0.5)),
    Case("chunk file that is gone", K.CHECKSUM_MISMATCH, f"{SHARD}/images/rgb", remove(f"{SHARD}/images/rgb/c")),
    Case("stray file at the root", K.STRAY_FILE, "notes.txt", put_file("notes.txt")),
    Case("stray file in a shard", K.STRAY_FILE, f"{SHARD}/notes.txt", put_file(f"{SHARD}/notes.txt")),
    Case("stray group in a shard", K.STRAY_FILE, f"{SHARD}/depth/zarr.json", put_file(f"{SHARD}/depth/zarr.json")),
    Case("half-written chunk of a killed run", K.STRAY_FILE, f"{SHARD}/images/rgb/c/0/0/0/0.77aa.partial",
         put_file(f"{SHARD}/images/rgb/c/0/0/0/0.77aa.partial")),
    Case("embeddings that are not of unit norm", K.VALUE_OUT_OF_RANGE, "text/embeddings",
         rewrite("text", embeddings=with_value((2, 2), 1.01))),
    Case("logits that are not finite", K.VALUE_OUT_OF_RANGE, f"{SHARD}/clip/logits",
         rewrite(f"{SHARD}/clip", logits=with_value((0, 1, 1, 2), np.nan))),
]  # fmt: skip

CASES += [
    Case(f"{group}/offsets {problem}", K.VALUE_OUT_OF_RANGE, f"{SHARD}/{group}/offsets",
         rewrite(f"{SHARD}/{group}", offsets=with_value(index, value)))
    for group, total in (("images", 3), ("points", 7), ("pairs", 5))
    for problem, index, value in (("starting late", 0, 1), ("ending early", 2, total - 1), ("falling", 1, total + 1))
]  # fmt: skip
CASES += [
    Case(f"pairs/{name} {value}", K.VALUE_OUT_OF_RANGE, f"{SHARD}/pairs/{name}",
         rewrite(f"{SHARD}/pairs", **{name: with_value(4, value)}))
    for name, value in (("point", 7), ("point", -1), ("image", 3), ("row", 4), ("col", 6))
]  # fmt: skip
CASES += [
    Case(f"{group}/{name} {value}", K.VALUE_OUT_OF_RANGE, f"{SHARD}/{group}/{name}",
         rewrite(f"{SHARD}/{group}", **{name: with_value((-1,) * axes, value)}))
    for group, name, axes, value in (
        ("labels", "image_raw", 3, 3), ("labels", "image", 3, 254), ("labels", "point_raw", 1, 3),
        ("labels", "point", 1, 254), ("truth", "point", 1, 3),
    )
]  # fmt: skip


def test_a_sound_cache_has_no_problem(url: str, write_sound_cache: Callable[[str], Cache]) -> None:
    write_sound_cache(url)
    assert problems_of(url) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_each_damage_gives_exactly_its_problem(case: Case, sound_folder: Path) -> None:
    case.damage(sound_folder)
    assert places_of(sound_folder) == [(case.kind, case.path)]


@pytest.mark.parametrize("kind", ProblemKind)
def test_every_kind_of_problem_has_a_damage_that_makes_it(kind: ProblemKind) -> None:
    assert kind in {case.kind for case in CASES}


def test_an_array_gone_from_disk_and_seal_is_missing(sound_folder: Path) -> None:
    remove(f"{SHARD}/sam/mask_ids")(sound_folder)
    edit_attributes(f"{SHARD}/sam", lambda attrs: attrs["arrays"].pop("mask_ids"))(sound_folder)
    assert places_of(sound_folder) == [("missing-array", f"{SHARD}/sam/mask_ids")]


def test_a_sealed_array_outside_the_contract_is_unknown(sound_folder: Path) -> None:
    replace_array(f"{SHARD}/points/ring", np.zeros(7, np.uint8))(sound_folder)
    ring = {"shape": [7], "dtype": "uint8", "crc32c": "00000000"}
    edit_attributes(f"{SHARD}/points", lambda attrs: attrs["arrays"].update(ring=ring))(sound_folder)
    assert places_of(sound_folder) == [("unknown-array", f"{SHARD}/points/ring")]


def test_a_dtype_outside_the_contract_is_wrong_even_if_sealed(sound_folder: Path) -> None:
    values = zarr.open_array(sound_folder / SHARD / "truth" / "point", mode="r")[...]
    replace_array(f"{SHARD}/truth/point", np.asarray(values, np.int64))(sound_folder)
    edit_attributes(f"{SHARD}/truth", lambda attrs: attrs["arrays"]["point"].update(dtype="int64"))(sound_folder)
    assert places_of(sound_folder) == [("wrong-layout", f"{SHARD}/truth/point")]


def test_offsets_that_do_not_fit_the_samples_of_the_record_are_a_wrong_layout(sound_folder: Path) -> None:
    edit_attributes(SHARD, lambda attrs: attrs["samples"].append("s3"))(sound_folder)
    assert places_of(sound_folder) == [("wrong-layout", f"{SHARD}/{name}") for name in ("images", "points", "pairs")]


def test_messages_tell_what_was_found_and_what_was_promised(sound_folder: Path) -> None:
    for damage in (
        rewrite(f"{SHARD}/pairs", col=with_value(4, 6)),
        rewrite(f"{SHARD}/truth", point=with_value(0, 9)),
        replace_array(f"{SHARD}/sam/mask_ids", np.zeros((3, 4, 6), np.int64)),
        redo("text", "the-new-fingerprint"),
    ):
        damage(sound_folder)
    assert {problem.path: problem.message for problem in problems_of(sound_folder)} == {
        f"{SHARD}/sam/mask_ids": "int64 (3, 4, 6), sealed as uint16 (3, 4, 6)",
        f"{SHARD}/clip": "made from text fingerprint-, which is now the-new-fing",
        f"{SHARD}/pairs/col": "1 values out of range, the first 6 at 4",
        f"{SHARD}/truth/point": "id 9 is neither a class of street nor 255",
    }


def test_all_problems_of_a_cache_are_found(sound_folder: Path) -> None:
    put_file("notes.txt")(sound_folder)
    remove("text")(sound_folder)
    edit_chunk(f"{SHARD}/images/rgb", flip(10))(sound_folder)
    edit_attributes(f"{SHARD}/clip", dict.clear)(sound_folder)
    remove(f"{SHARD}/sam/mask_ids")(sound_folder)
    edit_chunk(f"{SHARD}/sam/features", flip(10))(sound_folder)
    edit_attributes("shards/toy-001", dict.clear)(sound_folder)
    assert set(places_of(sound_folder)) == {
        ("stray-file", "notes.txt"),
        ("unsealed-group", "text"),
        ("unreadable-array", f"{SHARD}/images/rgb"),
        ("unsealed-group", f"{SHARD}/clip"),
        ("missing-array", f"{SHARD}/sam/mask_ids"),
        ("unreadable-array", f"{SHARD}/sam/features"),
        ("missing-record", "shards/toy-001"),
    }


@pytest.mark.parametrize("path", [f"{SHARD}/truth", f"{SHARD}/sam/features_scale"])
def test_what_is_optional_may_be_left_out(sound_folder: Path, path: str) -> None:
    cache, _ = Cache.open(str(sound_folder), "a")
    if path.endswith("truth"):
        cache.remove_group(path)
    else:
        arrays = cache.read(f"{SHARD}/sam")
        arrays = {"mask_ids": arrays["mask_ids"], "features": arrays["features"].astype(np.float16)}
        seal = cache.seals([f"{SHARD}/sam"])[f"{SHARD}/sam"]
        cache.write_group(f"{SHARD}/sam", arrays, fingerprint=seal.fingerprint, upstream=seal.upstream)
    assert problems_of(sound_folder) == []


def test_a_group_made_under_other_settings_is_stale(sound_folder: Path) -> None:
    edit_attributes(f"{SHARD}/clip", lambda attrs: attrs.update(recipe="of another run"))(sound_folder)
    assert places_of(sound_folder) == [("stale-group", f"{SHARD}/clip")]


def test_a_redone_group_makes_only_what_came_from_it_stale(sound_folder: Path) -> None:
    redo(f"{SHARD}/images")(sound_folder)
    assert places_of(sound_folder) == [("stale-group", f"{SHARD}/clip"), ("stale-group", f"{SHARD}/sam")]


def test_a_shard_without_points_or_pairs_is_sound(sound_folder: Path, sound_arrays: Groups) -> None:
    def emptied(name: str) -> dict[str, Change]:
        return {
            array: (lambda values: values * 0) if array == "offsets" else (lambda values: values[:0])
            for array in sound_arrays[name]
            if not array.startswith("image") or name == "pairs"
        }

    for name in ("points", "pairs", "labels", "truth"):
        rewrite(f"{SHARD}/{name}", **emptied(name))(sound_folder)
    assert problems_of(sound_folder) == []


def test_problems_are_json_ready(sound_folder: Path) -> None:
    put_file("notes.txt")(sound_folder)
    (problem,) = problems_of(sound_folder)
    expected = {"kind": "stray-file", "path": "notes.txt", "message": "not part of the contract; remove it"}
    assert json.loads(json.dumps(problem.to_dict())) == expected


# Repair


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_repair_drops_what_is_bad_and_nothing_else(case: Case, sound_folder: Path) -> None:
    case.damage(sound_folder)
    before = state_of(sound_folder)
    cache, _ = Cache.open(str(sound_folder), "a")
    removed = repair(cache, problems_of(sound_folder))
    after = state_of(sound_folder)
    gone = set(before) - set(after)
    assert all(any(path == root or path.startswith(f"{root}/") for root in removed) for path in gone)
    assert {path: before[path] for path in after} == after, "what stays is as it was"
    kinds = {problem.kind for problem in problems_of(sound_folder)}
    assert kinds <= {K.UNSEALED_GROUP, K.MISSING_RECORD}, "what is left is only missing, not bad"
    assert len(removed) <= 1, "one damage costs one group at most"
