"""Stage `labels`: class ids of pixels and points, from scores, masks and pairs (eq 1 to 4)."""

from typing import Any

from labelgen.confidence import as_bytes, confidence_of_images, confidence_of_points
from labelgen.labelling import label_images, transfer_to_points
from labelgen.settings import shaping
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs
from labelgen.stages.stage import Stage
from labelgen.visibility import visible_pairs


def settings(resolved: ResolvedSettings) -> Any:
    """Return the settings that are not at their default; the rest follows from the groups that it is made from."""
    changed = shaping(resolved.settings.labels)
    return [changed] if changed else []


def build(inputs: ShardInputs) -> Arrays:
    """Label images by argmax and by the vote in masks, and give both labels to the points of visible pairs, if any."""
    chosen = inputs.settings.labels
    logits = inputs.read("clip", "logits")["logits"]
    mask_ids = inputs.read("sam", "mask_ids")["mask_ids"]
    images = label_images(logits, mask_ids, chosen.vote)
    arrays: Arrays = {"image_raw": images.raw, "image": images.refined}
    sure = confidence_of_images(images, mask_ids, logits) if chosen.confidence else None
    if sure is not None:
        arrays["image_confidence"] = as_bytes(sure)
    if not inputs.has_points:
        return arrays
    visible = visible_pairs(inputs.read("pairs"))
    pairs = [visible[name] for name in ("point", "image", "row", "col")]
    points: int = inputs.open("points", "xyz").shape[0]
    arrays["point_raw"], arrays["point"] = transfer_to_points(images, points, *pairs)
    if sure is not None:
        arrays["point_confidence"] = as_bytes(confidence_of_points(arrays["point"], images.refined, sure, *pairs))
    return arrays


LABELS = Stage(
    name="labels",
    description="labels of pixels and points (eq 1 to 4)",
    version=1,
    build=build,
    settings=settings,
    made_from=("clip", "sam", "pairs"),
)
