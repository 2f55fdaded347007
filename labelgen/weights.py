"""Teacher weights: where the official files come from, how to download them, and where they lie.

Official files are kept in the folder named by `LABELGEN_WEIGHTS` (default: `~/.cache/labelgen/weights`). A download is
written to `<file>.part` and resumed from there. It gets its final name after its SHA-256 was checked. Packages that
ship weights of their own register them in the entry point group `labelgen.weights`.
"""

import errno
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cache_schemas.extensions import registered
from labelgen.errors import WeightsError
from labelgen.licences import APACHE_OF_SAM, MIT_OF_CLIP, Licence

FOLDER_VARIABLE = "LABELGEN_WEIGHTS"
BLOCK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60
MIB = 2**20

Progress = Callable[[int, int | None], None]
"""Called with the bytes done and the total (None if the server does not tell)."""


Channels = tuple[float, float, float]
"""One number each for red, green and blue."""

OPENAI_MEAN: Channels = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Channels = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of pictures in 0..1 that OpenAI's CLIP networks, and most others, were trained with."""


@dataclass(frozen=True)
class Weights:
    """An official weights file.

    `architecture` is the one network that it fits; an empty one is not checked. `mean` and `std` are those that CLIP
    networks expect of pictures; other networks have their own. `datasets` are the only data sets that the weights
    are of use for; none stands for all. `licence` is None where it is not known.
    """

    url: str
    sha256: str
    meaning: str
    architecture: str = ""
    mean: Channels = OPENAI_MEAN
    std: Channels = OPENAI_STD
    largest_mib: int = 4096
    """A download of more is stopped. It would otherwise fill the disk before its SHA-256 is checked."""
    datasets: tuple[str, ...] = ()
    licence: Licence | None = None

    @property
    def path(self) -> Path:
        """Path of the file in the weights folder."""
        return weights_folder() / self.url.rsplit("/", 1)[-1]

    @property
    def origin(self) -> str:
        """Where the file comes from."""
        return self.url

    def remedy(self, name: str) -> str:
        """Return what to do if the file, registered as `name`, is missing."""
        return f"run `labelgen weights fetch {name}`, or, offline, download {self.url} elsewhere and put it there"


@dataclass(frozen=True)
class ShippedWeights:
    """A weights file that an installed package brings along, at `path`; the other fields are those of `Weights`."""

    path: Path
    sha256: str
    meaning: str
    architecture: str = ""
    mean: Channels = OPENAI_MEAN
    std: Channels = OPENAI_STD
    datasets: tuple[str, ...] = ()
    licence: Licence | None = None

    @property
    def origin(self) -> str:
        """Where the file comes from."""
        return "comes with the package"

    def remedy(self, _: str) -> str:
        """Return what to do if the file is missing."""
        return "they come with the package; install it again"


_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_CLIP = "https://openaipublic.azureedge.net/clip/models"
_VIT_B_16 = "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
_RN50 = "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"

REGISTRY: dict[str, Weights | ShippedWeights] = {
    "clip-vit-b-16": Weights(
        f"{_CLIP}/{_VIT_B_16}/ViT-B-16.pt",
        _VIT_B_16,
        "OpenAI CLIP ViT-B/16 (335 MiB)",
        "ViT-B-16-quickgelu",
        largest_mib=400,
        licence=MIT_OF_CLIP,
    ),
    "clip-rn50": Weights(
        f"{_CLIP}/{_RN50}/RN50.pt",
        _RN50,
        "OpenAI CLIP ResNet-50 (244 MiB)",
        "RN50-quickgelu",
        largest_mib=300,
        licence=MIT_OF_CLIP,
    ),
    "sam-vit-b": Weights(
        f"{_SAM}/sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        "Segment Anything ViT-B (358 MiB)",
        "vit_b",
        largest_mib=400,
        licence=APACHE_OF_SAM,
    ),
    "sam-vit-l": Weights(
        f"{_SAM}/sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        "Segment Anything ViT-L (1.2 GiB)",
        "vit_l",
        largest_mib=1300,
        licence=APACHE_OF_SAM,
    ),
    "sam-vit-h": Weights(
        f"{_SAM}/sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        "Segment Anything ViT-H (2.4 GiB)",
        "vit_h",
        largest_mib=2600,
        licence=APACHE_OF_SAM,
    ),
}
"""The weights that labelgen itself knows."""

EXTENSIONS = "labelgen.weights"

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of file systems without file locks. There, nothing keeps two downloads of one file apart."""


def known_weights() -> dict[str, Weights | ShippedWeights]:
    """Return all weights by name: ours, then those that installed packages register."""
    return {**REGISTRY, **{name: entry.load() for name, entry in registered(EXTENSIONS).items()}}


def weights_folder() -> Path:
    """Return the folder for downloaded weights.

    Raises:
        WeightsError: if none is set and the user has no home.
    """
    if folder := os.environ.get(FOLDER_VARIABLE):
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labelgen" / "weights"
    except RuntimeError:
        raise WeightsError(f"HOME is not set; set {FOLDER_VARIABLE} to the folder with the weights") from None


def locate(name: str) -> Path:
    """Return the path of registered weights, or `name` itself if it is the path of a file.

    Raises:
        WeightsError: if there is no such file; the message says what to download and where to put it.
    """
    known = known_weights()
    if entry := known.get(name):
        if entry.path.is_file():
            return entry.path
        raise WeightsError(f"weights {name} are not at {entry.path}: {entry.remedy(name)}")
    path = Path(name)
    if path.is_file():
        return path
    raise WeightsError(f"weights {name!r} are neither a file nor registered ({', '.join(known)})")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def registered_as(sha256: str) -> Weights | ShippedWeights | None:
    """Return the registered weights with this SHA-256, if there are any."""
    return next((entry for entry in known_weights().values() if entry.sha256 == sha256), None)


def is_official(sha256: str) -> bool:
    """Return whether a file with this SHA-256 is one of the registered weights."""
    return registered_as(sha256) is not None


def verified(name: str) -> tuple[Path, str]:
    """Return the path and SHA-256 of weights; those of registered weights are checked.

    Raises:
        WeightsError: if they are missing, or registered with another SHA-256.
    """
    path = locate(name)
    found = sha256_of(path)
    if (entry := known_weights().get(name)) and found != entry.sha256:
        raise WeightsError(
            f"{path}: SHA-256 is {found}, the official file has {entry.sha256}; remove it; then {entry.remedy(name)}"
        )
    return path, found


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Download registered weights unless they are present, and return their path.

    Raises:
        WeightsError: if the name is unknown; if the server cannot be reached or stops early (the next call resumes the
            download); if the file is larger than it can be, or its SHA-256 is not the official one (the download is
            removed); or if another process is downloading it.
    """
    known = known_weights()
    if name not in known:
        raise WeightsError(f"no weights {name!r}; known: {', '.join(known)}")
    official = known[name]
    if isinstance(official, ShippedWeights):
        return verified(name)[0]
    target = official.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        while not (target.is_file() and sha256_of(target) == official.sha256):
            with _locked_part(name, target.with_name(f"{target.name}.part")) as part:
                if part is not None:
                    _complete(official, target, part, progress)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise WeightsError(
            f"cannot download {official.url} ({reason}): fetch it on a machine with a network "
            f"(SHA-256 {official.sha256}) and put it at {target}; to resume the download here, run "
            f"`labelgen weights fetch {name}` again"
        ) from None
    return target


@contextmanager
def _locked_part(name: str, path: Path) -> Iterator[BinaryIO | None]:
    """Open the unfinished download at `path` for this process alone; yields None if it was finished or removed since.

    Raises:
        WeightsError: if another process is downloading, or there is a link at `path`.
    """
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise WeightsError(f"{path}: a link in place of a download; remove it, then fetch again") from None
    with os.fdopen(descriptor, "r+b") as part:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WeightsError(
                f"{path}: another process is downloading {name}; wait for it to end, then run "
                f"`labelgen weights fetch {name}` again"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        try:
            yield part if _is_at(path, descriptor) else None
        finally:
            if _is_at(path, descriptor) and os.fstat(descriptor).st_size == 0:
                path.unlink()


def _is_at(path: Path, descriptor: int) -> bool:
    """Return whether a path still leads to an open file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    return False


def _complete(official: Weights, target: Path, part: BinaryIO, progress: Progress | None) -> None:
    """Download what is missing of `part`, check it, and give it its name.

    Raises:
        WeightsError: if it is too large, or its SHA-256 is not the official one; it is removed then.
    """
    path = target.with_name(f"{target.name}.part")
    if not _download(official.url, part, official.largest_mib * MIB, progress):
        path.unlink()
        raise WeightsError(
            f"{official.url}: the server sends more than {official.largest_mib} MiB, which the official file does not "
            "have; the download was removed, fetch again, or use another network"
        )
    if (found := sha256_of(path)) != official.sha256:
        path.unlink()
        raise WeightsError(
            f"{official.url}: SHA-256 is {found}, the official file has {official.sha256}; the download was removed, "
            "fetch again, or use another network"
        )
    path.replace(target)


def _download(url: str, part: BinaryIO, largest: int, progress: Progress | None) -> bool:
    """Append the missing bytes of `url` to `part`; start over if the server does not support ranges.

    Returns False if the file has more than `largest` bytes.
    """
    done = part.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the range starts at the end of the file: `part` is complete
            return done <= largest
        raise
    with response:
        if response.status != 206:
            done = part.seek(0)
            part.truncate()
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdecimal() else None
        if total is not None and total > largest:
            return False
        while block := response.read(BLOCK_BYTES):
            part.write(block)
            done += len(block)
            if done > largest:
                return False
            if progress:
                progress(done, total)
    part.flush()
    if total is not None and done < total:
        raise OSError(f"the server stopped after {done} of {total} bytes")
    return True
