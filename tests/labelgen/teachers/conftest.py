"""Small CLIP teachers; a SAM whose masks differ, thresholds that each drop some of them, and teachers of that SAM."""

from collections.abc import Callable, Iterator

import pytest
import torch
from segment_anything.modeling import Sam

from labelgen.settings import SamSettings
from labelgen.teachers.clip.teacher import ClipTeacher
from labelgen.teachers.sam.network import build_sam
from labelgen.teachers.sam.teacher import SamTeacher
from tests.labelgen.teachers.clip_reference import make_clip_teachers, register_toys
from tests.labelgen.teachers.sam_reference import (
    EVERY_MASK,
    POINTS,
    MakeTeacher,
    filter_records,
    make_image,
    make_masks_differ,
    stock_records,
    thresholds_between,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Run on one thread: on a busy machine, threads that wait for each other take twenty times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def network() -> Sam:
    """The first untrained SAM for which such thresholds exist."""
    for seed in range(30):
        model = build_sam(SamSettings(architecture="tiny", weights=f"untrained:{seed}")).eval()
        make_masks_differ(model)
        records = stock_records(model, make_image(0), EVERY_MASK)
        if len({str(record["bbox"]) for record in records}) < 3:
            continue
        counts = [len(kept) for kept in filter_records(records, thresholds_between(records))]
        if len(records) > counts[0] > counts[1] > counts[2] >= 3:
            return model
    raise AssertionError("no seed gives masks that differ enough; make_masks_differ must change the network more")


@pytest.fixture(scope="session")
def every_record(network: Sam) -> list[dict]:
    """All masks of image 0, by the stock generator without thresholds."""
    return stock_records(network, make_image(0), EVERY_MASK)


@pytest.fixture(scope="session")
def thresholds(every_record: list[dict]) -> dict[str, float]:
    """Thresholds that each leave out some of the masks of image 0."""
    return thresholds_between(every_record)


@pytest.fixture(scope="session")
def make_teacher(network: Sam, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SamTeacher]:
    """Return a function that makes a teacher of the network under the given settings."""
    path = tmp_path_factory.mktemp("sam") / "sam.pth"
    torch.save(network.state_dict(), path)

    def make(**changes: object) -> SamTeacher:
        return SamTeacher(SamSettings(architecture="tiny", weights=str(path), **{**POINTS, **changes}))

    return make


@pytest.fixture(scope="session")
def teacher(make_teacher: MakeTeacher, thresholds: dict[str, float]) -> SamTeacher:
    """A teacher under the thresholds that leave masks out."""
    return make_teacher(**thresholds)


@pytest.fixture(scope="session")
def toy_clips(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Architectures of these tests, known to open_clip."""
    register_toys(tmp_path_factory.mktemp("architectures"))


@pytest.fixture(scope="session")
def clip_teachers(toy_clips: None) -> dict[str, ClipTeacher]:
    """Small CLIP teachers by architecture."""
    return make_clip_teachers()
