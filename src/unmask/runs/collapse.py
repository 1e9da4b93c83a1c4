"""Detect collapse during training: check the embedding of some images, up to ten times a run.

Methods that compare views may end with the same output for all images (collapse), and their loss does not show it. The
check uses a copy of the encoder, so it does not change the training. Its steps and images depend only on the run, so a
resumed run gives the same checks.
"""

import math
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from unmask.annotations import UNKNOWN
from unmask.contracts import ImageSource, Size
from unmask.data.in_order import WHOLE_IMAGE, Ordered, in_order
from unmask.data.labelled import Subset
from unmask.encoders.vit import VisionTransformer
from unmask.formats.model import ModelSpec, Weights
from unmask.randomness import seeded
from unmask.recipes import Recipe
from unmask.runs.job import Setting
from unmask.tasks.neighbors import effective_rank, knn_classes_of_others
from unmask.training.checkpoint import encoder_of
from unmask.training.distributed import here, whole
from unmask.traits import Accompanied, Comparing

LOOKS = 10  # checks in a run, at most
_FEWEST_LOOKS = 2
_SHARE = 0.05
"""Images that all checks together may look at, relative to those trained on; a look at one costs about as much as a step.

Sixteen steps of 64 images spent half of their time on ten checks."""

LOW = 0.5
"""The rank has collapsed if it is below this share of the rank with random weights, and neighbours agree.

The rank of the mean patch token of a healthy MAE run falls to a third of it at first, so a low rank alone tells nothing."""

VERY_LOW = 0.1
"""A rank below this share is enough if neighbours are not better, or cannot tell."""

CLEARLY = 4.0
"""k-NN must be worse than with random weights by this many standard errors.

Leave-one-out votes depend on one another, so in healthy runs k-NN of few images swings by three of them."""

FEW_DIRECTIONS = 2.5
"""A rank below it is very low too, if random weights have at least twice that; healthy runs of small grey pictures fall to 5."""

_FEWEST, _MOST, _MOST_LARGE = 128, 512, 256  # images
_LARGE = 128 * 128  # pixels
_TRAINED_ON = 1000
"""Training images per checked image, so that all checks together cost about one per cent of the run."""

_OF_A_CLASS = 8
_NEIGHBORS = 5  # few, because each class has few images here
_AT_ONCE = 64
_DIGITS = 4  # of the rank in the log; the last bits of a decomposition depend on the alignment of its memory


class Watch:
    """Measures the embedding at ten steps of a run and writes to the log:

    effective_rank    of the class tokens if the objective compares views by them, else of the mean patch tokens
    possible_rank     the largest possible value: the width, or the number of images minus one
    rank_random       the rank before training, with random weights
    looked_at         number of images
    knn               accuracy of a vote of the five nearest neighbours among the other images, if there are classes
    knn_random        the same before training, with random weights
    knn_chance        the accuracy of guessing
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
        self._steps = look_steps(run, recipe.image_size)

    def due(self, step: int) -> bool:
        """Whether to check after this step, see `look_steps`."""
        return step in self._steps

    def look(self) -> dict[str, float]:
        """Check now; only the first process returns values. With a sharded model, all processes must call this."""
        if not here().first and not self._run.hardware.shard:
            return {}
        # the encoder that a checkpoint would hold now
        prefixes = (self._objective.gives,) if isinstance(self._objective, Accompanied) else ()
        tensors = whole(encoder_of(self._objective.state_dict(), *prefixes))
        weights = Weights(self._model.without_decoder(), tensors, {})
        return self._measured(weights.build_encoder()) if here().first else {}

    def _measured(self, encoder: VisionTransformer) -> dict[str, float]:
        """The fields of the log; none if the embedding is not finite, because the loss already shows that."""
        points = self._embedded(encoder)
        if not bool(points.isfinite().all()):
            return {}
        fields = {
            "effective_rank": round(effective_rank(points), _DIGITS),
            "possible_rank": float(min(points.shape[1], len(points) - 1)),
            "rank_random": round(effective_rank(self._untrained), _DIGITS),
            "looked_at": float(len(points)),
        }
        if self._knn_random is not None:
            fields |= {
                "knn": self._knn(points),
                "knn_random": self._knn_random,
                "knn_chance": round(self._chance, _DIGITS),
            }
        return fields

    @torch.inference_mode()
    def _embedded(self, encoder: VisionTransformer) -> Float[Tensor, "n d"]:
        encoder.to(self._run.hardware.device).eval()
        objective = self._recipe.objective
        by_class = isinstance(objective, Comparing) and objective.compared == "class"
        points: list[Tensor] = []
        for crops in self._crops:
            encoded = encoder.encode(crops.images.to(self._run.hardware.device))
            points.append((encoded.cls if by_class else encoded.patches).mean(1).cpu())
        return torch.cat(points)

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        """The class of each image; -1 if it is unknown, or for multi-label annotations."""
        labels = self._source.labels()
        return labels if labels.ndim == 1 else np.full(len(labels), UNKNOWN)

    @cached_property
    def _crops(self) -> list[Ordered]:
        """The images in batches, read once."""
        run = self._run
        size = self._recipe.image_size
        rows = watched(self._labels, image_count(run, size))
        images = Subset(self._source, rows)
        at_once = min(_AT_ONCE, run.hardware.micro_batch)
        with seeded("watch"):  # torch's loader draws a number from the global generator
            return list(in_order(images, WHOLE_IMAGE, size, run.statistics, [], batch_size=at_once))

    @cached_property
    def _untrained(self) -> Float[Tensor, "n d"]:
        """The embedding with random weights; they follow from the seed, so a resumed run compares with the same."""
        return self._embedded(self._model.build_encoder(self._run.seed))

    @cached_property
    def _knn_random(self) -> float | None:
        """k-NN accuracy with random weights; None if the images have no usable classes."""
        return self._knn(self._untrained) if _classes(self._labels).size else None

    @cached_property
    def _true(self) -> Int[Tensor, " n"]:
        """The classes of the checked images."""
        return torch.cat(
            [crops.annotations for crops in self._crops if isinstance(crops.annotations, Tensor)]
        )

    @property
    def _chance(self) -> float:
        """The accuracy of guessing among the checked images' classes."""
        return 1 / len(self._true.unique())

    def _knn(self, points: Float[Tensor, "n d"]) -> float:
        labels = self._true
        guesses = knn_classes_of_others(points, labels, int(labels.max()) + 1, _NEIGHBORS)
        return (guesses == labels).double().mean().item()


def look_steps(run: Setting, size: Size) -> set[int]:
    """The steps of a run after which it is checked: the end of each tenth, or of fewer parts of a short run.

    They follow from the run and not from the clock, so a resumed run is checked at the same steps.
    """
    affordable = int(_SHARE * run.images_seen(run.steps) / image_count(run, size))
    looks = min(LOOKS, max(_FEWEST_LOOKS, affordable))
    return {math.ceil(run.steps * look / looks) for look in range(1, looks + 1)}


def image_count(run: Setting, size: Size) -> int:
    """Number of images to check: 512, or 256 from 128 x 128 pixels on; fewer in a short run, but at least 128."""
    most = _MOST_LARGE if size.height * size.width >= _LARGE else _MOST
    return max(_FEWEST, min(most, run.images_seen(run.steps) // _TRAINED_ON))


def watched(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Positions of about `count` images, spread evenly over all images, or over classes with at least eight images."""
    classes = _classes(labels)
    if not classes.size:
        return _spread(np.arange(len(labels)), count)
    classes = _spread(classes, count // _OF_A_CLASS)
    rows = [_spread(np.flatnonzero(labels == c), count // len(classes)) for c in classes]
    return np.sort(np.concatenate(rows))


def _classes(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Classes with enough images, if there are at least two of them."""
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    enough = names[counts >= _OF_A_CLASS]
    return enough if len(enough) > 1 else enough[:0]


def _spread(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return values[np.linspace(0, len(values) - 1, min(count, len(values))).astype(np.int64)]


def in_words(line: dict[str, float]) -> str | None:
    """The check of the embedding in a line of the log, in words; None for most lines."""
    if "effective_rank" not in line:
        return None
    rank = f"effective rank {line['effective_rank']:.1f} of {line['possible_rank']:.0f}{_rank_before(line)}"
    if "knn" not in line:
        return rank
    return f"{rank}, k-NN {line['knn']:.1%} ({line['knn_random']:.1%} before training)"


def collapse(line: dict[str, float], steps: int) -> str | None:
    """The reason why the embedding has collapsed, at the check in a line of the log of a run of `steps`; None if not.

    Rank and neighbours must agree, each against random weights: the rank is below half and k-NN is clearly worse, or the
    rank is very low (below a tenth, or hardly 2) and k-NN is not better. Where neighbours cannot tell, because there are
    no classes or too few images for the accuracy of guessing to be clearly worse, a very low rank decides alone. The first
    check comes too early: the rank of every MAE run falls then. Lines of older versions that lack a field tell nothing by it.
    """
    if "effective_rank" not in line or line["step"] <= math.ceil(steps / LOOKS):
        return None
    rank, before = line["effective_rank"], line.get("rank_random", 0.0)
    reason = f"an effective rank of {rank:.1f}{_rank_before(line)}"
    is_very_low = rank < VERY_LOW * before or rank < FEW_DIRECTIONS <= before / 2
    if not _neighbors_can_tell(line):
        return reason if is_very_low else None
    is_clear = rank < LOW * before and _is_clearly_below(line["knn"], line)
    if not is_clear and not (is_very_low and line["knn"] <= line["knn_random"]):
        return None
    return (
        f"{reason} and k-NN {line['knn']:.1%}, below the {line['knn_random']:.1%} of random initialisation "
        f"(on {line['looked_at']:.0f} images)"
    )


def _neighbors_can_tell(line: dict[str, float]) -> bool:
    """Whether there are enough images to tell guessing from the neighbours of random weights."""
    return "knn_chance" in line and _is_clearly_below(line["knn_chance"], line)


def _is_clearly_below(accuracy: float, line: dict[str, float]) -> bool:
    """Whether an accuracy is below that of random weights by `CLEARLY` standard errors of the difference."""
    shares = (accuracy, line["knn_random"])
    error = math.sqrt(sum(share * (1 - share) for share in shares) / line["looked_at"])
    return shares[0] < shares[1] - CLEARLY * error


def _rank_before(line: dict[str, float]) -> str:
    return f" ({line['rank_random']:.1f} before training)" if "rank_random" in line else ""
