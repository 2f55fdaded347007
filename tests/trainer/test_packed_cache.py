"""The trainer reads a packed cache in place: the same samples as from the folder, also in worker processes."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.pack import pack
from trainer.data.builder import BatchDataset, training_arrays
from trainer.data.sampler import Step
from trainer.data.stream import CacheStream
from trainer.settings import load_settings

ARRAYS = ["images/rgb", "labels/image", "points/xyz", "pairs/point", "pairs/image", "pairs/row", "pairs/col"]


@pytest.fixture
def packed(toy: str, tmp_path: Path) -> str:
    pack(toy, tmp_path / "toy.zip")
    return str(tmp_path / "toy.zip")


@pytest.mark.parametrize("copied", [False, True])
def test_samples_of_the_file_are_those_of_the_folder(toy: str, packed: str, tmp_path: Path, copied: bool) -> None:
    local_copy = tmp_path / "copy" if copied else None
    folder, file = CacheStream(toy, ARRAYS), CacheStream(packed, ARRAYS, local_copy=local_copy)
    assert file.samples == folder.samples
    assert file.fingerprints == folder.fingerprints and file.scene_contents() == folder.scene_contents()
    np.testing.assert_array_equal(file.text_embeddings(), folder.text_embeddings())
    for ref in folder.samples:
        expected, found = folder.read(ref, [1]), file.read(ref, [1])
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, strict=True)


def test_a_worker_gets_the_file_and_makes_the_same_batches(packed: str) -> None:
    settings = load_settings("demo", overrides=["augment.images=false", "augment.clouds=false"])
    needed, optional = training_arrays(settings)
    stream = CacheStream(packed, needed, optional=optional)
    dataset, step = BatchDataset(stream, stream.samples, settings), Step(0, 0, (0, 1))
    sent = pickle.dumps(dataset)
    assert len(sent) < 100_000, "the directory of the file is not sent along"
    assert pickle.loads(sent)[step].rgb.equal(dataset[step].rgb)
