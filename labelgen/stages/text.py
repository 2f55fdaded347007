"""Stage `text`: the class embeddings of CLIP's text encoder, the mean over all names and templates of a class."""

from collections.abc import Sequence
from typing import Any

from labelgen.stages.clip import TEACHER
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs
from labelgen.stages.stage import Stage, TeacherCall


def settings(resolved: ResolvedSettings) -> Any:
    """Return the prompts and the network."""
    return [resolved.prompts.digest, resolved.teachers.networks[TEACHER.name].to_attrs()]


def receive(model: Any, inputs: ShardInputs, decoded: None) -> list[list[str]]:
    """Return the sentences of each class, in the order of the taxonomy."""
    return inputs.resolved.prompts.sentences()


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
