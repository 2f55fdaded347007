"""Weights of the teachers: identifying them, reading them without running code from a file, loading them."""

import hashlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from cache_schemas.documents import TeacherIdentity
from cache_schemas.errors import ConfigError
from labelgen.errors import WeightsError
from labelgen.settings import UNTRAINED, ClipSettings, TeacherSettings
from labelgen.teachers.clip.input_range import input_range
from labelgen.weights import is_official, registered_as, verified

if TYPE_CHECKING:
    import torch


def identify(settings: TeacherSettings) -> TeacherIdentity:
    """Return the identity of the network that the settings name: architecture, weights, and the weights' SHA-256.

    A weights file is read to compute its SHA-256, but not loaded. Untrained weights have none.

    Raises:
        WeightsError: if the weights are absent, or registered weights differ from the official file.
        ConfigError: if the seed of untrained weights is not a whole number, registered weights belong to another
            architecture, or the range of pictures that a CLIP network expects is not known.
    """
    if isinstance(settings, ClipSettings):
        input_range(settings)
    if settings.weights.startswith(UNTRAINED):
        untrained_seed(settings.weights)
        return TeacherIdentity(architecture=settings.architecture, weights=settings.weights, sha256=None)
    path, sha256 = verified(settings.weights)
    entry = registered_as(sha256)
    if entry and entry.architecture and entry.architecture != settings.architecture:
        raise ConfigError(
            f"weights {settings.weights}: belong to the architecture {entry.architecture!r}, not "
            f"{settings.architecture!r}; set the architecture to {entry.architecture}"
        )
    return TeacherIdentity(architecture=settings.architecture, weights=path.name, sha256=sha256)


def untrained_seed(weights: str) -> int:
    """Return the seed in `untrained:<seed>`.

    Raises:
        ConfigError: if it is not a whole number, or has more than 18 digits.
    """
    seed = weights.removeprefix(UNTRAINED)
    if not seed.isdecimal() or len(seed) > 18:  # torch takes 64 bits
        raise ConfigError(
            f"weights {weights[:60]!r}: write {UNTRAINED}<seed> with a whole number below 10^18, such as {UNTRAINED}0"
        )
    return int(seed)


def read_state_dict(name: str) -> "dict[str, torch.Tensor]":
    """Return the tensors, by name, of registered weights or of a weights file, without running code from the file.

    The formats are safetensors, .pth files that hold tensors only, and the TorchScript archives of OpenAI. Loading a
    TorchScript archive runs code from it, so only archives with the SHA-256 of registered weights are read.

    Args:
        name: a registered name or the path of a file.

    Raises:
        WeightsError: if the file is absent, differs from the official file, or has none of these formats.
    """
    import torch
    from safetensors.torch import load_file

    path, sha256 = verified(name)
    entries = _zip_entries(path)
    torchscript = any(entry.filename.endswith("/constants.pkl") for entry in entries)
    if torchscript and not is_official(sha256):
        raise WeightsError(
            f"{path}: cannot be read safely: a TorchScript archive contains code, and this one is not an official "
            "file; save its tensors as a .safetensors file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if torchscript:
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
        if compressed := [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]:
            raise ValueError(f"its entry {compressed[0]!r} is compressed, which torch.save never does")
        state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        if not (isinstance(state, dict) and all(isinstance(key, str) for key in state)):
            raise TypeError("it is not a dictionary of tensors by name")
        return state
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0][:200]
        raise WeightsError(f"{path}: no weights file that can be read safely ({reason}); fetch it again") from error


def load_into(model: "torch.nn.Module", weights: str, ignore: frozenset[str] = frozenset()) -> None:
    """Load weights into a model; their names and shapes must be those of the model's parameters.

    Args:
        model: changed in place.
        weights: a registered name or the path of a file.
        ignore: names in the file that the model does not have.

    Raises:
        WeightsError: if the file cannot be read, or does not fit; the message gives the first names that do not.
    """
    state = {key: value for key, value in read_state_dict(weights).items() if key not in ignore}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise WeightsError(f"weights {weights} do not fit the architecture: {' '.join(lines)[:300]}") from None


def _zip_entries(path: Path) -> list[zipfile.ZipInfo]:
    """Return the entries of a zip archive; an empty list if the file is not a zip archive, or a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except zipfile.BadZipFile:
        return []


def state_digest(model: "torch.nn.Module") -> str:
    """Return the SHA-256 of the names and values of a model's parameters and buffers, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
