"""The `trainer` command: training, evaluation and prediction from a cache."""

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache_schemas.command_line import CONTEXT, load_attribute, reports_errors, say, text_width
from cache_schemas.plurals import counted

if TYPE_CHECKING:
    from cache_schemas.scoring import Absent, Unlabelled

RAY_LAUNCHER = "pipelines.ray_train:fit_on_ray"
"""What starts training on a Ray cluster. It is loaded by name, since the trainer does not import `pipelines`."""

RUN = click.argument("run", type=click.Path(path_type=Path))


def _checkpoint_name(context: click.Context, option: click.Parameter, name: str) -> str:
    if not re.fullmatch(r"last|best|previous|epoch-\d{4,}", name):
        raise click.BadParameter(f"{name!r} is none of last, best, previous and epoch-NNNN")
    return name


CHECKPOINT = click.option(
    "--checkpoint",
    default="last",
    show_default=True,
    metavar="NAME",
    callback=_checkpoint_name,
    help="Checkpoint to use: last, best, previous, or a kept one such as epoch-0010.",
)
SCENES = click.option(
    "--scenes",
    type=click.Choice(["held-out", "training", "all"]),
    help="Scenes to use: those held out from training, those trained on, or all.",
)


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="labelgen")
def main() -> None:
    """Train a 2D and a 3D network from a cache of pseudo labels.

    \b
    Examples:
      trainer fit out/nuscenes.zarr --out runs/cns
      trainer evaluate runs/cns out/nuscenes-val.zarr
      trainer predict runs/cns out/nuscenes-val.zarr --out runs/cns/val
    """


@main.command(short_help="Co-train a 2D and a 3D network.")
@click.argument("caches", metavar="CACHE...", nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option(
    "--share",
    "shares",
    multiple=True,
    type=click.IntRange(1),
    metavar="N",
    help="Share of the steps of each CACHE, once for each in their order; by default, every sample once an epoch.",
)
@click.option("--recipe", default="cns", show_default=True, help="Training method.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file, over the recipe.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One setting; may be repeated.")
@click.option(
    "--init", type=click.Path(path_type=Path), help="Run or checkpoint file whose weights a new run starts from."
)
@click.option("--resume", is_flag=True, help="Resume from the last checkpoint in --out.")
@click.option("--ray", "workers", type=click.IntRange(1), metavar="N", help="Train under Ray Train with N workers.")
@reports_errors("resume from the last checkpoint with the same command and --resume")
def fit(
    caches: tuple[str, ...],
    out: Path,
    shares: tuple[int, ...],
    recipe: str,
    config_file: Path | None,
    overrides: tuple[str, ...],
    init: Path | None,
    resume: bool,
    workers: int | None,
) -> None:
    """Co-train a 2D and a 3D network on pseudo labels of caches (Cross-modality Noisy Supervision).

    Several caches must have the same classes and prompts; each step takes samples of one of them.

    Settings come from the defaults of the first cache's data set, then the recipe, then --config, then --set. A later
    one overrides an earlier one. The folder --out gets run.json, history.jsonl, checkpoints, and TensorBoard's files.

    \b
    Examples:
      trainer fit out/nuscenes.zarr --out runs/cns
      trainer fit out/nuscenes.zarr --out runs/cns --resume
      trainer fit out/nuscenes.zarr --out runs/without-ct --recipe cns-without-ct
      trainer fit out/a.zarr out/b.zarr --out runs/both --share 2 --share 1
      torchrun --nproc-per-node 8 -m trainer.cli fit s3://bucket/nuscenes.zarr --out runs/cns

    `trainer recipes` lists the methods, `trainer table` trains and scores them side by side.

    \b
    Exit codes: 0 trained to the end, 1 stopped by an error, 2 wrong usage, 130 interrupted.
    """
    from cache_schemas.store import Cache
    from trainer.data.admission import refuse_without_points
    from trainer.settings import load_settings

    if shares and len(shares) != len(caches):
        raise click.UsageError(
            f"--share is given {len(shares)} times for {counted(len(caches), 'cache')}; give it once for each, or never"
        )
    manifests = [Cache.open(cache)[1] for cache in caches]
    for cache, manifest in zip(caches, manifests, strict=True):
        refuse_without_points(cache, manifest)  # before the settings: such a data set has none
    settings = load_settings(manifests[0].dataset, recipe, config_file, overrides)
    if workers:
        load_attribute(RAY_LAUNCHER)(settings, caches, out, workers, resume=resume, init=init, shares=shares)
        return
    from trainer.fit import FitRequest, fit

    fit(FitRequest(settings, caches[0], out, resume, init, caches[1:], shares), say, live=sys.stderr.isatty())


@main.command(short_help="Score a run's networks against truth.")
@RUN
@click.argument("cache")
@SCENES
@CHECKPOINT
@click.option("--refine", is_flag=True, help="Vote predictions within SAM's masks first (Post-Refine).")
@click.option("--tta", is_flag=True, help="Mean of class scores over 8 turns and mirrors of clouds, and mirror images.")
@click.option(
    "--ensemble", is_flag=True, help="Also score CLIP's features at points, and the better of these and the 3D network."
)
@click.option(
    "--shared-classes", is_flag=True, help="Score only the classes of the truth that the run has under the same name."
)
@click.option(
    "--seen",
    default="",
    metavar="NAMES",
    help="Classes whose truth was used in training, with commas between; by default those of the run's classes.seen.",
)
@click.option(
    "--unlabelled",
    default="ignore",
    show_default=True,
    type=click.Choice(["ignore", "miss"]),
    help="Where cached labels have none, they are not scored, or count as wrong.",
)
@click.option(
    "--absent",
    default="leave",
    show_default=True,
    type=click.Choice(["leave", "zero"]),
    help="Classes in neither truth nor labels leave the mean of IoU, or count as 0.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reports_errors("run the same command again")
def evaluate(
    run: Path,
    cache: str,
    scenes: str | None,
    checkpoint: str,
    refine: bool,
    tta: bool,
    ensemble: bool,
    shared_classes: bool,
    seen: str,
    unlabelled: "Unlabelled",
    absent: "Absent",
    as_json: bool,
) -> None:
    """Score a run's 2D and 3D network, and the cached labels, on a cache with truth.

    Without --scenes: the held-out scenes if CACHE was used for training and scenes were held out, otherwise all. On a
    cache without clouds, the 2D network alone is scored.

    With --ensemble, each point also takes the class of the mean CLIP feature of its views (fused 2D), and of whichever
    of this and the 3D network has the higher cosine with a class (OpenScene's ensemble). CACHE needs clip/features.

    With --shared-classes, a prediction is the highest score among the shared classes, and elements of other classes are
    not counted. With --seen, the report adds the mean IoU of seen and of unseen classes, and their harmonic mean.

    \b
    Examples:
      trainer evaluate runs/cns out/demo.zarr
      trainer evaluate runs/cns out/nuscenes-val.zarr --json | jq .point.miou
      trainer evaluate runs/openscene out/demo.zarr --ensemble
      trainer evaluate runs/cns out/nuimages.zarr --shared-classes
      trainer evaluate runs/affinity3d out/kitti.zarr --tta --seen car,road,vegetation
    """
    from cache_schemas.scoring import ScoringRule
    from trainer.evaluate import EvaluationOptions
    from trainer.evaluate import evaluate as score_run
    from trainer.evaluation.report import render
    from trainer.run_folder import RunFolder

    rule = ScoringRule(unlabelled, absent)
    options = EvaluationOptions(
        scenes,
        checkpoint,
        refine=refine,
        tta=tta,
        ensemble=ensemble,
        shared_classes=shared_classes,
        seen=tuple(name.strip() for name in seen.split(",") if name.strip()),
        rule=rule,
    )
    found = score_run(RunFolder(run), cache, options)
    click.echo(json.dumps(found, indent=2) if as_json else render(found, text_width()))


@main.command(short_help="Write point labels in the data set's file format.")
@RUN
@click.argument("cache")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the files.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["nuscenes-lidarseg", "semantickitti", "scannet", "pointcept"]),
    help="Format of the files; by default that of the data set's benchmark, or pointcept where there is none.",
)
@SCENES
@CHECKPOINT
@click.option("--overwrite", is_flag=True, help="Replace files that are there and were changed or made by others.")
@reports_errors("run the same command again")
def predict(
    run: Path, cache: str, out: Path, file_format: str | None, scenes: str | None, checkpoint: str, overwrite: bool
) -> None:
    """Label every point with a run's 3D network, in the file format of the data set's benchmark.

    \b
    Example:
      trainer predict runs/cns out/nuscenes-val.zarr --out runs/cns/val
    """
    from trainer.predict import predict as label_points
    from trainer.run_folder import RunFolder

    files = label_points(
        RunFolder(run),
        cache,
        out,
        file_format=file_format,
        scenes=scenes,
        checkpoint=checkpoint,
        overwrite=overwrite,
        say=say,
    )
    click.echo(f"{counted(len(files), 'file')} in {out}")


@main.command("fetch-weights", short_help="Download ImageNet weights of a 2D network.")
@click.argument("network", default="deeplabv3-resnet50")
@reports_errors("run the same command again")
def fetch_weights(network: str) -> None:
    """Download torchvision's ImageNet weights (IMAGENET1K_V1) of the backbone of NETWORK, and check their SHA-256.

    They are put into the folder named by LABELGEN_WEIGHTS (default: ~/.cache/labelgen/weights).

    \b
    Example:
      trainer fetch-weights deeplabv3-resnet50
    """
    from trainer.networks.imagenet import fetch

    click.echo(str(fetch(network)))


@main.command(short_help="List the training methods.")
def recipes() -> None:
    """List the recipes of `trainer fit --recipe`, with one line about each."""
    from trainer.settings import recipes as known

    found = known()
    width = max(map(len, found))
    for name, description in found.items():
        click.echo(f"{name:<{width}}  {description}")


@main.command(short_help="Train and score the rows of the paper's tables.")
@click.argument("caches", nargs=-1, required=True, metavar="CACHE...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the runs and of the table.")
@click.option("--rows", help="Names of rows, such as baseline,without-ct,cns; by default all.")
@click.option("--seeds", default="0", show_default=True, help="Seeds, such as 0,1,2: mean and spread are over them.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One setting of all rows; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@reports_errors("run the same command again; finished runs are kept")
def table(
    caches: tuple[str, ...], out: Path, rows: str | None, seeds: str, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Make tables 1 and 2 of the CNS paper on caches with truth, and write table.txt, table.md and table.json.

    A row whose training has finished is only scored. A stopped training resumes from its last checkpoint. The labels of
    the rows baseline and without-cns are scored beside the first trained row.

    With several caches, which must have the same classes and prompts, each row is trained on all of them with equal
    shares of the steps, and scored on the held-out scenes of each; the table has columns for each cache.

    \b
    Examples:
      trainer table out/demo.zarr --out runs/table --rows baseline,without-cns,without-ct,cns
      trainer table out/scannet.zarr --out runs/table --seeds 0,1,2
      trainer table out/a.zarr out/b.zarr --out runs/both --rows baseline,cns
    """
    from trainer.table import TableRequest, make_table
    from trainer.table_report import render

    try:
        numbers = tuple(int(seed) for seed in seeds.split(","))
    except ValueError:
        raise click.BadParameter(f"{seeds!r} are no whole numbers with commas between", param_hint="--seeds") from None
    chosen = tuple(rows.split(",")) if rows else ()
    made = make_table(TableRequest(caches, out, chosen, numbers, overrides), say)
    click.echo((out / "table.json").read_text() if as_json else render(made, max(text_width(), 40 + 70 * len(caches))))


if __name__ == "__main__":
    main()
