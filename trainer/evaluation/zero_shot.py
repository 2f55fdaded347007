"""Generalised zero-shot scores: classes whose truth was used in training beside those that had only pseudo labels."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean

from cache_schemas.errors import ConfigError
from trainer.evaluation.report import ScoreReport, ZeroShotReport, ZeroShotScores


def refuse_unknown(seen: Sequence[str], names: Sequence[str]) -> None:
    """Check names of seen classes.

    Raises:
        ConfigError: if one is not among the `names` of the scored classes, or none of these is unseen.
    """
    if unknown := [name for name in seen if name not in names]:
        raise ConfigError(f"--seen: no class {unknown[0]!r} is scored; choose from {', '.join(names)}")
    if set(seen) == set(names):
        raise ConfigError("--seen: names all classes that are scored, so that none is unseen; leave it out")


def zero_shot_report(scores: Mapping[str, ScoreReport], seen: Sequence[str]) -> ZeroShotReport:
    """Return the generalised zero-shot scores of each network; `seen` names the seen classes."""
    return ZeroShotReport(
        seen_classes=list(seen), scores={name: _zero_shot_scores(found["iou"], seen) for name, found in scores.items()}
    )


def _zero_shot_scores(iou: Mapping[str, float | None], seen: Collection[str]) -> ZeroShotScores:
    of_seen = _mean(value for name, value in iou.items() if name in seen)
    of_unseen = _mean(value for name, value in iou.items() if name not in seen)
    return ZeroShotScores(seen=of_seen, unseen=of_unseen, harmonic_mean=harmonic_mean(of_seen, of_unseen))


def harmonic_mean(one: float | None, other: float | None) -> float | None:
    """Return 2ab / (a + b) of two shares: 0 if both are 0, None if one is not known."""
    if one is None or other is None:
        return None
    return 2 * one * other / (one + other) if one + other else 0.0


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
