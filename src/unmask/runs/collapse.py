"""Does an encoder in training still tell images apart? A look at some of its images, ten times a run.

Methods that compare views may end in one answer for all images (collapse), and their loss does not show it. What is looked
at is a copy of the encoder to take away, so that nothing of the training is touched; steps and images
follow from the run alone, so that a run that goes on is seen as if it had never stopped.
"""

import math
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from unmask.annotations import UNKNOWN
from unmask.contracts import ImageSource, Size
from unmask.data.in_order import WHOLE_IMAGE, Ordered, in_order
from unmask.data.subset import Subset
from unmask.encoders.vit import VisionTransformer
from unmask.formats.model import ModelSpec, Weights
from unmask.randomness import seeded
from unmask.recipes import Recipe
from unmask.runs.encoder_weights import encoder_of
from unmask.runs.job import Setting
from unmask.tasks.neighbors import knn_classes_of_others
from unmask.tasks.rank import effective_rank
from unmask.training.distributed import here, whole
from unmask.traits import Accompanied, Comparing

LOOKS = 10
LEAST_RANK = 0.1
"""Of the ranks that there could be; less is a collapse."""

CLEARLY = 3.0
"""Standard errors by which neighbours must tell less than before training: of many looks, some are two off by chance."""

_FEWEST, _MOST, _MOST_LARGE = 128, 512, 256  # images
_LARGE = 128 * 128  # pixels
_TRAINED_ON = 1000
"""One image is looked at for so many that are trained on, so that all looks cost about a hundredth of the run."""

_OF_A_CLASS = 8
_NEIGHBORS = 5  # of few images of a class
_AT_ONCE = 64
_DIGITS = 4  # of a rank; the last bits of a decomposition depend on where its memory lies


class Watch:
    """What the log is told of the embedding now and then.

    effective_rank    of the class tokens where the objective compares views, else of the mean patch tokens
    possible_rank     the most it could be: the width, or one fewer than the images
    looked_at         how many images
    knn               share of images whose class the five nearest of the others vote for, if there are classes
    knn_random        the same before training, with the weights that the seed draws
    """

    def __init__(
        self,
        run: Setting,
        recipe: Recipe,
        model: ModelSpec,
        source: ImageSource,
        objective: nn.Module,
    ) -> None:
        self._run, self._recipe, self._model = run, recipe, model
        self._objective, self._source = objective, source
        self._steps = {math.ceil(run.steps * look / LOOKS) for look in range(1, LOOKS + 1)}

    def due(self, step: int) -> bool:
        """Whether there is a look after this step: after each tenth of them."""
        return step in self._steps

    def look(self) -> dict[str, float]:
        """What is seen now; nothing in processes but the first, of which all must call it if they share the model."""
        if not here().first and not self._run.hardware.shard:
            return {}
        weights = self._weights()
        return self._seen(weights.build_encoder()) if here().first else {}

    def _weights(self) -> Weights:
        """Those of the encoder that a checkpoint would hold now."""
        given = (self._objective.gives,) if isinstance(self._objective, Accompanied) else ()
        tensors = whole(encoder_of(self._objective.state_dict(), *given))
        return Weights(self._model.without_decoder(), tensors, {})

    def _seen(self, encoder: VisionTransformer) -> dict[str, float]:
        """Nothing if the embedding is not finite: of that the loss tells."""
        points = self._embedded(encoder)
        if not bool(points.isfinite().all()):
            return {}
        seen = {
            "effective_rank": round(effective_rank(points), _DIGITS),
            "possible_rank": float(min(points.shape[1], len(points) - 1)),
            "looked_at": float(len(points)),
        }
        if self._knn_random is not None:
            seen |= {"knn": self._knn(points), "knn_random": self._knn_random}
        return seen

    @torch.inference_mode()
    def _embedded(self, encoder: VisionTransformer) -> Float[Tensor, "n d"]:
        encoder.to(self._run.hardware.device).eval()
        compares = isinstance(self._recipe.objective, Comparing)
        found: list[Tensor] = []
        for crops in self._crops:
            encoded = encoder.encode(crops.images.to(self._run.hardware.device))
            found.append((encoded.cls if compares else encoded.patches).mean(1).cpu())
        return torch.cat(found)

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        """The class of each image; -1 where it has none, or may have several."""
        labels = self._source.labels()
        return labels if labels.ndim == 1 else np.full(len(labels), UNKNOWN)

    @cached_property
    def _crops(self) -> list[Ordered]:
        """The images, in parts, read once."""
        run = self._run
        size = self._recipe.image_size
        rows = watched(self._labels, image_count(run, size))
        some = Subset(self._source, rows)
        at_once = min(_AT_ONCE, run.hardware.micro_batch)
        with seeded("watch"):  # torch's loader draws a number
            return list(in_order(some, WHOLE_IMAGE, size, run.statistics, [], batch_size=at_once))

    @cached_property
    def _knn_random(self) -> float | None:
        """Of drawn weights; None where the images have no classes that could be told."""
        if not _classes(self._labels).size:
            return None
        return self._knn(self._embedded(self._model.build_encoder(self._run.seed)))

    def _knn(self, points: Float[Tensor, "n d"]) -> float:
        labels = torch.cat(
            [crops.annotations for crops in self._crops if isinstance(crops.annotations, Tensor)]
        )
        guesses = knn_classes_of_others(points, labels, int(labels.max()) + 1, _NEIGHBORS)
        return (guesses == labels).double().mean().item()


def image_count(run: Setting, size: Size) -> int:
    """How many images a run looks at: 512, or 256 of 128 x 128 pixels and more; fewer in a short run, at least 128."""
    most = _MOST_LARGE if size.height * size.width >= _LARGE else _MOST
    return max(_FEWEST, min(most, run.images_seen(run.steps) // _TRAINED_ON))


def watched(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Positions of about so many images: spread evenly over all, or over some of the classes with eight images or more."""
    classes = _classes(labels)
    if not classes.size:
        return _spread(np.arange(len(labels)), count)
    classes = _spread(classes, count // _OF_A_CLASS)
    rows = [_spread(np.flatnonzero(labels == c), count // len(classes)) for c in classes]
    return np.sort(np.concatenate(rows))


def _classes(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those with images enough, if there are two at least."""
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    enough = names[counts >= _OF_A_CLASS]
    return enough if len(enough) > 1 else enough[:0]


def _spread(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return values[np.linspace(0, len(values) - 1, min(count, len(values))).astype(np.int64)]


def in_words(line: dict[str, float]) -> str | None:
    """What a line of the log says of the embedding; None for most lines."""
    if "effective_rank" not in line:
        return None
    rank = f"effective rank {line['effective_rank']:.1f} of {line['possible_rank']:.0f}"
    if "knn" not in line:
        return rank
    return f"{rank}, k-NN {line['knn']:.1%} ({line['knn_random']:.1%} before training)"


def collapse(line: dict[str, float]) -> str | None:
    """Why the embedding of a line of the log has collapsed: its rank, or neighbours that clearly tell less than before training."""
    if "effective_rank" not in line:
        return None
    if line["effective_rank"] < LEAST_RANK * line["possible_rank"]:
        return f"an effective rank of {line['effective_rank']:.1f}, under {LEAST_RANK:.0%} of {line['possible_rank']:.0f}"
    if "knn" not in line:
        return None
    shares = (line["knn"], line["knn_random"])
    error = math.sqrt(sum(share * (1 - share) for share in shares) / line["looked_at"])
    if shares[0] >= shares[1] - CLEARLY * error:
        return None
    return (
        f"k-NN {shares[0]:.1%}, clearly below the {shares[1]:.1%} of random initialisation "
        f"(on {line['looked_at']:.0f} images)"
    )
