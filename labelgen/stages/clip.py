"""Stage `clip`: the cosine of every image patch to every class (eq 1, before the argmax)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labelgen.settings import shaping
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs
from labelgen.stages.stage import Stage, Teacher, TeacherCall
from labelgen.weights import OPENAI_MEAN, OPENAI_STD

if TYPE_CHECKING:
    from labelgen.teachers.clip.teacher import ClipScores, ClipTeacher


def settings(resolved: ResolvedSettings) -> Any:
    """Return the refinements, and the network. Its weights are known by their digest and not by their name.

    The range of pictures that it expects is only named if it is not OpenAI's, so that other caches stay up to date.
    """
    clip = resolved.settings.clip
    given = clip.mean or OPENAI_MEAN, clip.std or OPENAI_STD  # registered weights have theirs by their digest
    return [
        shaping(clip, without={"weights", "mean", "std"}),
        resolved.teachers.networks[TEACHER.name].to_attrs(),
        *([given] if given != (OPENAI_MEAN, OPENAI_STD) else []),
    ]


def load(resolved: ResolvedSettings, device: str) -> "ClipTeacher":
    """Load the network.

    Raises:
        LabelgenError: if the weights do not fit the architecture, or the training size does not fit the patches.
    """
    from labelgen.teachers.clip.teacher import ClipTeacher

    teacher = ClipTeacher(resolved.settings.clip, device)
    teacher.check_size(resolved.settings.images.size)
    return teacher


def receive(model: "ClipTeacher", inputs: ShardInputs, decoded: None) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Read the pictures (B, H, W, 3) and the class embeddings (C, D) from sealed groups."""
    return inputs.open("images", "rgb")[inputs.images], inputs.read_root("text")["embeddings"]


def compute(model: "ClipTeacher", batch: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> "ClipScores":
    """Score the patches of the pictures."""
    return model.score(*batch)


def gather(parts: "Sequence[ClipScores]") -> Arrays:
    """Join the scores, and the features where they are stored."""
    arrays: Arrays = {"logits": np.concatenate([part.logits for part in parts])}
    features = [part.features for part in parts if part.features is not None]
    if features:
        arrays["features"] = np.concatenate(features)
    return arrays


TEACHER = Teacher("clip", load)

CLIP = Stage(
    name="clip",
    description="dense CLIP class scores (eq 1)",
    version=1,
    build=TeacherCall(TEACHER, receive, compute, gather),
    settings=settings,
    made_from=("text", "images"),
)
