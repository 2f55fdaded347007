"""The card of a cache: its numbers are those counted by hand, other software reads it, and an old one is found."""

import json
import logging
import re
import runpy
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from huggingface_hub import DatasetCard

from cache_schemas.creation import create_new
from cache_schemas.documents import QuarantinedSample, TeacherIdentity, Teachers
from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.merge import merge
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from labelgen.cli import main
from labelgen.weights import REGISTRY
from tests.toy_cache import create_toy_cache, toy_manifest, write_toy_shard

FORMAT_1 = Path(__file__).parents[2] / "cache_schemas" / "format1" / "cache.zarr"

MakeCache = Callable[..., str]
MakeSample = Callable[..., dict[str, Any]]


def labelgen(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def text_of(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, make_cache: MakeCache, sample: MakeSample) -> Path:
    folder = tmp_path_factory.mktemp("own") / "own.zarr"
    return Path(make_cache(folder, {"a": [sample()], "b": [sample(), sample()]}))


@pytest.fixture
def own(tmp_path: Path, template: Path) -> Path:
    """A cache of two shards of this test's own."""
    return Path(shutil.copytree(template, tmp_path / "own.zarr"))


def declare(url: str, dataset: str, **fields: object) -> None:
    """Let a cache be one of another data set."""
    cache, manifest = Cache.open(url, "a")
    changed = toy_manifest(dataset=dataset, split="train", taxonomy=manifest.taxonomy, **fields)
    Cache.create(url, changed)
    for key, record in cache.shard_records(cache.shard_keys()).items():
        cache.write_shard_record(key, record.model_copy(update={"dataset": dataset, "split": "train"}))


def problems(url: str | Path) -> list[str]:
    return list(map(str, validate(*Cache.open(str(url)))))


def test_its_numbers_are_those_counted_by_hand(ten_shards: str) -> None:
    lines = text_of(labelgen("card", ten_shards, "--stdout")).splitlines()
    for row in (
        "| toy | - | all | 10 | 10 | not stated |",
        "| samples with labels | 10 |",
        "| pictures | 20 |",
        "| points | 40 |",
        "| pairs of a pixel and a point | 40 |",
        "| 0 | car | 45.0% | 90.0% | 60.0% | 90.0% |",
        "| 1 | road | 50.0% | 100.0% | 33.3% | 100.0% |",
        "| 2 | tree | 5.0% | 0.0% | 6.7% | 0.0% |",
        "- Cameras see 75.0% of the points; the others have no label in `labels/point`.",
        "- Masks of SAM cover 90.0% of the pixels. The vote in masks changed 30.0% of the labels of pixels.",
        f"| clip | toy | toy.safetensors | {'ab' * 32} | not stated |",
    ):
        assert row in lines
    first = lines.index("| 0 | car | 45.0% | 90.0% | 60.0% | 90.0% |")
    assert lines[first - 2 : first] == [
        "| id | class | of the pixels | IoU of pixels | of the points | IoU of points |",
        "|---|---|---|---|---|---|",
    ], "a table in one piece"
    assert not any(ten_shards in line for line in lines), "the place of the cache is nobody's business"


def test_accuracy_is_that_of_inspect(ten_shards: str) -> None:
    truth = json.loads(text_of(labelgen("inspect", ten_shards, "--json")))["truth"]
    card = text_of(labelgen("card", ten_shards, "--stdout"))
    for unit, found in (("pixels", truth["image"]), ("points", truth["point"])):
        for labels, when in (("raw", "raw"), ("after the vote in masks", "refined")):
            shares = (found["share"], found[when]["miou"], found[when]["accuracy"])
            with_truth, miou, accuracy = (f"{100 * share:.1f}%" for share in shares)
            assert f"| {unit} | {with_truth} | {labels} | {miou} | {accuracy} |" in card.splitlines()


def test_mlcroissant_reads_it_without_a_complaint(
    ten_shards: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlcroissant
    file = tmp_path / "croissant.json"
    file.write_text(text_of(labelgen("card", ten_shards, "--json")))
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        dataset = mlcroissant.Dataset(file)
        classes = list(dataset.records("classes"))
    issues = dataset.metadata.ctx.issues
    assert not issues.errors and not issues.warnings and not caplog.records
    assert [row["classes/name"] for row in classes] == ["car", "road", "tree"]
    assert [row["classes/pixel_share"] for row in classes] == pytest.approx([0.45, 0.5, 0.05])
    assert {"manifest", "files-labels-point"} <= {found.id for found in dataset.metadata.distribution}


def test_the_files_that_croissant_names_are_there(own: Path) -> None:
    card = json.loads(text_of(labelgen("card", own, "--json")))
    for entry in card["distribution"]:
        if entry["@type"] == "cr:FileSet":
            assert any(path.is_file() for path in own.glob(entry["includes"] + "/*")), entry
    arrays = {row["arrays/path"]: row["arrays/bytes"] for row in card["recordSet"][1]["data"]}
    stored = [Cache(str(own)).stored_bytes(GroupPath(key, "images"))["rgb"] for key in ("a-000", "b-000")]
    assert arrays["images/rgb"] == sum(stored)


@pytest.mark.parametrize(
    "dataset, options, fields, row",
    [
        ("nuscenes", [], {"license": "cc-by-nc-sa-4.0"}, "nuScenes apply too. Please cite Caesar et al."),
        ("semantickitti", [], {"license": "cc-by-nc-sa-4.0"}, "those of KITTI, which are under CC BY-NC-SA 3.0."),
        (
            "scannet",
            [],
            {"license": "other", "license_name": "ScanNet terms of use"},
            "Whoever gets the data must accept the terms",
        ),
        ("files", ["--licence", "CC0"], {"license": "other", "license_name": "CC0"}, "- files: CC0."),
        ("files", [], {"license": "unknown"}, "- files: not stated."),
    ],
)
def test_the_licence_is_that_of_the_data(
    dataset: str, options: list[str], fields: dict[str, str], row: str, own: Path
) -> None:
    declare(str(own), dataset)
    text = text_of(labelgen("card", own, "--stdout", *options))
    data = DatasetCard(text).data.to_dict()
    assert fields.items() <= data.items()
    assert data["annotations_creators"] == ["machine-generated"] and data["size_categories"] == ["n<1K"]
    assert row in text


def test_a_licence_of_its_own_is_not_replaced(own: Path) -> None:
    declare(str(own), "nuscenes")
    result = labelgen("card", own, "--licence", "MIT")
    assert result.exit_code == 1 and "has a licence of its own (CC BY-NC-SA 4.0)" in result.stderr


def test_official_weights_have_their_licence(own: Path) -> None:
    networks = {
        name: TeacherIdentity(architecture="x", weights=weights, sha256=REGISTRY[weights].sha256)
        for name, weights in (("clip", "clip-vit-b-16"), ("sam", "sam-vit-h"))
    }
    declare(str(own), "nuscenes", teachers=Teachers(preset="paper", networks=networks))
    text = text_of(labelgen("card", own, "--stdout"))
    assert re.search(r"\| clip \| .*5806e77c\w+ \| \[MIT\]", text)
    assert re.search(r"\| sam \| .*a7bf3b02\w+ \| \[Apache 2.0\]", text)


def test_the_snippet_reads_the_cache_with_zarr_alone(
    own: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text_of(labelgen("card", own))
    (code,) = re.findall(r"```python\n(.*?)```", (own / "README.md").read_text(), re.DOTALL)
    (tmp_path / "snippet.py").write_text(code)
    monkeypatch.chdir(own)
    runpy.run_path(str(tmp_path / "snippet.py"))
    counts = "{'car': 2, 'road': 1, 'tree': 0}"
    assert sorted(capsys.readouterr().out.splitlines()) == [f"{key} (4, 3) {counts}" for key in ("a-000", "b-000")]
    assert "import zarr\n" in code and code.count("import") == 1


def test_a_cache_of_pictures_alone_without_truth(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, place = Cache(str(own)), tmp_path / "pictures"
    cache = create_toy_cache(str(place), toy_manifest(modalities=("image",)), embedding_size=4)
    groups = {name: source.read(GroupPath("a-000", name)) for name in ("images", "clip", "sam", "labels")}
    groups["labels"] = {name: groups["labels"][name] for name in ("image_raw", "image")}
    write_toy_shard(cache, "a", groups, ["a-0"])
    text = text_of(labelgen("card", place, "--stdout"))
    assert "The cache holds no truth" in text and "point" not in text.split("## Reading")[0].replace("point_", "")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "snippet.py").write_text(code)
    monkeypatch.chdir(place)
    runpy.run_path(str(tmp_path / "snippet.py"))


def test_faults_are_told(own: Path) -> None:
    cache = Cache(str(own), "a")
    record = cache.shard_records(["a-000"])["a-000"]
    broken = QuarantinedSample(sample="x", stage="points", reason="cloud | is <cut> short", inputs="9d")
    cache.write_shard_record("a-000", record.model_copy(update={"quarantined": (broken,)}))
    (own / "shards/b-000/labels/image/c/0/0/0").write_bytes(b"")
    text = text_of(labelgen("card", own, "--stdout"))
    assert r"- left out, 1x points: cloud \| is &lt;cut> short" in text.splitlines()
    assert re.search(r"^- shards/b-000/labels/image: unreadable-array: ", text, re.MULTILINE)
    card = json.loads(text_of(labelgen("card", own, "--json")))
    assert any("unreadable-array" in fault for fault in card["rai:dataLimitations"])


def test_a_card_lies_in_the_cache_and_bothers_nobody(make_cache: MakeCache, sample: MakeSample, tmp_path: Path) -> None:
    for number, url in enumerate((str(tmp_path / "c.zarr"), "memory://cards/c.zarr")):
        made = Cache(make_cache(tmp_path / f"{number}", {"a": [sample()]}))
        if number:
            merge([made.url], url)
        else:
            Path(made.url).rename(url)
        assert text_of(labelgen("card", url)) == f"{url}: wrote README.md and croissant.json\n"
        assert {"README.md", "croissant.json"} <= set(Cache(url).top_names())
        assert problems(url) == []
        text_of(labelgen("card", url))  # replaces the first one
        merge([url], str(tmp_path / f"merged-{number}"))
        assert not list((tmp_path / f"merged-{number}").glob("*.md")), "that is another cache"


def test_an_old_card_is_not_packed(own: Path, tmp_path: Path) -> None:
    text_of(labelgen("card", own))
    text_of(labelgen("pack", own, tmp_path / "one.zip"))
    assert "README.md" in Cache(str(tmp_path / "one.zip")).top_names()
    assert text_of(labelgen("card", tmp_path / "one.zip", "--stdout")) == (own / "README.md").read_text()
    manifest = Cache.open(str(own))[1]
    Cache.create(str(own), manifest.model_copy(update={"config_digest": "another"}))
    result = labelgen("pack", own, tmp_path / "two.zip")
    assert result.exit_code == 1 and "describes an earlier state of the cache; run `labelgen card" in result.stderr
    text_of(labelgen("card", own))
    text_of(labelgen("pack", own, tmp_path / "two.zip"))


def test_a_card_of_format_1_is_old_after_a_migration(tmp_path: Path) -> None:
    place = Path(shutil.copytree(FORMAT_1, tmp_path / "c.zarr"))
    text_of(labelgen("card", place))
    assert "plain Zarr v3, format 1. In" in (place / "README.md").read_text()
    text_of(labelgen("migrate", place))
    assert "an earlier state" in labelgen("pack", place, tmp_path / "c.zip").stderr
    text_of(labelgen("card", place))
    assert "plain Zarr v3, format 2." in (place / "README.md").read_text() and problems(place) == []


def test_a_users_own_readme_is_kept(own: Path, tmp_path: Path) -> None:
    (own / "README.md").write_text("my notes")
    for command in (["card", own], ["pack", own, tmp_path / "x.zip"]):
        result = labelgen(*command)
        assert result.exit_code == 1 and "not a card" in result.stderr
    assert (own / "README.md").read_text() == "my notes"
    (own / "README.md").rename(own / "croissant.json")
    assert "croissant.json: not a card" in labelgen("card", own).stderr
    (own / "croissant.json").unlink()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("a project")
    with pytest.raises(CacheError, match="not empty"):
        create_new(str(tmp_path / "project"), toy_manifest())


def test_nothing_is_written_where_it_is_printed_or_refused(own: Path, empty: str, tmp_path: Path) -> None:
    before = sorted(own.rglob("*"))
    text_of(labelgen("card", own, "--stdout"))
    text_of(labelgen("card", own, "--json"))
    assert labelgen("card", own, "--json", "--stdout").exit_code == 2
    assert sorted(own.rglob("*")) == before
    result = labelgen("card", empty)
    assert result.exit_code == 1 and "no shard is finished" in result.stderr
    text_of(labelgen("pack", own, tmp_path / "own.zip"))
    result = labelgen("card", tmp_path / "own.zip")
    assert result.exit_code == 1 and "unzip" in result.stderr


def test_names_in_the_cache_are_no_markup(make_cache: MakeCache, sample: MakeSample, tmp_path: Path) -> None:
    url = make_cache(tmp_path / "c.zarr", {"a": [sample()]}, ("a|b", "<script>", "```"))
    text = text_of(labelgen("card", url, "--stdout"))
    assert r"| 0 | a\|b | 50.0% |" in text and "| 1 | &lt;script> | 50.0% |" in text and "| 2 | ''' | 0.0% |" in text
    assert np.isin([line.count("```") for line in text.splitlines()], [0, 1]).all() and text.count("```") == 4


def test_texts_of_the_manifest_are_no_markup(own: Path) -> None:
    cache, manifest = Cache.open(str(own))
    config = {"prompts": "a\n```\n# H\n````", "other": "long " * 20 + "```"}
    software = {"[x](http://x)": "1\n# H\x1b[31m", "![i](http://i)": "*2*"}
    Cache.create(cache.url, manifest.model_copy(update={"config": config, "software": software}))
    text = text_of(labelgen("card", own, "--stdout"))
    settings = text[text.index("`````yaml\n") :]
    assert settings.endswith("\n`````\n") and settings.count("`````") == 2
    assert r"\[x\](http://x) 1 # H\\x1b\[31m, !\[i\](http://i) \*2\*." in text and "\x1b" not in text


@pytest.mark.parametrize("licence", ["", " ", "CC\n# BY", "CC \x1b[31m", "CC \udcff"])
def test_a_licence_is_one_line_of_text(own: Path, licence: str) -> None:
    result = labelgen("card", own, "--stdout", "--licence", licence)
    assert result.exit_code == 2 and "give its name in one line" in result.stderr


def test_a_report_does_not_replace_a_packed_cache(own: Path, tmp_path: Path) -> None:
    packed = tmp_path / "own.zip"
    text_of(labelgen("pack", own, packed))
    content = packed.read_bytes()
    (tmp_path / "link.html").symlink_to(packed)
    for arguments in ([packed, "--html", packed], [own, "--against", packed, "--html", tmp_path / "link.html"]):
        result = labelgen("inspect", *arguments)
        assert result.exit_code == 1 and "is the cache that is read" in result.stderr
    assert packed.read_bytes() == content
