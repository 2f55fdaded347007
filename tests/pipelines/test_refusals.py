"""What is refused before any work starts: one error that names the fix, exit code 1, and nothing is changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cache_schemas.layout import SCHEMA_MINOR
from tests.pipelines.caches import checksums


def test_a_cluster_that_does_not_answer_is_one_error(made: Path, tmp_path: Path, labelgen_here) -> None:
    done = labelgen_here.run(made / "nuscenes", tmp_path / "cache.zarr", "--ray-address", "127.0.0.1:1")
    assert done.returncode == 1
    assert "no Ray cluster answers at '127.0.0.1:1'" in done.stderr


def test_a_dataset_whose_files_are_all_missing_is_refused(data: Path, tmp_path: Path, labelgen_here) -> None:
    shutil.rmtree(data / "samples")
    done = labelgen_here.run(data, tmp_path / "cache.zarr")
    assert done.returncode == 1
    assert "none of the 5 samples to be read has its files" in done.stderr
    assert "is the disk mounted" in done.stderr


@pytest.mark.parametrize("folder", ["data itself", "folder of notes"])
def test_no_cache_is_made_in_a_folder_with_other_files(data: Path, tmp_path: Path, labelgen_here, folder: str) -> None:
    mine = data
    if folder == "folder of notes":
        mine = tmp_path / "mine"
        mine.mkdir()
        (mine / "thesis.txt").write_text("years of work")
    before = checksums(mine)
    done = labelgen_here.run(data, mine)
    assert done.returncode == 1
    assert f"error: {mine}: not a cache, and not empty (it holds " in done.stderr
    assert checksums(mine) == before


def test_a_packed_cache_is_refused_before_the_data_set_is_read(tmp_path: Path, labelgen_here) -> None:
    packed = tmp_path / "packed.zarr"
    packed.write_bytes(b"a file")
    done = labelgen_here.run(tmp_path / "no data set here", packed)
    assert done.returncode == 1
    assert "only a folder or an object store can be written; unpack a packed cache with" in done.stderr


def test_an_object_store_without_its_package_is_one_error(labelgen_here) -> None:
    done = labelgen_here("inspect", "gs://bucket/cache.zarr")
    assert done.returncode == 1
    assert "install the fsspec package of this protocol" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--split", "vla"], "no split 'vla' of nuScenes; choose all, mini_train"),
        (["--set", "version=v1.0-trainval"], "no version folder 'v1.0-trainval'; it holds v1.0-mini"),
        (["--set", "shard_samples=1"], "holds shards of up to 2 samples"),
        (["--set", "prompts=absent"], "prompts 'absent': no such file"),
        (["--shards", "scene-9*"], "--shards 'scene-9*' matches no shard; keys look like scene-0061-000"),
        (["--teachers", "paper"], "weights clip-vit-b-16 are not at"),
    ],
)
def test_a_run_that_cannot_start_says_why_and_harms_nothing(
    made: Path, cache: Path, labelgen_here, arguments: list[str], said: str
) -> None:
    before = checksums(cache)
    done = labelgen_here.run(made / "nuscenes", cache, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in done.stderr
    assert checksums(cache) == before


def test_wrong_class_count_names_the_classes(made: Path, cache: Path, tmp_path: Path, labelgen_here) -> None:
    prompts = tmp_path / "short.yaml"
    prompts.write_text((made / "prompts.yaml").read_text().replace("  terrain: [grass]\n", ""))
    done = labelgen_here.run(made / "nuscenes", cache, "--set", f"prompts={prompts}")
    assert done.returncode == 1
    assert "15 classes, taxonomy nuscenes16 has 16: it lacks terrain" in done.stderr


def test_another_schema_version_is_refused(made: Path, cache: Path, labelgen_here) -> None:
    document = json.loads((cache / "zarr.json").read_text())
    document["attributes"]["schema_version"] = 3
    (cache / "zarr.json").write_text(json.dumps(document))
    for command in (["inspect", str(cache)], ["verify", str(cache)]):
        done = labelgen_here(*command)
        assert done.returncode == 1
        assert f"schema version 3, this software reads versions 1 and 2.0 to 2.{SCHEMA_MINOR}" in done.stderr
    assert "schema version 3" in labelgen_here.run(made / "nuscenes", cache).stderr


def edit_attributes(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((folder / "zarr.json").read_text())
    edit(document["attributes"])
    (folder / "zarr.json").write_text(json.dumps(document))


def test_a_cache_of_images_alone_is_refused_for_samples_with_points(made: Path, cache: Path, labelgen_here) -> None:
    edit_attributes(cache, lambda attributes: attributes.update(modalities=["image"]))
    done = labelgen_here.run(made / "nuscenes", cache)
    assert done.returncode == 1
    assert "holds modalities 'image', not 'image and point'; give another cache folder" in done.stderr


def name_another_data_set(cache: Path) -> None:
    """Make all of a cache that of another data set whose scenes have the same names."""

    def rename(attributes: dict[str, Any]) -> None:
        attributes["sources"][0]["dataset"] = "demo"
        attributes["recipes"] = {"demo": attributes["recipes"]["nuscenes"]}

    edit_attributes(cache, rename)
    for shard in (cache / "shards").glob("*-*"):
        edit_attributes(shard, lambda attributes: attributes.update(dataset="demo"))


def test_a_shard_of_another_data_set_is_never_overwritten(made: Path, cache: Path, labelgen_here) -> None:
    name_another_data_set(cache)
    done = labelgen_here.run(made / "nuscenes", cache)
    assert done.returncode == 1
    assert "shard scene-0061-000 is of data set demo, and nuscenes has a scene of the same name" in done.stderr


def test_another_data_set_joins_only_under_the_settings_of_the_teachers(made: Path, cache: Path, labelgen_here) -> None:
    name_another_data_set(cache)
    done = labelgen_here.run(made / "nuscenes", cache, "--set", "sam.points_per_side=2")
    assert done.returncode == 1
    assert "holds sam of demo, made under other settings" in done.stderr


def test_a_place_that_cannot_be_written_is_one_error(made: Path, tmp_path: Path, labelgen_here) -> None:
    (tmp_path / "file").write_text("")
    done = labelgen_here.run(made / "nuscenes", tmp_path / "file" / "cache.zarr")
    assert done.returncode == 1
    assert "choose another cache folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_and_verify_refuse_what_is_no_cache(tmp_path: Path, labelgen_here) -> None:
    for command in ("inspect", "verify"):
        done = labelgen_here(command, str(tmp_path / "absent.zarr"))
        assert done.returncode == 1
        assert "no cache here" in done.stderr


def test_inspect_names_a_damaged_group_and_the_cure(cache: Path, labelgen_here) -> None:
    (chunk,) = (cache / "shards" / "scene-0103-000" / "labels" / "image").glob("c/*/*/*")
    chunk.write_bytes(chunk.read_bytes()[:-40])
    done = labelgen_here("inspect", str(cache))
    assert done.returncode == 1
    assert "shards/scene-0103-000/labels/image: unreadable-array: its chunk file c/0/0/0 has" in done.stderr
    assert "remove this folder, then rerun the same" in done.stderr


def test_pictures_are_drawn(built: Path, tmp_path: Path, labelgen_here) -> None:
    done = labelgen_here("inspect", str(built), "--pictures", str(tmp_path / "pictures"), "--show", "2")
    assert done.returncode == 0, done.stderr
    confusion, *samples = sorted((tmp_path / "pictures").iterdir())
    assert confusion.name == "confusion-point.png"
    assert len(samples) == 2
    with Image.open(samples[0]) as picture:
        assert picture.size[0] == 6 * 112
