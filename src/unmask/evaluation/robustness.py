"""Accuracy on corrupted test pictures, without training on any: how much of it noise, blur, weather and files cost.

Protocol of ImageNet-C (Hendrycks and Dietterich, ICLR 2019, section 4) on own pictures: models as they are, fifteen
corruptions at five severities. Their published figure divides by the errors of AlexNet on ImageNet; here the errors of a
control on the same pictures stand in.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource, Size
from unmask.data.corrupted import CorruptedImages
from unmask.data.corruptions import CORRUPTIONS, SEVERITIES
from unmask.data.in_order import Ordered, Unreadable, in_order
from unmask.data.views import AnyViews, CenterCrop
from unmask.errors import SettingsError
from unmask.progress import counted
from unmask.training.hardware import best_workers

_BATCH = 64
_WORTH_WORKERS = 100  # pictures


class Answering(NamedTuple):
    """A model that is asked."""

    name: str
    scores: Callable[[Tensor], Float[Tensor, "b classes"]]
    """Images [b c h w] on the device, not normalised, to a score of each class, on the CPU."""


class Look(NamedTuple):
    """How the models see a picture."""

    views: AnyViews
    size: Size
    statistics: ChannelStatistics
    device: torch.device


class Condition(NamedTuple):
    """What is done to the pictures."""

    corruption: str | None
    """None for the pictures as they are."""
    severity: int


_CLEAN = Condition(None, 0)


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """The accuracy of a model, from 0 to 1, on pictures as they are and corrupted."""

    clean: float
    """On pictures as they are."""

    corrupted: dict[str, tuple[float, ...]]
    """At each severity, by the name of the corruption."""

    def of(self, corruption: str) -> float:
        """The mean over severities."""
        return sum(self.corrupted[corruption]) / SEVERITIES

    @property
    def mean(self) -> float:
        """The mean over corruptions and severities."""
        return sum(map(self.of, self.corrupted)) / len(self.corrupted)

    def errors_of(self, control: "Robustness", corruption: str) -> float | None:
        """The errors on a corruption as a share of those of a control; None if the control makes none.

        The corruption error of the paper, section 4, with `control` in the place of AlexNet.
        """
        errors = 1 - control.of(corruption)
        return (1 - self.of(corruption)) / errors if errors > 0 else None

    def relative(self, control: "Robustness") -> float | None:
        """The mean of `errors_of` over corruptions: the paper's mCE, with `control` in the place of AlexNet.

        None if the control makes no errors under one of them.
        """
        shares = [self.errors_of(control, name) for name in self.corrupted]
        known = [share for share in shares if share is not None]
        return sum(known) / len(known) if len(known) == len(shares) else None


def check_bytes(test: ImageSource) -> None:
    """Raises SettingsError if the pictures have other values than 8 bits."""
    if test.values != "uint8":
        raise SettingsError(
            f"corruptions are defined for pictures of 8 bits, and those of {test.where} have more; convert some to 8 bits to "
            "test on them"
        )


def robustness(
    models: Sequence[Answering],
    test: ImageSource,
    look: Look,
    seed: int,
    unreadable: Unreadable,
) -> dict[str, Robustness]:
    """The accuracy of models that see pictures alike, by their names; all see the same corrupted pictures.

    Args:
        models: what is asked.
        test: pictures of 8 bits with one class each.
        look: how the models see them.
        seed: of all corruptions.
        unreadable: (name, reason) of pictures that cannot be read is added here.

    Raises:
        SettingsError: if the pictures have other values than 8 bits.
    """
    check_bytes(test)
    severities = range(1, SEVERITIES + 1)
    conditions = [_CLEAN, *(Condition(name, s) for name in CORRUPTIONS for s in severities)]
    right = {(model.name, condition): 0 for model in models for condition in conditions}
    seen = 0
    batches = _every_batch(test, look, conditions, seed, unreadable)
    for condition, batch in counted(
        batches, len(conditions) * len(test), "corrupting", lambda each: len(each[1].positions)
    ):
        images, truth = batch.images.to(look.device), batch.annotations
        assert isinstance(truth, Tensor)
        seen += len(truth) * (condition == _CLEAN)
        for model in models:
            right[model.name, condition] += int((model.scores(images).argmax(1) == truth).sum())
    return {
        model.name: Robustness(
            clean=right[model.name, _CLEAN] / seen,
            corrupted={
                name: tuple(right[model.name, Condition(name, s)] / seen for s in severities)
                for name in CORRUPTIONS
            },
        )
        for model in models
    }


def _every_batch(
    test: ImageSource,
    look: Look,
    conditions: Sequence[Condition],
    seed: int,
    unreadable: Unreadable,
) -> Iterator[tuple[Condition, Ordered]]:
    """The test pictures under each condition, the first of which reports those that cannot be read."""
    workers = best_workers(look.device, False) if len(test) >= _WORTH_WORKERS else 0
    for condition in conditions:
        source = CorruptedImages(test, look.views, look.size, *condition, seed)
        failures: Unreadable = []
        for batch in in_order(
            source,
            CenterCrop(),  # of pictures that have the size already
            look.size,
            look.statistics,
            failures,
            batch_size=_BATCH,
            workers=workers,
        ):
            yield condition, batch
        if condition == conditions[0]:
            unreadable += failures
