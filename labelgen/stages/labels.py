"""Stage `labels`: class ids of pixels and points, from scores, masks and pairs (eq 1 to 4)."""

from typing import Any

from labelgen.labelling import label_images, transfer_to_points
from labelgen.stages.inputs import Arrays, ResolvedSettings, ShardInputs
from labelgen.stages.stage import Stage
from labelgen.visibility import visible_pairs


def settings(resolved: ResolvedSettings) -> Any:
    """Return nothing: what is made from other groups follows from them."""
    return []


def build(inputs: ShardInputs) -> Arrays:
    """Label images by argmax and by the vote in masks, and give both labels to the points of visible pairs, if any."""
    logits = inputs.read("clip", "logits")["logits"]
    mask_ids = inputs.read("sam", "mask_ids")["mask_ids"]
    images = label_images(logits, mask_ids)
    if not inputs.has_points:
        return {"image_raw": images.raw, "image": images.refined}
    pairs = visible_pairs(inputs.read("pairs"))
    points: int = inputs.open("points", "xyz").shape[0]
    raw, refined = transfer_to_points(images, points, pairs["point"], pairs["image"], pairs["row"], pairs["col"])
    return {"image_raw": images.raw, "image": images.refined, "point_raw": raw, "point": refined}


LABELS = Stage(
    name="labels",
    description="labels of pixels and points (eq 1 to 4)",
    version=1,
    build=build,
    settings=settings,
    made_from=("clip", "sam", "pairs"),
)
