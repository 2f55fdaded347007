"""torch.compile for the parts of a network that spend their time moving numbers, if the settings ask for it."""

import os
import shutil
from collections.abc import Callable
from typing import Any, Protocol

from cache_schemas.errors import ConfigError


class Fuse(Protocol):
    """Returns `work`, perhaps compiled; sizes that differ from call to call are best declared `dynamic`."""

    def __call__(self, work: Callable[..., Any], dynamic: bool | None = None) -> Callable[..., Any]:
        """Return what to call instead of `work`."""


def as_it_is(work: Callable[..., Any], dynamic: bool | None = None) -> Callable[..., Any]:
    """Return `work`."""
    return work


def compiled(work: Callable[..., Any], dynamic: bool | None = None) -> Callable[..., Any]:
    """Return `work`, to be compiled at its first call.

    Raises:
        ConfigError: if there is no compiler that torch could call.
    """
    import torch

    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise ConfigError(
            f"sam.compile=true: no C++ compiler {compiler!r} here; install one, name it in CXX, or say false"
        )
    fused: Callable[..., Any] = torch.compile(work, dynamic=dynamic)
    return fused
