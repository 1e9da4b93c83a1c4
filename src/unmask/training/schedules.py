"""Learning rates: linear warm-up, then half a cosine (MAE table 8; Loshchilov and Hutter, 2017)."""

import math
from dataclasses import dataclass

from unmask.errors import SettingsError

_STEPS_PER_EPOCH = 8
_SMALLEST_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    """Up from 0 in a line, down to `min_lr` along half a cosine, set anew before every step."""

    base_lr: float = 1.5e-4
    """Learning rate for 256 images; the rate in use is base_lr x batch size / 256 (Goyal and others, 2017)."""

    warmup_epochs: float = 40.0
    """Epochs of the rise."""

    min_lr: float = 0.0
    """Learning rate at the end."""

    def __post_init__(self) -> None:
        for name in ("base_lr", "warmup_epochs", "min_lr"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must not be negative, got {getattr(self, name)}")

    def peak(self, batch_size: int) -> float:
        """The highest learning rate, for this many images a step."""
        return self.base_lr * batch_size / 256

    def rate(self, epoch: float, epochs: float, batch_size: int) -> float:
        """The learning rate at a fraction of an epoch."""
        peak = self.peak(batch_size)
        if epoch < self.warmup_epochs:
            return peak * epoch / self.warmup_epochs
        done = (epoch - self.warmup_epochs) / (epochs - self.warmup_epochs)
        return self.min_lr + (peak - self.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def steps_of(epochs: float, images: int, batch_size: int) -> int:
    """How many steps show every image `epochs` times; at least one."""
    return max(1, round(epochs * images / batch_size))


def epochs_in_words(epochs: float) -> str:
    """Such as "1 epoch" or "2.5 epochs"."""
    told = f"{epochs:.3g}" if epochs < 100 else f"{epochs:,.0f}"
    return f"{told} epoch" + ("s" if epochs != 1 else "")


def fitting_batch(batch_size: int, images: int) -> int:
    """The batch of a recipe, halved until an epoch has eight steps, but not below sixteen images."""
    while batch_size // 2 >= _SMALLEST_BATCH and batch_size * _STEPS_PER_EPOCH > images:
        batch_size //= 2
    return batch_size
