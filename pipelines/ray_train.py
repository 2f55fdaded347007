"""Training under Ray Train: the same function on every worker of a cluster."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.cluster import cluster
from trainer.errors import TrainerError
from trainer.run_folder import RunFolder
from trainer.settings import RunSettings


def fit_on_ray(
    settings: RunSettings,
    caches: Sequence[str],
    out: Path,
    workers: int,
    *,
    resume: bool,
    init: Path | None,
    shares: Sequence[int] = (),
) -> None:
    """Train on `workers` workers of a Ray cluster, with one GPU each if the cluster has enough.

    `out` and local `caches` must be on a file system that all nodes share. A worker that dies ends the run; call
    again with `resume` to continue.

    Raises:
        RunFolderError: if `out` holds a run and `resume` is false.
        TrainerError: if Ray Train is not installed, or a worker failed, with its reason.
    """
    if not resume:
        RunFolder(out).refuse_if_occupied()
    try:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise TrainerError(
            f"--ray needs Ray Train ({error}); install it with `pip install 'labelgen[ray-train]'`"
        ) from None

    # On a local cluster, Ray Train needs one core in addition to those of its workers.
    cores = max(os.cpu_count() or 1, workers + 1)
    with cluster(None, num_cpus=cores, log_to_driver=True) as running:
        trainer = TorchTrainer(
            _fit_on_worker,
            train_loop_config={
                "settings": settings.model_dump_json(),
                "caches": [cache if "://" in cache else str(Path(cache).resolve()) for cache in caches],
                "shares": list(shares),
                "out": str(out.resolve()),
                "resume": resume,
                "init": "" if init is None else str(init.resolve()),
            },
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=running.resources().get("GPU", 0) >= workers),
            run_config=RunConfig(name=out.name, storage_path=str(out.resolve() / "ray")),
        )
        try:
            trainer.fit()
        except Exception as error:
            reason = str(error.__cause__ or error).strip().splitlines()
            raise TrainerError(f"training under Ray failed: {reason[-1] if reason else type(error).__name__}") from None


def _fit_on_worker(config: dict[str, Any]) -> None:
    from trainer.fit import FitRequest, fit

    settings = RunSettings.model_validate_json(str(config["settings"]))
    init = Path(config["init"]) if config["init"] else None
    cache, *more = config["caches"]
    shares = tuple(config["shares"])
    fit(FitRequest(settings, cache, Path(config["out"]), config["resume"], init, tuple(more), shares), say=print)
