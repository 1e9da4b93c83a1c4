"""Recipes of discrete tokenizers: how their codes are learnt, and the settings that we use."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from unmask.contracts import Size
from unmask.data.views import AnyCrops, CenterCrop, RandomCrop
from unmask.errors import SettingsError
from unmask.patches import patch_grid
from unmask.targets import ScalarTokenizer
from unmask.training.optimizers import AdamW, AnyOptimizer
from unmask.training.schedules import WarmupCosine


@dataclass(frozen=True, kw_only=True)
class Tokenizing:
    """How to train a tokenizer."""

    tokenizer: ScalarTokenizer
    """What is trained."""

    patch_size: int
    """Side of a patch in pixels: that of the encoders which are to learn from the codes."""

    views: AnyCrops
    """Crops and flips."""

    optimizer: AnyOptimizer
    """How weights follow gradients."""

    schedule: WarmupCosine
    """The learning rate over time."""

    image_size: Size
    """Pixels of a crop: one number for a square, or HEIGHTxWIDTH."""

    batch_size: int
    """Images of a step, all micro-batches together."""

    epochs: float
    """How often every image is shown."""

    def __post_init__(self) -> None:
        for name in ("patch_size", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.epochs < math.inf:
            raise SettingsError(f"epochs must be above 0 and finite, got {self.epochs}")
        patch_grid(self.image_size, self.patch_size)

    @property
    def pairs(self) -> bool:
        """Whether images of a batch are mixed in pairs: never here."""
        return False

    def every_size(self) -> tuple[Size, ...]:
        """Pixels of a crop: one size."""
        return (self.image_size,)

    def size_at(self, epoch: int) -> Size:
        """Pixels of a crop in an epoch: the same in all."""
        return self.image_size


class NamedTokenizing(NamedTuple):
    """A recipe with its origin."""

    recipe: Tokenizing
    source: str
    """Where the numbers come from."""


TOKENIZER_B16 = Tokenizing(
    tokenizer=ScalarTokenizer(codes=8192, width=256, depth=4),  # as many codes as BEiT's dVAE has
    patch_size=16,
    views=RandomCrop(smallest_share=0.2, flip_probability=0.5),  # MAE table 8
    optimizer=AdamW(beta1=0.9, beta2=0.95, weight_decay=0.0),
    schedule=WarmupCosine(base_lr=3e-4, warmup_epochs=0.2),
    image_size=Size(224, 224),
    batch_size=256,
    epochs=10,
)
"""8,192 codes of patches of 16, for about 50,000 steps on ImageNet-1K. Ours; we have not run it in full."""

TOKENIZER_TI4 = replace(
    TOKENIZER_B16,
    tokenizer=ScalarTokenizer(codes=512, width=64, depth=2),
    patch_size=4,
    views=RandomCrop(smallest_share=0.4, flip_probability=0.5),  # that of mae-ti4
    schedule=WarmupCosine(base_lr=1e-2, warmup_epochs=0.5),
    image_size=Size(32, 32),
    batch_size=64,
    epochs=10,
)
"""512 codes of patches of 4, for images of 32 pixels. Ours; its figures on CIFAR-10 are in
studies/tokenizer.md."""

TOKENIZER_DIGITS = replace(
    TOKENIZER_TI4,
    tokenizer=ScalarTokenizer(codes=64, width=32, depth=1),
    patch_size=2,
    views=CenterCrop(),
    image_size=Size(8, 8),
    epochs=60,
)
"""64 codes of patches of 2, for scikit-learn's digits. Ours."""

TOKENIZERS = {
    "tokenizer-b16": NamedTokenizing(TOKENIZER_B16, "ours; the number of codes is that of BEiT's"),
    "tokenizer-ti4": NamedTokenizing(TOKENIZER_TI4, "ours"),
    "tokenizer-digits": NamedTokenizing(TOKENIZER_DIGITS, "ours"),
}
"""Every recipe of a tokenizer by its public name."""
