"""The paper's tables on one cache: rows by name, what they are made of, and running the command again."""

import json
import shutil
from pathlib import Path

import pytest

from tests.trainer.conftest import MakeCache
from tests.trainer.runs import overrides, run_cli
from trainer.settings import load_settings, recipes
from trainer.table_rows import ROWS

LOSSES_OF_OPENSCENE = {"terms.semantic", "terms.latent", "terms.distillation"}
ROW_NAMES = "baseline,maskclip++,without-cns,post-refine,without-refine,latent-clip,images-8,cns"
LACKING = {
    "latent-clip": "clip/features",
    "openscene": "clip/features",
    "openscene-ensemble": "clip/features",
    "clip2scene": "sweeps",
    "clip2scene-rooms": "clip/features",
    "cns-instances": "instance_labels",
    "affinity3d": "instance_labels",
}
"""What rows need that the toy cache lacks."""


def test_every_recipe_of_the_table_has_one_line_and_valid_settings() -> None:
    known = recipes()
    assert {row.recipe for row in ROWS if row.recipe} == {name for name in known if not name.endswith("-original")}
    assert all(text and "\n" not in text for text in known.values())
    listed = run_cli("recipes").stdout
    assert all(f"{name} " in listed and text in listed for name, text in known.items())


@pytest.mark.parametrize(
    ("recipe", "differing"),
    [
        ("cns-without-refine", {"schedule.refine"}),
        ("cns-without-ct", {"schedule.stage2"}),
        ("cns-without-sct", {"schedule.stage2"}),
        ("cns-without-clip", {"schedule.stage2"}),
        ("cns-latent-clip", {"terms.latent"}),
        ("cns-latent-sam-clip", {"terms.latent"}),
        ("cns-latent-none", {"terms.latent"}),
        ("maskclip++", {"schedule.refine", "schedule.stage2", "terms.latent"}),
        ("openscene", {"schedule.refine", "schedule.stage1", "schedule.stage2", *LOSSES_OF_OPENSCENE}),
        ("clip2scene-rooms", {"schedule.refine", "schedule.stage2", "terms.latent"}),
    ],
)
def test_a_variant_differs_from_the_full_method_only_in_what_the_paper_says(recipe: str, differing: set) -> None:
    full, variant = (load_settings("nuscenes", name).model_dump() for name in ("cns", recipe))
    found = {
        f"{part}.{name}"
        for part in ("schedule", "terms")
        for name in full[part]
        if full[part][name] != variant[part][name]
    }
    assert found == differing
    assert {name for name in full if full[name] != variant[name]} == {part.split(".")[0] for part in found} | {"recipe"}


@pytest.mark.slow
def test_rows_are_trained_once_and_scored_beside_the_labels(toy: str, tmp_path: Path) -> None:
    short = overrides("optimiser.epochs=1", "schedule.stage2_epoch=1")
    names = [*ROW_NAMES.split(","), *LACKING]
    arguments = ("table", toy, "--out", tmp_path, "--rows", ",".join(names), *short, "--json")
    first = json.loads(run_cli(*arguments).stdout)
    (block,) = first["caches"]
    rows = {row["name"]: row for row in block["rows"]}
    assert list(rows) == [row.name for row in ROWS if row.name in names]
    assert rows["images-8"]["left_out"] == "samples have 2 images" and not rows["images-8"]["image"]
    assert {name: rows[name]["left_out"] for name in LACKING} == {
        name: f"the cache has no {lacking}" for name, lacking in LACKING.items()
    }
    runs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert runs == ["cns-seed-0", "cns-without-refine-seed-0", "maskclip++-seed-0"]

    for name, run, refine in (("cns", "cns-seed-0", ()), ("post-refine", "cns-without-refine-seed-0", ("--refine",))):
        found = json.loads(run_cli("evaluate", tmp_path / "runs" / run, toy, "--json", *refine).stdout)
        assert found["scenes"] == "held-out"
        assert (rows[name]["image"], rows[name]["point"]) == ([found["image"]["miou"]], [found["point"]["miou"]])
        raw, refined = (found["labels"][kind] for kind in ("raw", "refined"))
        assert rows["baseline"]["image"] == [raw["image"]["miou"]]
        assert rows["without-cns"]["point"] == [refined["point_seen"]["miou"]]

    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/last.pt")}
    text = run_cli("table", toy, "--out", tmp_path, "--rows", ",".join(names), *short).stdout
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/last.pt")}
    assert all(
        f"left out: {rows[name]['title']}, since the cache has no {lacking}" in text
        for name, lacking in LACKING.items()
    )
    assert (
        "MaskCLIP (Baseline)" in text and "left out: 8 images, since samples have 2 images" in text and "33.5" in text
    )
    markdown = (tmp_path / "table.md").read_text()
    assert markdown.count("|\n") == len(rows) + 2

    raw_alone = {"clip-2d": 1}
    assert rows["maskclip++"]["settings"]["schedule.refine"] is False
    assert rows["maskclip++"]["settings"]["schedule.stage2.image"] == raw_alone
    assert rows["cns"]["settings"] == rows["baseline"]["settings"] == {} and rows["images-8"]["settings"] == {
        "stream.images": 8
    }
    assert block["labels"] == {"teachers": "toy", "prompts": "toy"}
    for written_text in (text, markdown):
        assert "recipe maskclip++ (" in written_text and "schedule.stage2.image={clip-2d: 1}" in written_text
        assert "teachers toy, prompts toy." in written_text and "optimiser.epochs=1" in written_text


@pytest.mark.slow
def test_rows_are_trained_on_all_caches_and_scored_on_the_held_out_scenes_of_each(
    rich_toy: str, make_cache: MakeCache, tmp_path: Path
) -> None:
    made_by = {
        "clip": {"architecture": "ViT-B-16", "attention": "sclip", "key_smoothing": None},
        "labels": {"vote": "mean"},
    }
    other = make_cache(tmp_path / "other", scenes=3, seed=7, rich=True, config=made_by)
    names = ("baseline", "openscene", "openscene-fused-2d", "openscene-ensemble")
    words = overrides("optimiser.epochs=1", "schedule.stage2_epoch=1")
    done = run_cli("table", rich_toy, other, "--out", tmp_path, "--rows", ",".join(names), *words, "--json")
    blocks = json.loads(done.stdout)["caches"]
    run = tmp_path / "runs/openscene-seed-0"
    assert [cache["share"] for cache in json.loads((run / "run.json").read_text())["caches"]] == [1, 1]
    assert [path.name for path in run.parent.iterdir()] == [run.name]
    for block, cache in zip(blocks, (rich_toy, other), strict=True):
        found = json.loads(run_cli("evaluate", run, cache, "--ensemble", "--json").stdout)
        assert (block["cache"], block["scenes"], found["scenes"], found["samples"]) == (
            cache,
            "held-out",
            "held-out",
            2,
        )
        baseline, plain, fused, ensemble = block["rows"]
        assert tuple(row["name"] for row in block["rows"]) == names
        assert baseline["image"] == [found["labels"]["raw"]["image"]["miou"]]
        assert (plain["image"], plain["point"]) == ([found["image"]["miou"]], [found["point"]["miou"]])
        assert (fused["image"], fused["point"]) == ([None], [found["fused_2d"]["miou"]])
        assert (ensemble["image"], ensemble["point"]) == ([None], [found["ensemble"]["miou"]])
        assert fused["point"] != plain["point"]
    labels = blocks[1]["labels"]
    assert labels["clip.attention"] == "sclip" and "clip.key_smoothing" not in labels
    text = (tmp_path / "table.txt").read_text()
    assert "2: 3D mIoU" in text and f"Labels of 1: {rich_toy}, held-out scenes" in text
    assert f"{other}, held-out scenes: teachers toy, prompts toy, clip.attention sclip, labels.vote mean." in text
    assert (tmp_path / "table.md").read_text().splitlines()[0].count("|") == 1 + 1 + 2 * 4 + 2


def test_caches_that_do_not_fit_together_are_refused_before_any_training(
    toy: str, lidarseg: str, tmp_path: Path
) -> None:
    refused = run_cli("table", toy, lidarseg, "--out", tmp_path, "--rows", "cns", *overrides(), exit_code=1).stderr
    assert f"{toy} and {lidarseg}: cannot be trained on together" in refused and not (tmp_path / "runs").exists()


def test_a_cache_that_is_given_twice_is_refused(toy: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(toy)
    for again in (toy, f"{toy}/", tmp_path / "link"):
        done = run_cli("table", toy, again, "--out", tmp_path / "out", "--rows", "cns", *overrides(), exit_code=1)
        assert f"{toy} and {again} are the same cache; give each cache once" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_group_is_not_taken_for_an_absent_one(rich_toy: str, tmp_path: Path) -> None:
    cache = shutil.copytree(rich_toy, tmp_path / "cache")
    (data,) = (file for file in (cache / "shards/scene-0-000/sweeps/xyz/c").rglob("*") if file.is_file())
    data.write_bytes(b"")
    refused = run_cli("table", cache, "--out", tmp_path, "--rows", "clip2scene", *overrides(), exit_code=1).stderr
    assert "scene-0-000/sweeps" in refused and not (tmp_path / "table.txt").exists()


@pytest.mark.slow
def test_mean_and_spread_are_over_seeds(toy: str, tmp_path: Path) -> None:
    short = overrides("optimiser.epochs=1", "schedule.stage2_epoch=1")
    found = run_cli("table", toy, "--out", tmp_path, "--rows", "cns", "--seeds", "1,2", *short, "--json")
    ((row,),) = [block["rows"] for block in json.loads(found.stdout)["caches"]]
    assert len(row["image"]) == 2 and row["image"][0] != row["image"][1]
    mean, half = 50 * sum(row["image"]), abs(row["image"][0] - row["image"][1]) * 100 / 2**0.5
    assert f"{mean:.1f} ± {half:.1f}" in (tmp_path / "table.txt").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rows", "cnss"), "no row 'cnss'; choose baseline, maskclip++"),
        (("--rows", "baseline"), "add one, such as --rows cns"),
    ],
)
def test_rows_that_cannot_be_made_are_refused(toy: str, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    assert said in run_cli("table", toy, "--out", tmp_path, *words, exit_code=1).stderr


def test_seeds_are_whole_numbers(toy: str, tmp_path: Path) -> None:
    assert "--seeds" in run_cli("table", toy, "--out", tmp_path, "--seeds", "one", exit_code=2).stderr
