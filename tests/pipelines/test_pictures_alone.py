"""A data set without clouds, whose pictures have different sizes: from its files to the audit of its cache."""

from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.documents import Picture
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from labelgen import datasets
from labelgen.samples import Camera, Sample
from labelgen.stages.inputs import ShardInputs
from pipelines.config import load_config
from pipelines.resolve import open_dataset, resolve
from pipelines.teaching import MOST_IMAGES_OF_A_SAMPLE, cut_into_calls
from tests.pipelines import picture_dataset
from tests.pipelines.in_process import build_cache

SIZES = [(48, 96), (96, 48), (48, 96), *[(40, 80)] * MOST_IMAGES_OF_A_SAMPLE]
IMAGES = len(SIZES)
KEY = "scene-000"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_dataset.write_pictures(tmp_path_factory.mktemp("pictures"), SIZES)


@pytest.fixture(scope="module")
def url(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    cache = tmp_path_factory.mktemp("cache") / "cache.zarr"
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        build_cache(config(), pictures, str(cache))
    return str(cache)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


def register(patch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("pictures", f"{picture_dataset.__name__}:DATASET", datasets.EXTENSIONS)
    patch.setitem(datasets.OWN, "pictures", entry)


def config(*more: str):
    overrides = [*picture_dataset.SETTINGS, "prompts=nuscenes-paper", *more]
    return load_config("pictures", teachers="untrained", overrides=overrides)


def test_the_cache_has_no_groups_and_arrays_of_points(url: str) -> None:
    cache, manifest = Cache.open(url)
    assert manifest.modalities == ("image",)
    seals = cache.shard_seals(KEY)
    assert sorted(seals) == ["clip", "images", "labels", "sam", "truth"]
    assert sorted(seals["labels"].arrays) == ["image", "image_raw"]
    assert sorted(seals["truth"].arrays) == ["image"]
    assert set(manifest.recipes["pictures"]) == {"text", *seals}
    assert [str(problem) for problem in validate(cache, manifest)] == []


def test_the_record_names_each_picture_with_its_own_size(url: str) -> None:
    record = Cache(url).shard_records([KEY])[KEY]
    assert record.dataset == "pictures"
    assert record.pictures == tuple(
        Picture("CAM", f"scene/scene-sample/{number:03}.png", width, height)
        for number, (height, width) in enumerate(SIZES)
    )


def test_embeddings_of_different_proportions_are_padded_and_equal_those_of_each_picture_alone(
    url: str, pictures: Path
) -> None:
    """SAM resizes the longer side to 1024 pixels, and a row or column of features covers 16 of them."""
    sam = Cache(url).read(GroupPath(KEY, "sam"))
    expected = np.array([[32, 64], [64, 32], *[[32, 64]] * (IMAGES - 2)])
    np.testing.assert_array_equal(sam["features_valid"], expected)
    assert sam["features"].shape[:3] == (IMAGES, 64, 64)
    settings, adapter = config(), open_dataset("pictures", pictures)
    from labelgen.stages.sam import decode, load

    resolved = resolve(settings, adapter)
    inputs = ShardInputs(resolved, adapter, adapter.scenes("all", None)[0].samples, Cache(url), KEY)
    model, decoded = load(resolved, "cpu"), decode(inputs)
    for image in (1, 2, IMAGES - 1):
        rows, cols = expected[image]
        alone = model.run([decoded[image]], settings.images.size)
        np.testing.assert_array_equal(sam["features"][image, :rows, :cols], alone.features[0])
        np.testing.assert_array_equal(sam["mask_ids"][image], alone.mask_ids[0])
        assert not sam["features"][image, rows:].any() and not sam["features"][image, :, cols:].any()


def test_pictures_of_equal_proportions_need_no_sizes_of_their_valid_parts(tmp_path: Path) -> None:
    data = picture_dataset.write_pictures(tmp_path / "data", [(48, 96), (24, 48)])
    build_cache(config(), data, str(tmp_path / "cache"))
    assert "features_valid" not in Cache(str(tmp_path / "cache")).shard_seals(KEY)["sam"].arrays


def test_it_is_inspected_and_drawn(url: str, tmp_path: Path, labelgen_here) -> None:
    page = tmp_path / "page.html"
    done = labelgen_here("inspect", url, "--pictures", str(tmp_path / "drawn"), "--html", str(page))
    assert done.returncode == 0, done.stderr
    assert "points    none" in done.stdout
    assert "cameras see only" not in done.stdout
    assert "pixels: mIoU" in done.stdout and "none for points" in done.stdout
    assert (tmp_path / "drawn" / "scene-000-00.png").is_file()
    assert all(f"CAM {number:03}.png" in page.read_text() for number in range(IMAGES))
    assert labelgen_here("verify", url).returncode == 0


def test_a_second_run_has_nothing_to_do(url: str, pictures: Path, labelgen_here) -> None:
    settings = [word for setting in picture_dataset.SETTINGS for word in ("--set", setting)]
    where = ["--dataset", "pictures", "--data", str(pictures), "--cache", url, "--teachers", "untrained"]
    done = labelgen_here("run", *where, *settings, "--set", "prompts=nuscenes-paper")
    assert done.returncode == 0, done.stderr
    assert "shards: 1 up to date, 0 to do" in done.stderr


def sample(name: str, images: int) -> Sample:
    camera = Camera("CAM", "a.png", 64, 48, np.eye(3), np.eye(4))
    return Sample(name, "scene", None, (camera,) * images)


def test_a_call_takes_whole_samples_or_a_bounded_part_of_one() -> None:
    samples = [sample("a", 1), sample("b", 6), sample("c", 2 * MOST_IMAGES_OF_A_SAMPLE + 1), sample("d", 6)]
    calls = cut_into_calls(samples, 3)
    assert [[(s.token, len(s.cameras)) for s in call] for call in calls] == [
        [("a", 1), ("b", 6)],
        [("c", MOST_IMAGES_OF_A_SAMPLE)],
        [("c", MOST_IMAGES_OF_A_SAMPLE)],
        [("c", 1)],
        [("d", 6)],
    ]
    assert [len(call) for call in cut_into_calls([sample(str(i), 6) for i in range(7)], 3)] == [3, 3, 1]
