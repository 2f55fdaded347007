"""Weights files: every format that loads, and files that must not load."""

import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from labelgen import weights
from labelgen.errors import WeightsError
from labelgen.settings import ClipSettings, SamSettings
from labelgen.teachers.checkpoints import load_into, read_state_dict, state_digest
from labelgen.teachers.clip.network import build_clip
from labelgen.teachers.sam.network import build_sam
from labelgen.weights import OPENAI_MEAN, OPENAI_STD, Weights

Refused = Callable[..., AbstractContextManager[None]]
State = dict[str, torch.Tensor]


def clip_settings(weights: str) -> ClipSettings:
    return ClipSettings(architecture="tiny-vit-16", weights=weights, mean=OPENAI_MEAN, std=OPENAI_STD)


def sam_settings(weights: str) -> SamSettings:
    return SamSettings(architecture="tiny", weights=weights)


@pytest.fixture(scope="module")
def clip_state() -> State:
    """The tensors of a tiny CLIP that no test builds from its seed."""
    return build_clip(clip_settings("untrained:77")).state_dict()


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))


@pytest.fixture
def state() -> State:
    """Tensors that fit `network`."""
    shapes = {"0.weight": (2, 3), "0.bias": (2,), "1.weight": (1, 2), "1.bias": (1,)}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def assert_equal(found: State, expected: State) -> None:
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def save_torchscript(state: State, path: Path) -> None:
    """Save tensors as OpenAI ships them: a TorchScript archive of modules that hold them under the same names."""
    root = torch.nn.Module()
    for name, tensor in state.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, torch.nn.Module())
            module = module.get_submodule(parent)
        module.register_buffer(leaf, tensor)
    torch.jit.script(root).save(str(path))


def register(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a file one of the official ones."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(weights, "REGISTRY", {"toy": Weights("https://localhost/toy", sha256, "a toy")})


@pytest.mark.parametrize("ending", ["safetensors", "pth", "pt"])
def test_tensors_read_back_equal(tmp_path: Path, state: State, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"weights.{ending}"
    if ending == "safetensors":
        save_file(state, path)
    elif ending == "pth":
        torch.save(state, path)
    else:
        save_torchscript(state, path)
        register(path, monkeypatch)
    assert_equal(read_state_dict(str(path)), state)
    model = network()
    load_into(model, str(path))
    assert_equal(model.state_dict(), state)


def test_the_old_tensor_file_without_a_zip_reads_too(tmp_path: Path, state: State) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    assert_equal(read_state_dict(str(path)), state)


def test_clip_loads_a_half_precision_torchscript_archive_with_openais_extra_entries(
    tmp_path: Path, clip_state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    extras = {name: torch.tensor(77) for name in ("input_resolution", "context_length", "vocab_size")}
    half = {name: tensor.half() for name, tensor in clip_state.items()}
    path = tmp_path / "ViT-toy.pt"
    save_torchscript({**half, **extras}, path)
    register(path, monkeypatch)
    model = build_clip(clip_settings(str(path)))
    assert_equal(model.state_dict(), {name: tensor.float() for name, tensor in half.items()})


def test_sam_loads_a_tensor_file(tmp_path: Path) -> None:
    expected = build_sam(sam_settings("untrained:5"))
    path = tmp_path / "sam_toy.pth"
    torch.save(expected.state_dict(), path)
    found = build_sam(sam_settings(str(path)))
    assert state_digest(found) == state_digest(expected)


# Files that must not load


class Payload:
    """The content of a malicious pickle: unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)


def test_the_payload_of_these_tests_would_run_if_it_were_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran"), protocol=2))
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("kind", ["zip", "old", "plain", "zip posing as torchscript"])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, kind: str, refused: Refused) -> None:
    path, ran = tmp_path / "weights.pth", tmp_path / "ran"
    document = {"0.weight": torch.zeros(2, 3), "0.bias": Payload(ran)}
    if kind == "plain":
        path.write_bytes(pickle.dumps({"0.bias": Payload(ran)}, protocol=2))
    else:
        torch.save(document, path, _use_new_zipfile_serialization=kind != "old")
    if kind == "zip posing as torchscript":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("weights/constants.pkl", pickle.dumps(Payload(ran), protocol=2))
    with refused(WeightsError, path, "read safely"):
        read_state_dict(str(path))
    assert not ran.exists()
    with pytest.raises(WeightsError) as error:
        read_state_dict(str(path))
    assert "weights_only" not in str(error.value), "torch's own advice to load the file anyway must not be repeated"


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("raw", [b"", b"<html>not found</html>", b"\x00" * 64], ids=["empty", "a web page", "zeros"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, raw: bytes, ending: str, refused: Refused) -> None:
    path = tmp_path / f"weights.{ending}"
    path.write_bytes(raw)
    with refused(WeightsError, path, "read safely", "fetch it again"):
        read_state_dict(str(path))


@pytest.mark.parametrize("kept", [0.3, 0.9])
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_file_that_is_cut_short_is_refused(
    tmp_path: Path, state: State, ending: str, kept: float, refused: Refused
) -> None:
    path = tmp_path / f"weights.{ending}"
    if ending == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(kept * len(raw))])
    with refused(WeightsError, path, "fetch it again"):
        read_state_dict(str(path))


@pytest.mark.parametrize(
    "content", [[torch.zeros(2)], torch.zeros(2), {3: torch.zeros(2)}], ids=["list", "tensor", "id"]
)
def test_a_file_without_tensors_by_name_is_refused(tmp_path: Path, content: object, refused: Refused) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with refused(WeightsError, path, "tensors by name"):
        load_into(network(), str(path))


@pytest.mark.parametrize(
    "change, key",
    [
        (lambda state: state.pop("1.bias"), "1.bias"),
        (lambda state: state.update({"2.weight": torch.zeros(1)}), "2.weight"),
        (lambda state: state.update({"0.weight": torch.zeros(2, 4)}), "0.weight"),
    ],
    ids=["missing", "unexpected", "another shape"],
)
def test_keys_that_do_not_fit_are_named(
    tmp_path: Path, state: State, change: Callable[[State], object], key: str, refused: Refused
) -> None:
    change(state)
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    with refused(WeightsError, path, "do not fit the architecture", key):
        load_into(network(), str(path))


def test_only_the_named_extra_keys_are_ignored(tmp_path: Path, state: State, refused: Refused) -> None:
    path = tmp_path / "weights.pth"
    torch.save({**state, "extra": torch.zeros(1), "other": torch.zeros(1)}, path)
    with refused(WeightsError, "other"):
        load_into(network(), str(path), ignore=frozenset({"extra"}))
    load_into(network(), str(path), ignore=frozenset({"extra", "other"}))


def test_the_weights_of_one_teacher_do_not_fit_the_other(tmp_path: Path, clip_state: State, refused: Refused) -> None:
    path = tmp_path / "clip.pth"
    torch.save(clip_state, path)
    with refused(WeightsError, path, "do not fit the architecture"):
        build_sam(sam_settings(str(path)))


def test_absent_weights_are_refused(tmp_path: Path, refused: Refused) -> None:
    with refused(WeightsError, tmp_path / "absent.pth", "neither a file nor registered"):
        build_clip(clip_settings(str(tmp_path / "absent.pth")))
