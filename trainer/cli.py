"""The `trainer` command: the front door to training, evaluation and prediction from a cache."""

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

FAILED = 1
INTERRUPTED = 130

RUN = click.argument("run", type=click.Path(path_type=Path))
CHECKPOINT = click.option(
    "--checkpoint", default="last", show_default=True, type=click.Choice(["last", "best"]), help="Which one to use."
)
SCENES = click.option(
    "--scenes",
    type=click.Choice(["held-out", "training", "all"]),
    help="Which scenes of the cache, by what the run held out.",
)


def _reports_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print errors that a user can act on as one line, and exit with 1."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from cache_schemas.errors import CacheError
        from trainer.errors import TrainerError

        try:
            return command(*args, **kwargs)
        except (CacheError, TrainerError) as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(FAILED)
        except KeyboardInterrupt:
            click.echo("interrupted; go on from the last checkpoint with the same command and --resume", err=True)
            sys.exit(INTERRUPTED)

    return wrapped


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="labelgen")
def main() -> None:
    """Train a 2D and a 3D network from a cache of pseudo labels, and nothing else.

    \b
    Examples:
      trainer fit out/nuscenes.zarr --out runs/cns
      trainer evaluate runs/cns out/nuscenes-val.zarr
      trainer predict runs/cns out/nuscenes-val.zarr --out runs/cns/val
    """


@main.command(short_help="Co-train a 2D and a 3D network.")
@click.argument("cache")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--recipe", default="cns", show_default=True, help="Which method.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings over the recipe's.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One setting; may be repeated.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out.")
@click.option("--ray", "workers", type=click.IntRange(1), metavar="N", help="Train under Ray Train with N workers.")
@_reports_errors
def fit(
    cache: str,
    out: Path,
    recipe: str,
    config_file: Path | None,
    overrides: tuple[str, ...],
    resume: bool,
    workers: int | None,
) -> None:
    """Co-train a 2D and a 3D network on a cache's pseudo labels (Cross-modality Noisy Supervision).

    Settings are the defaults for the cache's data set (trainer/configs), the recipe's, --config's and --set's, in
    this order. OUT gets run.json, history.jsonl, last.pt, best.pt, and TensorBoard's files.

    \b
    Examples:
      trainer fit out/nuscenes.zarr --out runs/cns
      trainer fit out/nuscenes.zarr --out runs/cns --resume
      trainer fit out/nuscenes.zarr --out runs/without-ct --set method.cross_training=false
      torchrun --nproc-per-node 8 -m trainer.cli fit s3://bucket/nuscenes.zarr --out runs/cns

    \b
    Ablations of the paper's table 2, each setting after a --set of its own:
      w/o Refine  method.refine=false            w/o CT    method.cross_training=false
      w/o CLIP    method.clip_in_stage2=false    w/o SCT   method.cross_training=false method.self_training=false
      latent      method.latent=none|clip|sam+clip|sam
      images      stream.images=1 and more       Post-Refine: method.refine=false, then evaluate --refine

    \b
    Exit codes: 0 trained to the end, 1 stopped by an error, 2 wrong usage, 130 interrupted.
    """
    from cache_schemas.store import Cache
    from trainer.settings import load_settings

    _, manifest = Cache.open(cache)
    settings = load_settings(manifest.dataset, recipe, config_file, overrides)
    if workers:
        from pipelines.ray_train import fit_on_ray

        fit_on_ray(settings, cache, out, workers, resume=resume)
        return
    from trainer.fit import FitRequest, fit

    fit(FitRequest(settings, cache, out, resume), _say)


@main.command(short_help="Score a run's networks against truth.")
@RUN
@click.argument("cache")
@SCENES
@CHECKPOINT
@click.option("--refine", is_flag=True, help="Vote predictions within SAM's masks first (Post-Refine).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_reports_errors
def evaluate(run: Path, cache: str, scenes: str | None, checkpoint: str, refine: bool, as_json: bool) -> None:
    """Score a run's 2D and 3D network on a cache with truth, beside the cached labels.

    Without --scenes: the held-out scenes, where CACHE is what the run learned from and some were held out; else all.

    \b
    Examples:
      trainer evaluate runs/cns out/demo.zarr
      trainer evaluate runs/cns out/nuscenes-val.zarr --json | jq .point.miou
    """
    from trainer.evaluate import evaluate as score_run
    from trainer.evaluate import render
    from trainer.run_folder import RunFolder

    found = score_run(RunFolder(run), cache, scenes=scenes, checkpoint=checkpoint, refine=refine)
    click.echo(json.dumps(found, indent=2) if as_json else render(found))


@main.command(short_help="Write point labels in the data set's file format.")
@RUN
@click.argument("cache")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the files.")
@SCENES
@CHECKPOINT
@_reports_errors
def predict(run: Path, cache: str, out: Path, scenes: str | None, checkpoint: str) -> None:
    """Label every point with a run's 3D network, in the file format of the data set's evaluation.

    \b
    Example:
      trainer predict runs/cns out/nuscenes-val.zarr --out runs/cns/val
    """
    from trainer.predict import predict as label_points
    from trainer.run_folder import RunFolder

    files = label_points(RunFolder(run), cache, out, scenes=scenes, checkpoint=checkpoint, say=_say)
    click.echo(f"{len(files)} files in {os.path.commonpath(files)}")


if __name__ == "__main__":
    main()
