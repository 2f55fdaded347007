"""The settings of a training run: defaults of the data set, then a recipe, then a file, then overrides."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from cache_schemas.config_files import Settings, check, merge, override, read_shipped, read_yaml, shipped_names

EXAMPLE = "trainer/configs/nuscenes.yaml"


class StreamSettings(Settings):
    """What a step reads.

    `samples` clouds a step on each rank, each with `images` of its pictures; `window_shards` shards are shuffled
    together; every `hold_out`-th scene in name order is left for evaluation (0: none); `workers` read ahead.
    """

    samples: int = Field(ge=1)
    images: int = Field(ge=1)
    window_shards: int = Field(8, ge=1)
    hold_out: int = Field(0, ge=0)
    workers: int = Field(ge=0)


class AugmentSettings(Settings):
    """Random changes: pictures flip and are cropped to at least `min_crop` of each side, clouds turn and flip.

    Each colour channel of a picture is scaled by up to `relight` more or less, and shifted by as much of its range.
    """

    images: bool = True
    clouds: bool = True
    min_crop: float = Field(0.5, gt=0, le=1)
    relight: float = Field(0, ge=0, le=1)


class NetworkSettings(Settings):
    """The two networks.

    `image_weights` is a file with weights of the image network's backbone (safetensors, or what torchvision
    offers for download), or `demo-small`, the demo's for the small network; None starts from noise. `latent_dim` is
    the paper's K_f.
    """

    image: Literal["deeplabv3-resnet50", "deeplabv3-mobilenet", "small"]
    cloud: Literal["minkunet34", "minkunet18", "minkunet14", "small"]
    image_weights: Path | None = None
    voxel_m: float = Field(gt=0)
    latent_dim: int = Field(64, ge=1)


class MethodSettings(Settings):
    """Cross-modality Noisy Supervision, and its ablations (table 2 of the paper).

    `refine`: vote labels and predictions in SAM's masks (False: "w/o Refine"). From epoch `stage2_epoch` on, targets
    are drawn from CLIP's labels (unless `clip_in_stage2` is False: "w/o CLIP"), a network's own predictions
    (`self_training`) and the other's (`cross_training`; False: "w/o CT"; both False: "w/o SCT"). `latent` says
    which frozen features the networks' features follow (eq 7); `teacher_map` whether the linear map on these is
    trained along.
    """

    refine: bool = True
    stage2_epoch: int = Field(10, ge=0)
    clip_in_stage2: bool = True
    self_training: bool = True
    cross_training: bool = True
    latent: Literal["none", "sam", "clip", "sam+clip"] = "sam"
    teacher_map: Literal["frozen", "trained"] = "frozen"

    @property
    def latent_teachers(self) -> tuple[str, ...]:
        """The groups whose features eq 7 follows: `sam`, `clip`, both or none."""
        return () if self.latent == "none" else tuple(self.latent.split("+"))

    @model_validator(mode="after")
    def _stage2_has_a_source(self) -> "MethodSettings":
        if not (self.clip_in_stage2 or self.self_training or self.cross_training):
            raise ValueError("stage 2 draws from nothing; allow CLIP, self-training or cross-training")
        return self


class OptimiserSettings(Settings):
    """The paper's SGD, or AdamW, with a rate that warms up over `warmup_steps` and falls along a cosine to zero.

    In the cross-entropies a class weighs in proportion to its frequency to the power of -`class_balance`; 0, as in the
    paper, lets all elements count alike.
    """

    epochs: int = Field(ge=1)
    kind: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_steps: int = Field(0, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    class_balance: float = Field(0, ge=0, le=1)
    precision: Literal["fp32", "bf16"] = "fp32"


class RunSettings(Settings):
    """Everything about a run but where its input and output are."""

    recipe: str
    seed: int = Field(0, ge=0)
    stream: StreamSettings
    augment: AugmentSettings = AugmentSettings()
    networks: NetworkSettings
    method: MethodSettings = MethodSettings()
    optimiser: OptimiserSettings
    checkpoint_minutes: float = Field(10, gt=0)


def load_settings(
    dataset: str, recipe: str = "cns", file: Path | None = None, overrides: Sequence[str] = ()
) -> RunSettings:
    """Return the effective settings for caches of a data set.

    Raises:
        ConfigError: quoting the key or value that is wrong, and the nearest valid key.
    """
    settings: dict[str, Any] = read_shipped("trainer", "configs", dataset, "training defaults for data set")
    merge(settings, read_shipped("trainer", "recipes", recipe, "recipe"))
    if file:
        merge(settings, read_yaml(file, EXAMPLE))
    override(settings, overrides, "optimiser.epochs=5")
    settings["recipe"] = recipe
    sources = f"{dataset}.yaml, recipe {recipe}" + (f", {file}" if file else "") + (", --set" if overrides else "")
    return check(RunSettings, settings, sources)


def recipe_names() -> list[str]:
    """Return the recipes that come with the package."""
    return shipped_names("trainer", "recipes")
