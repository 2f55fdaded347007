"""Train the demo's CLIP on crops and captions: `python -m pipelines.demo.teachers.train_clip --out FILE`.

Each crop shows some object or stuff of the training scenes, its caption is one of the 85 templates around one of the
class's names. The loss is contrastive over the batch, where captions of one class count as equally right. No dense
label is ever shown.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cache_schemas.taxonomy import load_taxonomy
from labelgen.prompts import PromptSet, load_prompts
from labelgen.settings import ClipSettings
from labelgen.teachers.clip import build_clip, normalise
from pipelines.demo.teachers.loop import parse_arguments, train, training_views
from pipelines.demo.teachers.views import Views, relight

ARCHITECTURE = "demo-vit-16"
STEPS = 5000
CROPS_A_STEP = 256
CROP_PX = 64
SMALLEST_CROP_PX, LARGEST_CROP_PX = 40, 120
LEAST_SHARE = 0.3
"""A crop is named after a class only if the class fills this share of it."""


def main() -> None:
    """Draw the training views, train, and write the weights as safetensors."""
    import open_clip

    args = parse_arguments(__doc__)
    views = training_views(args)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    prompts = load_prompts("nuscenes-improved", load_taxonomy("nuscenes16"))
    model = build_clip(ClipSettings(architecture=ARCHITECTURE, weights="untrained:0")).to(args.device).train()
    tokenizer = open_clip.get_tokenizer(ARCHITECTURE)
    places = _places_by_class(views, len(prompts.class_names))

    def step() -> tuple[Tensor, float]:
        crops, classes = _draw(views, places, rng, CROPS_A_STEP)
        tokens = tokenizer(_captions(prompts, classes, rng)).to(args.device)
        pixels = normalise(model.visual, torch.from_numpy(crops).to(args.device))
        with torch.autocast(args.device.split(":")[0], torch.bfloat16):
            return _loss(model, pixels, tokens, torch.from_numpy(classes).to(args.device))

    train(model, step, "right", STEPS, args)


def _places_by_class(views: Views, classes: int) -> list[NDArray[np.int64]]:
    """Return, for each class, some pixels (N, 3) of it: view, row, column; at most 300 of one class a view."""
    rng = np.random.default_rng(1)
    places: list[list[NDArray[np.int64]]] = [[] for _ in range(classes)]
    for index, ids in enumerate(views.class_ids):
        for label in np.unique(ids[ids < classes]):
            rows, columns = np.nonzero(ids == label)
            some = rng.choice(len(rows), min(300, len(rows)), replace=False)
            places[label].append(np.stack([np.full(len(some), index), rows[some], columns[some]], axis=1))
    return [np.concatenate(found) if found else np.zeros((0, 3), np.int64) for found in places]


def _draw(
    views: Views, places: list[NDArray[np.int64]], rng: np.random.Generator, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw crops (count, CROP_PX, CROP_PX, 3) of evenly chosen classes (count,), mirrored and relit at random."""
    from PIL import Image

    present = [label for label, found in enumerate(places) if len(found)]
    crops, classes = [], []
    while len(crops) < count:
        label = present[int(rng.integers(len(present)))]
        index, row, column = places[label][int(rng.integers(len(places[label])))]
        side = int(np.exp(rng.uniform(np.log(SMALLEST_CROP_PX), np.log(LARGEST_CROP_PX))))
        height, width = views.class_ids.shape[1:]
        top = int(np.clip(row - rng.integers(side // 4, side - side // 4), 0, height - side))
        left = int(np.clip(column - rng.integers(side // 4, side - side // 4), 0, width - side))
        window = (index, slice(top, top + side), slice(left, left + side))
        if (views.class_ids[window] == label).mean() < LEAST_SHARE:
            continue
        crop = np.asarray(Image.fromarray(views.rgb[window]).resize((CROP_PX, CROP_PX), Image.Resampling.BILINEAR))
        lit = relight(crop, rng, contrast=0.25, brightness=15)
        crops.append(lit[:, :: -1 if rng.random() < 0.5 else 1])
        classes.append(label)
    return np.stack(crops), np.array(classes)


def _captions(prompts: PromptSet, classes: NDArray[np.int64], rng: np.random.Generator) -> list[str]:
    names = list(prompts.class_names.values())
    words = [names[label][int(rng.integers(len(names[label])))] for label in classes]
    return [prompts.templates[int(rng.integers(len(prompts.templates)))].format(word) for word in words]


def _loss(model: torch.nn.Module, pixels: Tensor, tokens: Tensor, classes: Tensor) -> tuple[Tensor, float]:
    """Contrast pictures with captions, both ways; returns the loss and the share of pictures closest to their class."""
    images = model.encode_image(pixels, normalize=True)
    texts = model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp().clamp(max=100) * images @ texts.T
    same = classes[:, None] == classes[None]
    share = same / same.sum(dim=1, keepdim=True)
    loss = (functional.cross_entropy(logits, share) + functional.cross_entropy(logits.T, share)) / 2
    return loss, float((classes[logits.argmax(dim=1)] == classes).float().mean())


if __name__ == "__main__":
    main()
