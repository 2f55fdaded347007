"""CLIP's labels against the obvious way: picture by picture, at full size, and with the prompts encoded each time."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.measure import Row, compare, share_equal
from labelgen.labelling import classify
from labelgen.settings import ClipSettings
from labelgen.teachers.clip.teacher import ClipTeacher


def compare_clip(rgb: NDArray[np.uint8], settings: ClipSettings, sentences: list[list[str]]) -> Iterator[Row]:
    """Compare labels of pictures (B, H, W, 3) from the `sentences` of each class.

    Ours scores all pictures at once on the patch grid, with classes embedded once for all shards (so outside the
    time), and takes the best class while it upsamples, one class at a time. The others bring the scores of each
    picture to full size before the argmax.
    """
    teacher, size = ClipTeacher(settings), (rgb.shape[1], rgb.shape[2])
    text = teacher.embed_text(sentences)

    def at_full_size(picture: NDArray[np.uint8], text: NDArray[np.float32]) -> NDArray[np.uint8]:
        scores = torch.from_numpy(teacher.score(picture[None], text).logits.astype(np.float32))
        full = functional.interpolate(scores, size, mode="bilinear", align_corners=False)
        return full.softmax(dim=1).argmax(dim=1).numpy().astype(np.uint8)

    def grid_to_labels() -> NDArray[np.uint8]:
        return classify(teacher.score(rgb, text).logits, size)[0]

    number = sum(map(len, sentences))
    sizes = f"{settings.architecture}, {len(rgb)} pictures of {size[1]}x{size[0]}, {len(sentences)} classes"
    yield compare(
        "CLIP labels",
        grid_to_labels,
        "picture by picture, at full size",
        lambda: np.concatenate([at_full_size(picture, text) for picture in rgb]),
        share_equal,
        sizes,
    )
    yield compare(
        "CLIP labels of a picture",
        lambda: classify(teacher.score(rgb[:1], text).logits, size)[0],
        "the same, prompts encoded for each picture",
        lambda: at_full_size(rgb[0], teacher.embed_text(sentences)),
        share_equal,
        f"{settings.architecture}, {size[1]}x{size[0]}, {number} prompts",
        rounds=1,
    )
    logits = teacher.score(rgb, text).logits

    def of_full_scores() -> NDArray[np.uint8]:
        scores = functional.interpolate(torch.from_numpy(logits.astype(np.float32)), size, mode="bilinear")
        return scores.numpy().argmax(axis=1).astype(np.uint8)

    yield compare(
        "argmax of CLIP scores",
        lambda: classify(logits, size)[0],
        "numpy argmax of full-size scores",
        of_full_scores,
        share_equal,
        sizes,
    )
