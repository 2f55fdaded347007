"""Scores of the held-out scenes during a training."""

from collections.abc import Sequence

import numpy as np
import torch

from cache_schemas.scoring import ScoringRule, json_number
from trainer.data.stream import CacheStream, SampleRef
from trainer.evaluation.confusions import sample_confusions
from trainer.evaluation.inputs import choose_scenes, open_for_scoring, with_truth
from trainer.evaluation.predictor import Predictor
from trainer.networks.model import SceneNetworks
from trainer.run_record import RunRecord
from trainer.training.ranks import Ranks

SCORED = ("image", "point", "point_seen")


class HeldOutScores:
    """Scores the networks on the held-out scenes; each rank takes its share of the samples."""

    def __init__(
        self, caches: Sequence[tuple[CacheStream, Sequence[SampleRef]]], record: RunRecord, ranks: Ranks
    ) -> None:
        """Score samples with truth of one or more streams."""
        self._caches = caches
        self._record, self._ranks = record, ranks

    def score(self, model: SceneNetworks) -> dict[str, float | None]:
        """Return the mean IoU of pixels, of points, and of points that a camera sees. All ranks call this together.

        Raises:
            CacheError, UnfitCacheError: if a sample cannot be read.
        """
        classes = len(self._record.taxonomy.classes)
        counts = np.zeros((len(SCORED), classes, classes + 1), np.int64)
        model.eval()
        for stream, samples in self._caches:
            predictor = Predictor(model, self._record.settings, stream, samples)
            for number in range(self._ranks.rank, len(samples), self._ranks.world):
                prediction = predictor.predict(number)
                for name, matrix in sample_confusions(stream.read(samples[number]), prediction, classes):
                    if name in SCORED:
                        counts[SCORED.index(name)] += matrix
        model.train()
        joint = self._ranks.sum(torch.from_numpy(counts).to(self._ranks.device)).cpu().numpy()
        return {name: json_number(ScoringRule().score(matrix).miou) for name, matrix in zip(SCORED, joint, strict=True)}


def open_held_out(record: RunRecord, caches: Sequence[str], ranks: Ranks) -> HeldOutScores | None:
    """Return what scores the held-out scenes of all caches during a run, or None if its settings do not ask for it.

    Raises:
        CacheError, UnfitCacheError: if a cache cannot be read or has no truth.
    """
    if not record.settings.score_epochs:
        return None
    found = []
    for cache in caches:
        stream = open_for_scoring(record, cache)
        samples, _ = choose_scenes(stream, record, "held-out")
        found.append((stream, with_truth(stream, samples)))
    return HeldOutScores(found, record, ranks)
