"""torch.compile for the memory-bound parts of SAM, if `sam.compile` asks for it."""

import os
import shutil
from collections.abc import Callable
from typing import Any, Protocol

from cache_schemas.errors import ConfigError


class Compile(Protocol):
    """Returns a function, compiled or not. `dynamic` means that tensor sizes differ from call to call."""

    def __call__(self, function: Callable[..., Any], dynamic: bool | None = None) -> Callable[..., Any]:
        """Return what to call instead of `function`."""


def leave_uncompiled(function: Callable[..., Any], dynamic: bool | None = None) -> Callable[..., Any]:
    """Return `function` itself."""
    return function


def compile_with_torch(function: Callable[..., Any], dynamic: bool | None = None) -> Callable[..., Any]:
    """Return `function` under torch.compile, which compiles it at its first call.

    Raises:
        ConfigError: if this machine has no C++ compiler, which torch.compile calls.
    """
    import torch

    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise ConfigError(
            f"sam.compile=true: this machine has no C++ compiler {compiler!r}; install one, name it in CXX, "
            "or set sam.compile=false"
        )
    return torch.compile(function, dynamic=dynamic)
