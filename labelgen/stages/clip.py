"""Stage `clip`: the cosine of every image patch to every class (eq 1, before the argmax)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labelgen.pictures import read_image, resize
from labelgen.settings import shaping
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs
from labelgen.stages.stage import Stage, Teacher, TeacherCall
from labelgen.weights import OPENAI_MEAN, OPENAI_STD

if TYPE_CHECKING:
    from labelgen.teachers.clip.attention import Guides
    from labelgen.teachers.clip.teacher import ClipScores, ClipTeacher


def settings(resolved: ResolvedSettings) -> Any:
    """Return how pictures are read and scores refined, and the network, whose weights are known by their digest.

    The range of pictures that it expects is only named if it is not OpenAI's, so that other caches stay up to date.
    How features are stored is only named if they are.
    """
    clip = resolved.settings.clip
    change_nothing = {"weights", "mean", "std", *(() if clip.store_features else ("features_dtype",))}
    given = clip.mean or OPENAI_MEAN, clip.std or OPENAI_STD  # registered weights have theirs by their digest
    return [
        shaping(clip, without=change_nothing),
        resolved.teachers.networks[TEACHER.name].to_attrs(),
        *([given] if given != (OPENAI_MEAN, OPENAI_STD) else []),
    ]


def more_sources(resolved: ResolvedSettings) -> tuple[str, ...]:
    """Return SAM's group where patches are mixed by its masks or by its embedding."""
    return ("sam",) if resolved.settings.clip.reads_sam else ()


def more_files(resolved: ResolvedSettings) -> tuple[str, ...]:
    """Return the stage whose pictures are read again, at their own size. Through it they are in the fingerprint."""
    return ("images",) if resolved.settings.clip.size else ()


def load(resolved: ResolvedSettings, device: str) -> "ClipTeacher":
    """Load the network, and embed each template alone where templates are chosen.

    Raises:
        LabelgenError: if the weights do not fit the architecture, or the size of the pictures does not fit the patches.
    """
    from labelgen.teachers.clip.teacher import ClipTeacher

    teacher = ClipTeacher(resolved.settings.clip, device)
    teacher.check_size(_size(resolved))
    if resolved.settings.clip.expert_templates is not None:
        classes, templates = resolved.prompts.class_names.values(), resolved.prompts.templates
        sentences = [[template.replace("{}", name) for name in names] for template in templates for names in classes]
        teacher.templates = teacher.embed_text(sentences).reshape(len(templates), len(classes), -1)
    return teacher


def _size(resolved: ResolvedSettings) -> tuple[int, int]:
    """Return the size (height, width) at which CLIP reads the pictures."""
    return resolved.settings.clip.size or resolved.settings.images.size


def decode(inputs: ShardInputs) -> NDArray[np.uint8] | None:
    """Decode pictures at their own size and resize them to `clip.size`; None if CLIP reads them at training size.

    Raises:
        SampleError: if a picture cannot be used.
    """
    if not (size := inputs.settings.clip.size):
        return None
    cameras = [camera for sample in inputs.samples for camera in sample.cameras]
    return np.stack([resize(read_image(inputs.adapter, camera), size) for camera in cameras])


Batch = tuple[NDArray[np.uint8], NDArray[np.float32], "Guides"]
"""Pictures (B, H, W, 3), class embeddings (C, D), and what SAM says about the patches."""


def receive(model: "ClipTeacher", inputs: ShardInputs, decoded: NDArray[np.uint8] | None) -> Batch:
    """Read the pictures that are not decoded, the class embeddings and what SAM found from sealed groups."""
    rgb = inputs.open("images", "rgb")[inputs.images] if decoded is None else decoded
    return rgb, inputs.read_root("text")["embeddings"], _guides(inputs, model.grid(_size(inputs.resolved)))


def _guides(inputs: ShardInputs, grid: tuple[int, int]) -> "Guides":
    """Return SAM's masks and its embedding at the patches, where the settings use them."""
    from labelgen.teachers.clip.attention import Guides
    from labelgen.teachers.clip.sam_guides import embedding_at_patches, masks_at_patches

    clip, here = inputs.settings.clip, inputs.images
    masks = embedding = None
    if clip.scope == "sam":
        masks = masks_at_patches(inputs.open("sam", "mask_ids")[here], grid)
    if clip.proxy == "sam":
        names = inputs.array_names("sam") & {"features", "features_scale", "features_valid"}
        embedding = embedding_at_patches({name: inputs.open("sam", name)[here] for name in names}, grid)
    return Guides(masks, embedding)


def compute(model: "ClipTeacher", batch: Batch) -> "ClipScores":
    """Score the patches of the pictures."""
    return model.score(*batch)


def gather(parts: "Sequence[ClipScores]") -> Arrays:
    """Join the scores, and the features where they are stored, with their scales where they are int8."""
    found = {name: [getattr(part, name) for part in parts] for name in ("logits", "features", "features_scale")}
    return {name: np.concatenate(values) for name, values in found.items() if values[0] is not None}


TEACHER = Teacher("clip", load)

CLIP = Stage(
    name="clip",
    description="dense CLIP class scores (eq 1)",
    version=1,
    build=TeacherCall(TEACHER, receive, compute, gather, decode),
    settings=settings,
    made_from=("text", "images"),
    more_sources=more_sources,
    more_files=more_files,
)
