"""Naming, building and loading a teacher's network, whatever file its weights come in."""

import hashlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from cache_schemas.documents import TeacherIdentity
from cache_schemas.errors import ConfigError
from labelgen.errors import WeightsError
from labelgen.settings import TeacherSettings
from labelgen.weights import is_official, verified

if TYPE_CHECKING:
    import torch

UNTRAINED = "untrained:"


def identify(settings: TeacherSettings) -> TeacherIdentity:
    """Return which network the settings name; weights that are files are read to digest them.

    Raises:
        WeightsError: if the weights are absent or not the official bytes.
        ConfigError: if the seed of untrained weights is no number.
    """
    if settings.weights.startswith(UNTRAINED):
        untrained_seed(settings.weights)
        return TeacherIdentity(architecture=settings.architecture, weights=settings.weights, sha256=None)
    path, sha256 = verified(settings.weights)
    return TeacherIdentity(architecture=settings.architecture, weights=path.name, sha256=sha256)


def untrained_seed(weights: str) -> int:
    """Return the seed in `untrained:<seed>`.

    Raises:
        ConfigError: if it is no number.
    """
    seed = weights.removeprefix(UNTRAINED)
    if not seed.isdecimal():
        raise ConfigError(f"weights {weights!r}: write {UNTRAINED}<seed> with a whole number, such as {UNTRAINED}0")
    return int(seed)


def read_state_dict(name: str) -> "dict[str, torch.Tensor]":
    """Return the tensors of registered weights or of a weights file; runs nothing that a file brings along.

    Reads safetensors, tensor-only .pth files, and the TorchScript archives that OpenAI ships: to load one of those is
    to run its code, so others are refused.

    Raises:
        WeightsError: if the file is absent, not the official bytes, or in none of these formats.
    """
    import torch
    from safetensors.torch import load_file

    path, sha256 = verified(name)
    entries = _zip_entries(path)
    torchscript = any(entry.filename.endswith("/constants.pkl") for entry in entries)
    if torchscript and not is_official(sha256):
        raise WeightsError(
            f"{path}: cannot be read safely: a TorchScript archive is a program, and this is none of the official "
            "ones; save its tensors as a .safetensors file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if torchscript:
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
        if packed := [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]:
            raise ValueError(f"{packed[0]!r} is compressed, which tensors never are")
        state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        if not (isinstance(state, dict) and all(isinstance(key, str) for key in state)):
            raise TypeError("it does not hold tensors by name")
        return state
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0][:200]
        raise WeightsError(f"{path}: no weights file that can be read safely ({reason}); fetch it again") from error


def load_into(model: "torch.nn.Module", weights: str, ignore: frozenset[str] = frozenset()) -> None:
    """Load weights into a model whose parameters they must match, but for the keys in `ignore`.

    Raises:
        WeightsError: naming the first keys that do not fit.
    """
    state = {key: value for key, value in read_state_dict(weights).items() if key not in ignore}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise WeightsError(f"weights {weights} do not fit the architecture: {' '.join(lines)[:300]}") from None


def _zip_entries(path: Path) -> list[zipfile.ZipInfo]:
    """Return the entries of a zip archive; none if the file is something else, or too broken to tell."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except zipfile.BadZipFile:
        return []


def state_digest(model: "torch.nn.Module") -> str:
    """Return the SHA-256 of a model's tensors, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
