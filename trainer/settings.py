"""The settings of a training run: defaults of the data set, then a recipe, then a file, then overrides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from cache_schemas.config_files import Settings, check, merge, override, read_shipped, read_yaml, shipped_names
from cache_schemas.errors import ConfigError
from trainer.method_settings import ScheduleSettings, Source, StageSettings, TermSettings

EXAMPLE = "trainer/configs/nuscenes.yaml"

INSTANCES = "instances"
"""The value of `stream.label_source` for the cached labels of points by instances."""

TIME = "time"
"""The value of `stream.label_source` for the cached labels of points and pixels on which keyframes agree."""

RENAMED_KEYS = {
    "stream.samples": "stream.batch_samples",
    "optimiser.clip_norm": "optimiser.max_gradient_norm",
    "networks.latent_dim": "terms.latent.dim",
    "method.refine": "schedule.refine",
    "method.stage2_epoch": "schedule.stage2_epoch",
    "method.clip_in_stage2": "schedule.stage2",
    "method.self_training": "schedule.stage2",
    "method.cross_training": "schedule.stage2",
    "method.latent": "terms.latent.teachers",
    "method.teacher_map": "terms.latent.teacher_map",
}
"""Keys of earlier versions, with their present name; errors about an old key name the new one."""


class StreamSettings(Settings):
    """What a training step reads.

    Attributes:
        batch_samples: samples (clouds with their images) of a step on each rank.
        images: images of each sample that a step uses, drawn uniformly; all, if a sample has fewer.
        window_shards: number of consecutive shards whose samples are shuffled together.
        hold_out: every n-th scene in order of scene names is left for evaluation; 0: none.
        workers: processes that prepare batches ahead of time; 0: the training process prepares them itself.
        sweeps: sweeps that join each cloud, drawn at random from those in the cache; their points have no labels.
        label_source: the labels of points. `instances`: the cached ones by instances (`labelgen run --set
            instances.enabled=true`); `time`: those on which keyframes agree (`--set time.enabled=true`); another name:
            imported ones (`labelgen import-labels`); None: the cached ones by pixels. Labels of pixels are those on
            which keyframes agree with `time`, and else the cached ones.
        local_copy: a folder on each node, where the arrays that the training reads are copied once, and then read from.
            None: they are read from the cache in every epoch.
    """

    batch_samples: int = Field(ge=1)
    images: int = Field(ge=1)
    window_shards: int = Field(8, ge=1)
    hold_out: int = Field(0, ge=0)
    workers: int = Field(ge=0)
    sweeps: int = Field(0, ge=0)
    label_source: str | None = Field(None, pattern="^[a-z0-9][a-z0-9_-]*$")
    local_copy: Path | None = None


class ClassSettings(Settings):
    """Classes whose truth supervises.

    Attributes:
        seen: generalised zero-shot: names of classes whose truth takes the place of the labels of points. Elsewhere
            labels of the other classes stay, at points that a camera sees. The cache must have truth of points; labels
            of pixels stay as they are. None are seen: no truth is read.
    """

    seen: tuple[str, ...] = ()


class AugmentSettings(Settings):
    """Random augmentation.

    Attributes:
        images: mirror images and crop them.
        clouds: rotate clouds about z and mirror x and y.
        min_crop: the smallest crop, as a share of each side of the image.
        keep_pairs: the share of an image's pairs that its crop keeps at least: of up to ten drawn crops, the first that
            does so is taken, or else the one with the most pairs. 0: the first crop.
        relight: colour jitter: each channel is scaled by 1 +- this at most, and shifted by +- this share of half its
            range at most.
    """

    images: bool = True
    clouds: bool = True
    min_crop: float = Field(0.5, gt=0, le=1)
    keep_pairs: float = Field(0, ge=0, le=1)
    relight: float = Field(0, ge=0, le=1)


class NetworkSettings(Settings):
    """The two networks.

    Attributes:
        image: the 2D network; `none`: there is none.
        cloud: the 3D network; `none`: there is none.
        image_weights: weights of the image network's backbone: a safetensors file, a file as torchvision publishes it,
            `imagenet`, which `trainer fetch-weights` fetches (random weights if absent), or `demo-small`, which is the
            demo's for the small network. None: random weights.
        voxel_m: the side of a voxel, in metres.
        point_features: what the 3D network knows of a point besides its place: `intensity` (where the cache has none,
            the grey value of the point's colour; where it has neither, 0), or its `colour`, which the cache must have.
    """

    image: Literal["deeplabv3-resnet50", "deeplabv3-mobilenet", "small", "none"]
    cloud: Literal["minkunet34", "minkunet18a", "minkunet14a", "spvcnn", "spvcnn-2dpass", "small", "none"]
    image_weights: Path | None = None
    voxel_m: float = Field(gt=0)
    point_features: Literal["intensity", "colour"] = "intensity"


class OptimiserSettings(Settings):
    """The optimiser; the paper uses SGD.

    Attributes:
        epochs: passes over the training samples.
        kind: SGD or AdamW.
        lr: the highest learning rate; it follows a linear warm-up, then a cosine to zero at the last step.
        momentum: of SGD.
        weight_decay: of both optimisers.
        warmup_steps: steps of the warm-up; 0: none.
        max_gradient_norm: gradient clipping: the gradient's norm over all parameters is limited to this. None: it is
            not limited.
        class_balance: class weights in the cross-entropies are proportional to frequency to the power of minus this; 0,
            as in the paper: all elements count alike.
        precision: bf16 autocast or fp32; sparse convolutions always run in fp32.
        tf32: sparse convolutions on a GPU may round their factors to TF32, with 10 bits after the binary point, which
            tensor cores multiply faster.
    """

    epochs: int = Field(ge=1)
    kind: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_steps: int = Field(0, ge=0)
    max_gradient_norm: float | None = Field(None, gt=0)
    class_balance: float = Field(0, ge=0, le=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    tf32: bool = False


class RunSettings(Settings):
    """All settings of a run; not included: the cache that it reads, and the folder that it writes.

    Attributes:
        recipe: the name of the method's settings (schedule, terms, some networks) in trainer/recipes.
        seed: determines initial weights, the order of samples, augmentation, and the sources of targets.
        stream: what a training step reads.
        classes: classes whose truth supervises; by default none.
        augment: random augmentation.
        networks: the two networks.
        schedule: which labels the networks learn from, and when.
        terms: the terms of the loss.
        optimiser: the optimiser.
        checkpoint_minutes: a checkpoint is written when the last one is older than this, and after each epoch.
        keep_checkpoints: checkpoints that stay beside the last two and the best: none, that at the end of stage 1, or
            that of each epoch.
        score_epochs: held-out scenes are scored after each n-th epoch; the cache must have truth. 0: never.
    """

    recipe: str
    seed: int = Field(0, ge=0)
    stream: StreamSettings
    classes: ClassSettings = ClassSettings()
    augment: AugmentSettings = AugmentSettings()
    networks: NetworkSettings
    schedule: ScheduleSettings
    terms: TermSettings
    optimiser: OptimiserSettings
    checkpoint_minutes: float = Field(10, gt=0)
    keep_checkpoints: Literal["none", "stage", "epoch"] = "none"
    score_epochs: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check_scored_scenes(self) -> "RunSettings":
        if self.score_epochs and not self.stream.hold_out:
            raise ValueError("score_epochs needs held-out scenes; set stream.hold_out, or score_epochs to 0")
        return self

    @model_validator(mode="after")
    def _check_confidence(self) -> "RunSettings":
        cached = self.schedule.refine and self.stream.label_source is None and not self.classes.seen
        if self.terms.semantic.confidence and not cached:
            raise ValueError(
                "terms.semantic.confidence is that of cached voted labels; raw, imported labels and truth have none: "
                "leave schedule.refine true, stream.label_source null and classes.seen empty, or set it to false"
            )
        return self

    @model_validator(mode="after")
    def _check_targets(self) -> "RunSettings":
        """Check that each network that learns from labels has some in both stages, from a network that is there."""
        absent = [name for name in ("image", "cloud") if getattr(self.networks, name) == "none"]
        if len(absent) == 2:
            raise ValueError("networks.image and networks.cloud are both none; one must be trained")
        if self.terms.spatial_temporal.weight and self.networks.cloud == "none":
            raise ValueError("terms.spatial_temporal.weight needs a 3D network, but networks.cloud is none")
        if absent and self.terms.multiscale_kl.weight:
            raise ValueError(
                f"terms.multiscale_kl needs both networks, but networks.{absent[0]} is none; choose one, or set "
                "terms.multiscale_kl.weight to 0"
            )
        predicted_by = {"image": Source.OWN_2D, "cloud": Source.OWN_3D}
        for stage in ("stage1", "stage2"):
            of_stage: StageSettings = getattr(self.schedule, stage)
            for network in ("image", "cloud"):
                shares = getattr(of_stage, network)
                if self.terms.semantic.weight and network not in absent and not any(shares.values()):
                    raise ValueError(
                        f"schedule.{stage}.{network} has no source of targets; give one such as clip-2d: 1"
                    )
            for network in absent:
                learns = [other for other in ("image", "cloud") if other not in absent]
                if any(getattr(of_stage, other).get(predicted_by[network]) for other in learns):
                    raise ValueError(
                        f"schedule.{stage} takes targets from {predicted_by[network]}, but networks.{network} is none; "
                        f"set this source to 0, or choose the network"
                    )
        return self


def load_settings(
    dataset: str, recipe: str = "cns", file: Path | None = None, overrides: Sequence[str] = ()
) -> RunSettings:
    """Return the effective settings for caches of a data set.

    Raises:
        ConfigError: if a key or value is wrong; it quotes them and names the nearest valid key.
    """
    settings: dict[str, Any] = read_shipped("trainer", "configs", dataset, "training defaults for data set")
    method = read_shipped("trainer", "recipes", recipe, "recipe")
    method.pop("description")
    merge(settings, method)
    if file:
        merge(settings, read_yaml(file, EXAMPLE))
    override(settings, overrides, "optimiser.epochs=5")
    settings["recipe"] = recipe
    sources = f"{dataset}.yaml, recipe {recipe}" + (f", {file}" if file else "") + (", --set" if overrides else "")
    if renamed := renamed_keys(settings):
        names = "; ".join(f"key {old!r} is now called {new!r}" for old, new in renamed.items())
        raise ConfigError(f"settings ({sources}): {names}")
    return check(RunSettings, settings, sources)


def differences(settings: Settings, reference: Settings, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings that have other values than in `reference`, JSON-ready, by keys such as `stream.images`."""
    found: dict[str, Any] = {}
    values = settings.model_dump(mode="json")
    for name in type(settings).model_fields:
        own, other = getattr(settings, name), getattr(reference, name)
        if isinstance(own, Settings):
            found |= {f"{name}.{key}": value for key, value in differences(own, other).items()}
        elif own != other and name not in without:
            found[name] = values[name]
    return found


def recipes() -> dict[str, str]:
    """Return the recipes that come with the package, with one line about each."""
    names = shipped_names("trainer", "recipes")
    return {name: read_shipped("trainer", "recipes", name, "recipe")["description"] for name in names}


def renamed_keys(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys in `settings` that an earlier version used, with their present names."""
    return {old: new for old, new in RENAMED_KEYS.items() if _has_key(settings, old)}


def _has_key(settings: Mapping[str, Any], key: str) -> bool:
    section, name = key.split(".")
    found = settings.get(section)
    return isinstance(found, Mapping) and name in found
