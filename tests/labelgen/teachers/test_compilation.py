"""SAM under torch.compile."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from segment_anything.modeling import Sam

from cache_schemas.errors import ConfigError
from labelgen.teachers.sam.compilation import compile_with_torch
from labelgen.teachers.sam.prompt_decoder import PromptDecoder
from tests.labelgen.teachers.sam_reference import MakeTeacher, Refused


@pytest.mark.slow
@torch.inference_mode()
def test_compiling_changes_no_mask(network: Sam) -> None:
    """Compile the upscaling alone, for any number of prompts: compiling all of SAM takes two minutes."""

    def compile_dynamic(function: Callable[..., Any], dynamic: bool | None = None) -> Callable[..., Any]:
        return compile_with_torch(function, dynamic) if dynamic else function

    points = torch.rand(7, 2, generator=torch.manual_seed(0)) * 500
    embeddings = torch.randn(1, 256, 64, 64, generator=torch.manual_seed(1))
    plain = PromptDecoder(network, token_rows=36)
    compiled = PromptDecoder(network, token_rows=36, compile_function=compile_dynamic)
    answers = plain.answer(embeddings, points)
    for prompt in (torch.tensor([0, 2, 2, 6]), torch.arange(7)):
        expected = plain.masks(answers, prompt, prompt % 3)
        largest = (compiled.masks(answers, prompt, prompt % 3) - expected).abs().max() / expected.abs().max()
        assert expected.std() > 0
        assert largest < 1e-5


def test_compiling_without_a_compiler_is_one_error(
    make_teacher: MakeTeacher, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with refused(
        ConfigError, "sam.compile=true", "'no-such-compiler'", "install one, name it in CXX, or set sam.compile=false"
    ):
        make_teacher(compile=True)
