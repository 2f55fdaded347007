"""Stage `text`: the class embeddings of CLIP's text encoder, the mean over all names and templates of a class."""

from collections.abc import Sequence
from typing import Any

from labelgen.errors import PromptsError
from labelgen.stages.clip import TEACHER
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs
from labelgen.stages.stage import Stage, TeacherCall


def settings(resolved: ResolvedSettings) -> Any:
    """Return the prompts and the network."""
    return [resolved.prompts.digest, resolved.teachers.networks[TEACHER.name].to_attrs()]


def receive(model: Any, inputs: ShardInputs, decoded: None) -> list[list[str]]:
    """Return the sentences of each class, in the order of the taxonomy.

    Raises:
        PromptsError: if the text encoder would cut one off, and with it often the name of the class.
    """
    prompts = inputs.resolved.prompts
    sentences = prompts.sentences()
    for label, of_class in zip(prompts.class_names, sentences, strict=True):
        if too_long := model.sentences_too_long(of_class):
            raise PromptsError(
                f"prompts {prompts.name}, class {label!r}: CLIP reads {model.context_length} tokens and would cut off "
                f"the end of {too_long[0]!r}; shorten this sentence"
            )
    return sentences


def compute(model: Any, sentences: list[list[str]]) -> Arrays:
    """Embed the sentences: (C, D) f32 of unit norm."""
    return {"embeddings": model.embed_text(sentences)}


def gather(parts: Sequence[Arrays]) -> Arrays:
    """Return the one part."""
    return parts[0]


TEXT = Stage(
    name="text",
    description="CLIP embeddings of the class names",
    version=1,
    build=TeacherCall(TEACHER, receive, compute, gather),
    settings=settings,
)
