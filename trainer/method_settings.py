"""The settings of a method: which labels the networks learn from, and the terms of the loss."""

from enum import StrEnum
from typing import Literal

from pydantic import Field, model_validator

from cache_schemas.config_files import Settings


class Source(StrEnum):
    """The four sources of labels in eq 6: cached labels of CLIP, and predictions of the two networks."""

    CLIP_2D = "clip-2d"
    CLIP_3D = "clip-3d"
    OWN_2D = "own-2d"
    OWN_3D = "own-3d"


class StageSettings(Settings):
    """How often each network learns from each source of labels in one stage.

    A source is drawn for each step with a probability in proportion to its number; no sources: no targets. Sources:
    `clip-2d` and `clip-3d`, the cached labels of pixels and points; `own-2d` and `own-3d`, predictions of the networks.

    Attributes:
        image: sources of the targets of the 2D network.
        cloud: sources of the targets of the 3D network.
    """

    image: dict[Source, int] = Field(default_factory=dict)
    cloud: dict[Source, int] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_numbers(self) -> "StageSettings":
        for name, share in {**self.image, **self.cloud}.items():
            if share < 0:
                raise ValueError(f"{name} = {share}: shares of the steps are whole numbers from 0 on")
        return self

    def sources(self) -> set[Source]:
        """Return the sources that any network learns from."""
        return {name for shares in (self.image, self.cloud) for name, share in shares.items() if share}


class ScheduleSettings(Settings):
    """Which labels the networks learn from, and when.

    Attributes:
        refine: vote labels and predictions within SAM's masks, eq 4 (False: "w/o Refine").
        stage2_epoch: the first epoch of stage 2, counted from 0.
        ema_decay: predictions that become targets are those of a moving average of the networks' weights, which keeps
            this share of itself at each step. 0: they are those of the networks, as in the paper.
        stage1: the sources of targets in stage 1, eq 5.
        stage2: the sources of targets in stage 2, eq 6.
    """

    refine: bool = True
    stage2_epoch: int = Field(10, ge=0)
    ema_decay: float = Field(0, ge=0, lt=1)
    stage1: StageSettings = StageSettings()
    stage2: StageSettings = StageSettings()


class SemanticSettings(Settings):
    """The cross-entropies of eq 5 and 6 to the targets of the schedule.

    Attributes:
        weight: of the term in the loss; 0: the term is left out.
        confidence: pixels and points whose target is a cached label count as much as this label's confidence, which the
            cache must have (`labelgen run --set labels.confidence=true`).
    """

    weight: float = Field(0, ge=0)
    confidence: bool = False


class LatentSettings(Settings):
    """Eq 7: features of the networks follow frozen features of teachers at the pairs.

    Attributes:
        weight: of the term in the loss; 0: the term is left out.
        teachers: whose frozen features the networks follow.
        teacher_map: whether the linear map of these frozen features is trained too.
        dim: dimensions of the space in which features are compared, the paper's K_f.
    """

    weight: float = Field(0, ge=0)
    teachers: tuple[Literal["sam", "clip"], ...] = ("sam",)
    teacher_map: Literal["frozen", "trained"] = "frozen"
    dim: int = Field(64, ge=1)


class DistillationSettings(Settings):
    """OpenScene's distillation: mapped features of the networks follow CLIP's features of patches by their cosine.

    Attributes:
        weight: of the term in the loss; 0: the term is left out.
    """

    weight: float = Field(0, ge=0)


class SpatialTemporalSettings(Settings):
    """CLIP2Scene's consistency of the points in a voxel, over the cloud and its sweeps (`stream.sweeps`).

    Attributes:
        weight: of the term in the loss; 0: the term is left out.
    """

    weight: float = Field(0, ge=0)


class MultiscaleKlSettings(Settings):
    """Affinity3D's transfer of knowledge: class scores of points at each scale of the 3D network follow the 2D network.

    Attributes:
        weight: of the term in the loss; 0: the term is left out.
    """

    weight: float = Field(0, ge=0)


class TermSettings(Settings):
    """The terms of the loss. Each has a weight, and is left out if that is 0.

    Attributes:
        semantic: cross-entropy to labels.
        latent: eq 7.
        distillation: OpenScene's.
        spatial_temporal: CLIP2Scene's.
        multiscale_kl: Affinity3D's.
    """

    semantic: SemanticSettings = SemanticSettings()
    latent: LatentSettings = LatentSettings()
    distillation: DistillationSettings = DistillationSettings()
    spatial_temporal: SpatialTemporalSettings = SpatialTemporalSettings()
    multiscale_kl: MultiscaleKlSettings = MultiscaleKlSettings()

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers whose features the terms read, by the name of their group: `sam`, `clip`, both or none."""
        wanted = list(self.latent.teachers if self.latent.weight else ())
        wanted += ["clip"] if self.distillation.weight else []
        return tuple(dict.fromkeys(wanted))
