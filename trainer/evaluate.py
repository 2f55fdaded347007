"""Score the networks of a run against a cache's truth, beside the cached labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cache_schemas.errors import ConfigError
from cache_schemas.scoring import ScoringRule, score
from cache_schemas.taxonomy import IGNORE, Taxonomy
from trainer.data.stream import CacheStream, SampleRef
from trainer.errors import UnfitCacheError
from trainer.evaluation.confusions import sample_confusions
from trainer.evaluation.inputs import choose_scenes, open_for_scoring, truth_arrays, with_truth
from trainer.evaluation.predictor import Predictor, load_model
from trainer.evaluation.report import EvaluationReport, ScoreReport, network_scores, score_report
from trainer.evaluation.shared_classes import SharedClasses, shared_classes
from trainer.evaluation.zero_shot import refuse_unknown, zero_shot_report
from trainer.run_folder import RunFolder


@dataclass(frozen=True)
class EvaluationOptions:
    """What is scored, and how.

    Attributes:
        scenes: `held-out`, `training` or `all`; None: see `choose_scenes`.
        checkpoint: the name of the checkpoint.
        refine: vote predictions within SAM's masks first ("Post-Refine" in the paper's table 2).
        tta: mean of class scores over `trainer.evaluation.predictor.TURNS_AND_MIRRORS` of clouds, and over mirror
            images.
        ensemble: also score CLIP's features at the points, and OpenScene's ensemble of these and the 3D network.
        shared_classes: score the classes that run and cache share by name and that occur in the truth of the samples,
            with the highest score among these as the prediction.
        seen: names of classes whose truth was used in training, for the generalised zero-shot scores; none: those of
            the run's `classes.seen`.
        rule: what counts; networks label everything, so that only cached labels can lack a label.
    """

    scenes: str | None = None
    checkpoint: str = "last"
    refine: bool = False
    tta: bool = False
    ensemble: bool = False
    shared_classes: bool = False
    seen: Sequence[str] = ()
    rule: ScoringRule = field(default_factory=ScoringRule)


DEFAULTS = EvaluationOptions()


def evaluate(
    run: RunFolder, cache: str, options: EvaluationOptions = DEFAULTS, say: Callable[[str], None] = lambda _: None
) -> EvaluationReport:
    """Return the scores of a run's networks on a cache. Samples without truth are left out.

    Raises:
        CacheError, UnfitCacheError: if the cache cannot be read, has no truth, or has other classes than the run.
        RunFolderError: if there is no such run or checkpoint.
        ConfigError: if a class of `options.seen` is not scored, or no other class is, or options exclude each other.
        TrainerError: if the ensemble is asked for, and the run has no 3D network.
    """
    if options.ensemble and options.refine:
        raise ConfigError("--ensemble: its labels are not voted within masks; leave out --refine")
    record = run.record()
    stream = open_for_scoring(record, cache, shared_classes=options.shared_classes, ensemble=options.ensemble)
    chosen, scenes = choose_scenes(stream, record, options.scenes)
    samples = with_truth(stream, chosen)
    shared = _shared_classes(stream, samples, record.taxonomy) if options.shared_classes else None
    names = shared.names if shared else stream.manifest.taxonomy.names
    refuse_unknown(options.seen, names)
    seen = options.seen or [name for name in record.settings.classes.seen if name in names]
    model = load_model(run, record.settings, options.checkpoint)
    predictor = Predictor(model, record.settings, stream, samples, shared, tta=options.tta, ensemble=options.ensemble)
    counts = _count(predictor, stream, samples, options, say)
    counted = {name: options.rule.counted(matrix) for name, matrix in counts.items()}
    if shared:
        counted = {name: shared.confusion(matrix) for name, matrix in counted.items()}
    scores = {name: score_report(score(matrix, options.rule.absent), names) for name, matrix in counted.items()}
    report = EvaluationReport(
        run=str(run.path),
        checkpoint=options.checkpoint,
        cache=cache,
        scenes=scenes,
        samples=len(samples),
        samples_without_truth=len(chosen) - len(samples),
        refined_predictions=options.refine,
        test_time_augmentation=options.tta,
        truth_in_training=list(record.settings.classes.seen),
        shared_classes=list(names) if shared else None,
        unlabelled=options.rule.unlabelled,
        absent=options.rule.absent,
        labels=_label_scores(scores),
    )
    _add_networks(report, scores)
    if seen:
        report["zero_shot"] = zero_shot_report(network_scores(report), seen)
    return report


def _count(
    predictor: Predictor,
    stream: CacheStream,
    samples: Sequence[SampleRef],
    options: EvaluationOptions,
    say: Callable[[str], None],
) -> dict[str, NDArray[np.int64]]:
    """Return the confusion matrices (C, C+1) of all samples together, by the names of `sample_confusions`."""
    classes = len(stream.manifest.taxonomy.classes)
    counts: dict[str, NDArray[np.int64]] = {}
    for number, ref in enumerate(samples):
        prediction = predictor.predict(number, refine=options.refine)
        for name, matrix in sample_confusions(stream.read(ref), prediction, classes):
            counts[name] = counts[name] + matrix if name in counts else matrix
        say(f"scored {number + 1} of {len(samples)} samples")
    return counts


def _label_scores(scores: Mapping[str, ScoreReport]) -> dict[str, dict[str, ScoreReport]]:
    """Return the scores of the cached labels, by kind and modality."""
    return {
        kind: {name: scores[f"{kind}/{name}"] for name in ("image", "point_seen") if f"{kind}/{name}" in scores}
        for kind in ("raw", "refined")
    }


def _add_networks(report: EvaluationReport, scores: Mapping[str, ScoreReport]) -> None:
    """Put the scores of the networks that are there into a report."""
    if "image" in scores:
        report["image"] = scores["image"]
    if "point" in scores:
        report["point"], report["point_seen"] = scores["point"], scores["point_seen"]
    if "ensemble" in scores:
        report["fused_2d"] = scores["fused_2d"]
        report["ensemble"], report["ensemble_seen"] = scores["ensemble"], scores["ensemble_seen"]
    if "agreement" in scores:
        report["agreement"] = scores["agreement"]


def _shared_classes(stream: CacheStream, samples: Sequence[SampleRef], run: Taxonomy) -> SharedClasses:
    """Return the classes that a run and a stream share and that occur in the truth of `samples`.

    Raises:
        UnfitCacheError: if there is none.
    """
    occurring: set[int] = set()
    for ref in samples:
        for truth in stream.read(ref, only=truth_arrays(stream, ref)).values():
            occurring.update(np.unique(truth).tolist())
    shared = shared_classes(run, stream.manifest.taxonomy, occurring - {IGNORE})
    if not shared.names:
        raise UnfitCacheError(
            f"{stream.url}: no class of its truth has the name of a class of the run ({', '.join(run.names)}); use "
            "another cache"
        )
    return shared
