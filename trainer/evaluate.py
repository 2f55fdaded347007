"""Score a run's networks against a cache's truth, beside the labels that they learned from."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache_schemas.scoring import confusion_matrix, score
from cache_schemas.taxonomy import IGNORE
from trainer.batch import Batches
from trainer.errors import UnfitCacheError
from trainer.losses import refine_pixels
from trainer.model import CnsModel
from trainer.run_folder import RunFolder, RunRecord
from trainer.stream import CacheStream, SampleRef, Step, split_scenes
from trainer.targets import refine_points

Counts = dict[str, NDArray[np.int64]]
Found = dict[str, NDArray[np.uint8]]


def evaluate(
    run: RunFolder,
    cache: str,
    *,
    scenes: str | None = None,
    checkpoint: str = "last",
    refine: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return the scores of a run's networks on a cache, as one JSON-ready object.

    `image` and `point` are the networks' scores over all pixels and points with truth; `point_seen` those over points
    that some camera sees, where the cached labels have scores too: `labels.raw` and `labels.refined`, with `image` and
    `point_seen`. `agreement` compares the 2D with the 3D network at the pairs. `refine` votes the networks'
    predictions within SAM's masks first ("Post-Refine" of the paper's table 2).

    Raises:
        CacheError, UnfitCacheError: if the cache cannot be read, has no truth, or another taxonomy.
        RunFolderError: if there is no such run or checkpoint.
    """
    record = run.record()
    stream = open_for_scoring(record, cache)
    samples, scenes = choose_scenes(stream, record, scenes)
    predictor = Predictor(run, record, stream, samples, checkpoint)
    counts: Counts = {}
    for done, ref in enumerate(samples, start=1):
        found = predictor.predict(done - 1, refine=refine)
        for name, matrix in _confusions(stream.read(ref), found, len(record.taxonomy.classes)):
            counts[name] = counts[name] + matrix if name in counts else matrix
        say(f"scored {done} of {len(samples)} samples")
    names = record.taxonomy.names
    scored = {name: score(matrix).to_dict(names) for name, matrix in counts.items()}
    return {
        "run": str(run.path),
        "checkpoint": checkpoint,
        "cache": cache,
        "scenes": scenes,
        "samples": len(samples),
        "refined_predictions": refine,
        **{name: scored[name] for name in ("image", "point", "point_seen", "agreement") if name in scored},
        "labels": {
            kind: {of: scored[f"{kind}/{of}"] for of in ("image", "point_seen") if f"{kind}/{of}" in scored}
            for kind in ("raw", "refined")
        },
    }


class Predictor:
    """A run's networks, ready to label samples."""

    def __init__(
        self, run: RunFolder, record: RunRecord, stream: CacheStream, samples: Sequence[SampleRef], checkpoint: str
    ) -> None:
        """Load a checkpoint onto the GPU, or the CPU where there is none."""
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        settings = record.settings
        whole = settings.model_copy(
            update={
                "augment": settings.augment.model_copy(update={"images": False, "clouds": False}),
                "stream": settings.stream.model_copy(update={"images": 2**31}),
                "method": settings.method.model_copy(update={"latent": "none"}),
                "networks": settings.networks.model_copy(update={"image_weights": None}),
            }
        )
        self._precision = settings.optimiser.precision
        self._batches = Batches(stream, samples, whole)
        self._model = CnsModel(whole, torch.from_numpy(stream.text_embeddings()), {})
        state = run.load(checkpoint)["model"]
        wanted = self._model.state_dict()
        self._model.load_state_dict({name: tensor for name, tensor in state.items() if name in wanted})
        self._model.to(self._device).eval()

    @torch.inference_mode()
    def predict(self, number: int, *, refine: bool = False) -> Found:
        """Return labels of a sample's pixels `image` (I, H, W) and points `point` (P,), u8."""
        batch = self._batches[Step(0, 0, (number,))].to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            outputs = self._model(batch)
        pixels = outputs.pixel_scores.argmax(dim=1).to(torch.uint8)
        points = outputs.point_scores.argmax(dim=1).to(torch.uint8)
        if refine:
            pixels = refine_pixels(pixels, batch.mask_ids, batch.masks, len(self._model.text))
            points = refine_points(points, batch, len(self._model.text))
        return {"image": pixels.cpu().numpy(), "point": points.cpu().numpy()}


def open_for_scoring(record: RunRecord, cache: str) -> CacheStream:
    """Return the stream of a cache with truth, for a run's networks.

    Raises:
        CacheError, UnfitCacheError: if it cannot be read, has no truth, or other classes than the run.
    """
    return open_for_prediction(record, cache, ["labels/image_raw", "labels/point_raw", "truth/point"])


def open_for_prediction(record: RunRecord, cache: str, more: Sequence[str] = ()) -> CacheStream:
    """Return the stream of a cache for a run's networks, which reads the arrays `more` besides.

    Raises:
        CacheError, UnfitCacheError: if it cannot be read, or has other classes than the run.
    """
    needed = ["images/rgb", "sam/mask_ids", "points/xyz", "points/intensity", "labels/image", "labels/point"]
    pairs = ["pairs/point", "pairs/image", "pairs/row", "pairs/col"]
    stream = CacheStream(cache, [*needed, *pairs, *more], optional=["truth/image"] if more else [])
    taxonomy = stream.manifest.taxonomy
    if taxonomy.digest != record.taxonomy.digest:
        raise UnfitCacheError(
            f"{cache}: its classes are those of {taxonomy.name!r} ({', '.join(taxonomy.names)}), the run learned "
            f"{record.taxonomy.name!r} ({', '.join(record.taxonomy.names)}); use a cache with the run's classes"
        )
    return stream


def choose_scenes(stream: CacheStream, record: RunRecord, scenes: str | None) -> tuple[list[SampleRef], str]:
    """Return the samples of the `scenes` asked for, and which these are.

    If not said, these are the held-out scenes where the run learned from this very cache and held some out, else all.

    Raises:
        UnfitCacheError: if the run held out nothing.
    """
    hold_out = record.settings.stream.hold_out
    if scenes is None:
        scenes = "held-out" if hold_out and stream.url == record.cache else "all"
    if scenes == "all":
        return stream.samples, scenes
    if not hold_out:
        raise UnfitCacheError(f"the run held out no scene (stream.hold_out = 0); score {scenes!r} with --scenes all")
    training, held_out = split_scenes(stream.samples, hold_out)
    return (training if scenes == "training" else held_out), scenes


def render(found: dict[str, Any]) -> str:
    """Return the scores as a table for people, in percent."""
    columns = {"2D network": found.get("image"), "3D network": found["point"], "3D, seen": found["point_seen"]}
    for kind in ("raw", "refined"):
        columns |= {f"{kind} {of.split('_')[0]}": scores for of, scores in found["labels"][kind].items()}
    shown = {name: scores for name, scores in columns.items() if scores}
    rows = [("mIoU", *(s["miou"] for s in shown.values())), ("accuracy", *(s["accuracy"] for s in shown.values()))]
    rows += [(name, *(s["iou"][name] for s in shown.values())) for name in found["point"]["iou"]]
    width = max(len(row[0]) for row in rows)
    lines = [f"{found['samples']} samples of {found['scenes']} scenes, checkpoint {found['checkpoint']}; percent", ""]
    lines += [" " * width + "".join(f"{name:>15}" for name in shown)]
    lines += [f"{row[0]:<{width}}" + "".join(f"{_percent(value):>15}" for value in row[1:]) for row in rows]
    agreement = found["agreement"]
    lines += [
        "",
        f"the networks agree on {_percent(agreement['accuracy'])} % of pairs, mIoU {_percent(agreement['miou'])}",
        "IoU is over elements with truth; classes that neither truth nor labels have do not count (-). "
        "'seen': points that some camera sees, as the cached labels need.",
    ]
    return "\n".join(lines)


def _confusions(arrays: dict[str, Any], found: Found, classes: int) -> Iterator[tuple[str, NDArray[np.int64]]]:
    truth = arrays["truth/point"]
    seen = np.where(arrays["labels/point"] == IGNORE, IGNORE, truth).astype(np.uint8)
    for name, of, labels in (
        ("point", truth, found["point"]),
        ("point_seen", seen, found["point"]),
        ("raw/point_seen", truth, arrays["labels/point_raw"]),
        ("refined/point_seen", truth, arrays["labels/point"]),
    ):
        yield name, confusion_matrix(of, labels, classes)
    if "truth/image" in arrays:
        for name, labels in (
            ("image", found["image"]),
            ("raw/image", arrays["labels/image_raw"]),
            ("refined/image", arrays["labels/image"]),
        ):
            yield name, confusion_matrix(arrays["truth/image"], labels, classes)
    pixel = found["image"][arrays["pairs/image"], arrays["pairs/row"], arrays["pairs/col"]]
    yield "agreement", confusion_matrix(pixel, found["point"][arrays["pairs/point"]], classes)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
