"""Learning rate schedules: linear warm-up, then half a cosine (MAE table 8; Loshchilov and Hutter, 2017), or a constant
rate with a cool-down at the end (warm-up-stable-decay; Hu and others, 2024, section 4; Hägele and others, 2024), or steps."""

import math
from dataclasses import dataclass

from unmask.errors import SettingsError
from unmask.spec import within

_STEPS_PER_EPOCH = 8  # at least: recipes are made for large sets, and few steps train little
_SMALLEST_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    """Linear warm-up from 0, then half a cosine down to `min_lr`, updated at every step.

    With `cooldown`, the rate stays at its peak instead and falls linearly in the last part of the run. With `milestones`, it
    falls to a tenth at each of them, as in detection.
    """

    base_lr: float = 1.5e-4
    """Base learning rate; the peak is base_lr x batch size / 256 (Goyal and others, 2017)."""

    warmup_epochs: float = 40.0
    """Warm-up epochs."""

    min_lr: float = 0.0
    """Learning rate at the end."""

    cooldown: float | None = None
    """Share of the run in which the rate falls linearly at its end, after a constant peak; None for half a cosine."""

    milestones: tuple[float, ...] = ()
    """Shares of the run after which the rate is a tenth of what it was, after a constant peak; empty for half a cosine."""

    def __post_init__(self) -> None:
        within(self, "[0, inf)", "base_lr", "warmup_epochs", "min_lr")
        within(self, "(0, 1]", "cooldown", usual="0.2 is usual")
        within(self, "(0, 1)", "milestones", usual="they are shares of the run")
        if self.milestones and self.cooldown is not None:
            raise SettingsError(
                "a rate falls at milestones or in a cooldown, not both; leave one out"
            )

    def peak(self, batch_size: int) -> float:
        """The highest learning rate, at this batch size."""
        return self.base_lr * batch_size / 256

    def rate(self, epoch: float, epochs: float, batch_size: int) -> float:
        """The learning rate at a fractional epoch of `epochs`."""
        peak = self.peak(batch_size)
        if epoch < self.warmup_epochs:
            return peak * epoch / self.warmup_epochs
        if self.milestones:
            left = 0.1 ** sum(epoch >= share * epochs for share in self.milestones)
        elif self.cooldown is None:
            done = (epoch - self.warmup_epochs) / (epochs - self.warmup_epochs)
            left = 0.5 * (1 + math.cos(math.pi * done))
        else:
            left = min(1.0, (1 - epoch / epochs) / self.cooldown)
        return self.min_lr + (peak - self.min_lr) * left


def steps_of(epochs: float, images: int, batch_size: int) -> int:
    """Number of steps of a run of `epochs` epochs; at least one."""
    return max(1, round(epochs * images / batch_size))


def epochs_in_words(epochs: float) -> str:
    """For example "1 epoch" or "2.5 epochs"."""
    number = f"{epochs:.3g}" if epochs < 100 else f"{epochs:,.0f}"
    return f"{number} epoch" + ("s" if epochs != 1 else "")


def fitting_batch(batch_size: int, images: int) -> int:
    """A recipe's batch size, halved until an epoch has at least eight steps, but not below sixteen images."""
    while batch_size // 2 >= _SMALLEST_BATCH and batch_size * _STEPS_PER_EPOCH > images:
        batch_size //= 2
    return batch_size
