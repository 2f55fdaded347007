"""ImageNet weights of the backbones: torchvision's first version (IMAGENET1K_V1), whose file names carry their digest.

The files lie in the folder of the teachers' weights, `LABELGEN_WEIGHTS` (default: `~/.cache/labelgen/weights`).
"""

import hashlib
import os
import re
from pathlib import Path

from trainer.errors import TrainerError

IMAGENET = Path("imagenet")
"""The name of these weights in `networks.image_weights`."""

TORCHVISION_WEIGHTS = {
    "deeplabv3-resnet50": "ResNet50_Weights",
    "deeplabv3-mobilenet": "MobileNet_V3_Large_Weights",
}
"""By 2D network: torchvision's table of weights of its backbone."""


def imagenet_url(network: str) -> str:
    """Return where torchvision publishes the weights of a 2D network's backbone.

    Raises:
        TrainerError: if the network has none.
    """
    from torchvision import models

    if network not in TORCHVISION_WEIGHTS:
        names = ", ".join(TORCHVISION_WEIGHTS)
        raise TrainerError(
            f"networks.image = {network} has no ImageNet weights, only {names} have; set networks.image_weights=null"
        )
    url: str = getattr(models, TORCHVISION_WEIGHTS[network]).IMAGENET1K_V1.url
    return url


def imagenet_file(network: str) -> Path:
    """Return the path at which the weights of a 2D network's backbone are expected; see `imagenet_url` for errors."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    folder = Path(os.environ.get("LABELGEN_WEIGHTS") or cache / "labelgen" / "weights")
    return folder / imagenet_url(network).rpartition("/")[2]


def fetch(network: str) -> Path:
    """Download the weights of a 2D network's backbone unless they are present, check them, and return their path.

    Raises:
        TrainerError: if the network has none, or they cannot be downloaded, or are not the official bytes.
    """
    from torch.hub import download_url_to_file

    url, file = imagenet_url(network), imagenet_file(network)
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            download_url_to_file(url, str(file), hash_prefix=_digest_prefix(file), progress=False)
        except (OSError, RuntimeError) as error:
            raise TrainerError(
                f"{url}: cannot be fetched ({error}); try again, or download it elsewhere and put it at {file}"
            ) from None
    check(file)
    return file


def check(file: Path) -> None:
    """Compare a file with the digest in its name.

    Raises:
        TrainerError: if it is another one.
    """
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if not found.startswith(_digest_prefix(file)):
        raise TrainerError(
            f"{file}: not the official weights, its SHA-256 begins with {found[:8]}; remove it, then run "
            "`trainer fetch-weights`"
        )


def absence(network: str, weights: Path | None) -> str:
    """Return a sentence if ImageNet weights are asked for and absent, so that the backbone starts from noise, or ""."""
    if weights != IMAGENET or imagenet_file(network).exists():
        return ""
    return (
        f"the backbone of {network} starts from noise: its ImageNet weights are not at {imagenet_file(network)}; "
        f"fetch them with `trainer fetch-weights {network}`"
    )


def _digest_prefix(file: Path) -> str:
    found = re.fullmatch(r".*-([0-9a-f]{8})\.pth", file.name)
    assert found, f"torchvision's name {file.name} has no digest"
    return found.group(1)
