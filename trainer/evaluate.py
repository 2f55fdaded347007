"""Score the networks of a run against a cache's truth, beside the cached labels."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cache_schemas.scoring import ScoringRule
from trainer.evaluation.confusions import sample_confusions
from trainer.evaluation.inputs import choose_scenes, open_for_scoring, with_truth
from trainer.evaluation.predictor import Predictor, load_model
from trainer.evaluation.report import EvaluationReport, score_report
from trainer.run_folder import RunFolder

DEFAULT_RULE = ScoringRule()


def evaluate(
    run: RunFolder,
    cache: str,
    *,
    scenes: str | None = None,
    checkpoint: str = "last",
    refine: bool = False,
    rule: ScoringRule = DEFAULT_RULE,
    say: Callable[[str], None] = lambda _: None,
) -> EvaluationReport:
    """Return the scores of a run's networks on a cache.

    With `refine`, predictions are voted within SAM's masks first ("Post-Refine" in the paper's table 2). `rule` says
    what counts; networks label everything, so that only cached labels can lack a label. Samples without truth are left
    out.

    Raises:
        CacheError, UnfitCacheError: if the cache cannot be read, has no truth, or has other classes than the run.
        RunFolderError: if there is no such run or checkpoint.
    """
    record = run.record()
    stream = open_for_scoring(record, cache)
    chosen, scenes = choose_scenes(stream, record, scenes)
    samples = with_truth(stream, chosen)
    predictor = Predictor(load_model(run, record.settings, checkpoint), record.settings, stream, samples)
    counts: dict[str, NDArray[np.int64]] = {}
    for number, ref in enumerate(samples):
        prediction = predictor.predict(number, refine=refine)
        for name, matrix in sample_confusions(stream.read(ref), prediction, len(record.taxonomy.classes)):
            counts[name] = counts[name] + matrix if name in counts else matrix
        say(f"scored {number + 1} of {len(samples)} samples")
    scores = {name: score_report(rule.score(matrix), record.taxonomy.names) for name, matrix in counts.items()}
    report = EvaluationReport(
        run=str(run.path),
        checkpoint=checkpoint,
        cache=cache,
        scenes=scenes,
        samples=len(samples),
        samples_without_truth=len(chosen) - len(samples),
        refined_predictions=refine,
        unlabelled=rule.unlabelled,
        absent=rule.absent,
        point=scores["point"],
        point_seen=scores["point_seen"],
        agreement=scores["agreement"],
        labels={
            kind: {name: scores[f"{kind}/{name}"] for name in ("image", "point_seen") if f"{kind}/{name}" in scores}
            for kind in ("raw", "refined")
        },
    )
    if "image" in scores:
        report["image"] = scores["image"]
    return report
