"""The only module that imports spconv; it makes spconv work, and start fast, on machines without CUDA."""

import logging
import warnings

import torch

# Importing spconv makes torch.fx log a warning that means nothing to users.
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)

if not torch.cuda.is_available():
    import spconv.core

    # These describe CUDA kernels; parsing them takes seconds at every start.
    spconv.core.ALL_IMPGEMM_PARAMS = []
    spconv.core.ALL_NATIVE_PARAMS = []

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    import spconv as spconv_package
    import spconv.pytorch as spconv
    from spconv import constants
    from spconv.core import ConvAlgo
    from spconv.pytorch import functional, ops

if not torch.cuda.is_available():
    for module in (ops, functional):
        module.get_current_stream = lambda: 0

ALGORITHM = ConvAlgo.Native if not torch.cuda.is_available() else None
"""The convolution algorithm: spconv's own choice with CUDA; without, the only one that runs."""

VERSION: str = spconv_package.__version__

__all__ = ["ALGORITHM", "VERSION", "allow_tf32", "spconv"]


def allow_tf32(allowed: bool) -> None:
    """Let sparse convolutions on a GPU round their factors to TF32, or not, in this process."""
    constants.SPCONV_ALLOW_TF32 = allowed
