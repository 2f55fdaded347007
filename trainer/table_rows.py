"""The rows of the tables: methods of the CNS paper's tables 1 and 2, and others beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cache_schemas.errors import ConfigError


@dataclass(frozen=True)
class Row:
    """A row of table 1 or 2 of the CNS paper, or of another method beside them.

    Attributes:
        name: how `--rows` calls it.
        title: how its paper calls it.
        labels: the cached labels that the row scores, `raw` or `refined`; None for a row that is trained.
        recipe: the recipe of a row that is trained.
        overrides: settings besides the recipe.
        refine: predictions are voted within SAM's masks before they are scored (Post-Refine).
        points: what the 3D column scores, a key of the report of `trainer.evaluate.evaluate`: `point`, the 3D network;
            `fused_2d`, CLIP's features at the points that a camera sees; `ensemble`, the better of both. The 2D column
            of the last two is empty.
        paper: 2D and 3D mIoU on ScanNet val in the CNS paper, percent.
    """

    name: str
    title: str
    labels: str | None = None
    recipe: str = ""
    overrides: tuple[str, ...] = ()
    refine: bool = False
    points: Literal["point", "fused_2d", "ensemble"] = "point"
    paper: tuple[float, float] | None = None

    @property
    def run_name(self) -> str:
        """The name of the run that the row scores; rows may share one."""
        return "-".join([self.recipe, *(text.replace("stream.images=", "images-") for text in self.overrides)])


ROWS = (
    Row("baseline", "MaskCLIP (Baseline)", labels="raw", paper=(17.3, 14.2)),
    Row("maskclip++", "MaskCLIP++", recipe="maskclip++", paper=(20.3, 21.6)),
    Row("openscene", "OpenScene", recipe="openscene", paper=(14.2, 16.8)),
    Row("openscene-fused-2d", "OpenScene, fused 2D", recipe="openscene", points="fused_2d"),
    Row("openscene-ensemble", "OpenScene, ensemble", recipe="openscene", points="ensemble"),
    Row("clip2scene", "CLIP2Scene (sweeps)", recipe="clip2scene"),
    Row("clip2scene-rooms", "CLIP2Scene", recipe="clip2scene-rooms", paper=(23.7, 25.6)),
    Row("without-cns", "w/o CNS", labels="refined", paper=(24.5, 19.4)),
    Row("without-refine", "w/o Refine", recipe="cns-without-refine", paper=(23.7, 30.6)),
    Row("post-refine", "Post-Refine", recipe="cns-without-refine", refine=True, paper=(28.1, 33.2)),
    Row("without-ct", "w/o CT", recipe="cns-without-ct", paper=(27.7, 31.0)),
    Row("without-sct", "w/o SCT", recipe="cns-without-sct", paper=(24.7, 30.6)),
    Row("without-clip", "w/o CLIP", recipe="cns-without-clip", paper=(4.7, 5.1)),
    Row("latent-clip", "latent CLIP", recipe="cns-latent-clip", paper=(27.3, 32.4)),
    Row("latent-sam-clip", "latent SAM+CLIP", recipe="cns-latent-sam-clip", paper=(27.8, 32.5)),
    Row("latent-none", "latent None", recipe="cns-latent-none", paper=(27.1, 32.0)),
    Row("images-8", "8 images", recipe="cns", overrides=("stream.images=8",), paper=(27.9, 33.0)),
    Row("images-16", "16 images", recipe="cns", overrides=("stream.images=16",), paper=(28.4, 33.5)),
    Row("images-32", "32 images", recipe="cns", overrides=("stream.images=32",), paper=(28.3, 33.3)),
    Row("cns", "CNS (full)", recipe="cns", paper=(28.4, 33.5)),
    Row("cns-instances", "CNS, instance labels", recipe="cns-instances"),
    Row("affinity3d", "Affinity3D", recipe="affinity3d"),
)
"""The rows of both tables. OpenScene has one for each of its predictions, CLIP2Scene one for lidar and for ScanNet."""


def choose_rows(names: Sequence[str]) -> list[Row]:
    """Return the rows of these names in the order of the tables; without names, all.

    Raises:
        ConfigError: if a name is unknown, or no row is trained.
    """
    known = {row.name: row for row in ROWS}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"no row {unknown[0]!r}; choose {', '.join(known)}")
    chosen = [row for row in ROWS if row.name in names or not names]
    if all(row.labels for row in chosen):
        raise ConfigError("rows of labels are scored beside a trained row; add one, such as --rows cns")
    return chosen
