"""The surest mistakes of a classifier: the test images that it gets wrong with the highest probability."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource, Size
from unmask.data.in_order import in_order
from unmask.data.labelled import Subset
from unmask.data.views import AnyViews
from unmask.errors import UnmaskError
from unmask.runs.job import Picture

SHOWN = 8
"""Number of mistakes that are kept and drawn."""


class Mistake(NamedTuple):
    """A wrong prediction for an image with one class."""

    probability: float
    """Probability of the predicted class."""
    position: int
    """Position of the image in its source."""
    true: int
    """Number of the true class."""
    predicted: int
    """Number of the predicted class."""


def mistakes_of(outputs: Any, truth: Any, positions: Sequence[int]) -> list[Mistake]:
    """The mistakes in a batch; none for images of several classes or of an unknown one, or with class maps or objects.

    Args:
        outputs: scores of the classes [b classes]; or what is located in each image.
        truth: the classes [b], -1 where unknown; or another kind of annotations.
        positions: positions of the images in their source.
    """
    if not isinstance(outputs, Tensor) or not isinstance(truth, Tensor) or truth.ndim != 1:
        return []
    probabilities, predicted = outputs.softmax(1).max(1)
    rows = ((predicted != truth) & (truth >= 0)).nonzero().flatten().tolist()
    return [
        Mistake(float(probabilities[row]), positions[row], int(truth[row]), int(predicted[row]))
        for row in rows
    ]


def surest(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """The mistakes with the highest probabilities, in falling order; equal ones by position."""
    return sorted(mistakes, key=lambda one: (-one.probability, one.position))[:SHOWN]


def pictures_of(
    mistakes: Sequence[Mistake],
    source: ImageSource,
    names: Sequence[str],
    views: AnyViews,
    size: Size,
    statistics: ChannelStatistics,
) -> tuple[Picture, ...]:
    """What the classifier saw of each image, with its name, both classes and the probability as caption.

    Images that can no longer be read are left out, because pictures must not cost the score.
    """
    if not mistakes:
        return ()
    wrong = {one.position: one for one in mistakes}
    chosen = Subset(source, np.array([one.position for one in mistakes]))
    drawn: dict[int, Picture] = {}
    with suppress(UnmaskError):
        for batch in in_order(chosen, views, size, statistics, [], batch_size=SHOWN):
            for image, row in zip(batch.images, batch.positions, strict=True):
                one = wrong[int(chosen.rows[row])]
                caption = (
                    f"{source.name(one.position)}: {names[one.true]}, predicted {names[one.predicted]} "
                    f"({one.probability:.0%})"
                )
                drawn[row] = Picture([statistics.stretched(image)], caption)
    return tuple(drawn[row] for row in sorted(drawn))
