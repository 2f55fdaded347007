"""Train the demo's CLIP on crops and captions: `python -m demo.teachers.train_clip --out FILE`.

A crop shows an object or stuff of the training scenes. Its caption is one of the 85 templates with one of the names of
its class. The loss is contrastive over the batch; all captions of the crop's class count as positives. Training uses no
dense labels.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cache_schemas.taxonomy import load_taxonomy
from demo.teachers.crops import draw_crops, places_by_class
from demo.teachers.loop import half_precision, parse_arguments, train, training_views
from demo.teachers.views import Light
from labelgen.prompts import PromptSet, load_prompts
from labelgen.settings import ClipSettings
from labelgen.teachers.clip.network import build_clip, normalise_images

if TYPE_CHECKING:
    from open_clip import CLIP

ARCHITECTURE = "demo-vit-16"
STEPS = 5000
CROPS_A_STEP = 256


def main() -> None:
    """Render the training views, train, and write the weights as safetensors."""
    import open_clip

    args = parse_arguments(__doc__)
    views = training_views(args)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    prompts = load_prompts("nuscenes-improved", load_taxonomy("nuscenes16"))
    model = build_clip(ClipSettings(architecture=ARCHITECTURE, weights="untrained:0")).to(args.device).train()
    tokenizer = open_clip.get_tokenizer(ARCHITECTURE)
    places = places_by_class(views, len(prompts.class_names))

    def step() -> tuple[Tensor, float]:
        crops, classes = draw_crops(views, places, rng, CROPS_A_STEP, Light(contrast=0.25, brightness=15))
        tokens = tokenizer(_captions(prompts, classes, rng)).to(args.device)
        pixels = normalise_images(model.visual, torch.from_numpy(crops).to(args.device))
        with half_precision(args.device):
            return _loss(model, pixels, tokens, torch.from_numpy(classes).to(args.device))

    train(model, step, "accuracy", STEPS, rng, args)


def _captions(prompts: PromptSet, classes: NDArray[np.int64], rng: np.random.Generator) -> list[str]:
    names = list(prompts.class_names.values())
    words = [names[label][int(rng.integers(len(names[label])))] for label in classes]
    return [prompts.templates[int(rng.integers(len(prompts.templates)))].format(word) for word in words]


def _loss(model: "CLIP", pixels: Tensor, tokens: Tensor, classes: Tensor) -> tuple[Tensor, float]:
    """Return the symmetric contrastive loss of pictures and captions, and the accuracy of picture to class."""
    images = model.encode_image(pixels, normalize=True)
    texts = model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp().clamp(max=100) * images @ texts.T
    same = classes[:, None] == classes[None]
    share = same / same.sum(dim=1, keepdim=True)
    loss = (functional.cross_entropy(logits, share) + functional.cross_entropy(logits.T, share)) / 2
    return loss, float((classes[logits.argmax(dim=1)] == classes).float().mean())


if __name__ == "__main__":
    main()
