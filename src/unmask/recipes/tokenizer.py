"""Recipes for discrete tokenizers."""

from dataclasses import dataclass, replace
from typing import ClassVar

from unmask.contracts import Size
from unmask.data.views import AnyCrops, CenterCrop, RandomCrop
from unmask.patches import patch_grid
from unmask.recipes.recipe import Named
from unmask.spec import sized, within
from unmask.targets import ScalarTokenizer
from unmask.training.optimizers import AdamW, AnyOptimizer
from unmask.training.schedules import WarmupCosine


@dataclass(frozen=True, kw_only=True)
class Tokenizing:
    """How to train a tokenizer."""

    pairs: ClassVar[bool] = False
    """Whether images of a batch are mixed in pairs: never here."""

    tokenizer: ScalarTokenizer
    """Tokenizer to train."""

    patch_size: int
    """Side of a patch in pixels; must equal that of the encoders that predict the codes."""

    views: AnyCrops
    """Augmentation: crops and flips."""

    optimizer: AnyOptimizer
    """Optimizer."""

    schedule: WarmupCosine
    """Learning rate schedule."""

    image_size: Size
    """Size of a crop in pixels: one number for a square, or HEIGHTxWIDTH."""

    batch_size: int
    """Images per step, all micro-batches together."""

    epochs: float
    """Number of epochs: how often each image is shown."""

    def __post_init__(self) -> None:
        sized(self, "patch_size")
        sized(self.image_size, "height", "width")
        within(self, "[1, inf)", "batch_size")
        within(self, "(0, inf)", "epochs")
        patch_grid(self.image_size, self.patch_size)

    def every_size(self) -> tuple[Size, ...]:
        """All sizes of crops: only one."""
        return (self.image_size,)

    def size_at(self, epoch: float) -> Size:
        """The size of crops in an epoch: the same in all epochs."""
        return self.image_size


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
"""8,192 codes for patches of 16, about 50,000 steps on ImageNet-1K. Ours."""

TOKENIZER_TI4 = replace(
    TOKENIZER_B16,
    tokenizer=ScalarTokenizer(codes=512, width=64, depth=2),
    patch_size=4,
    views=RandomCrop(smallest_share=0.4, flip_probability=0.5),  # as mae-ti4
    schedule=WarmupCosine(base_lr=1e-2, warmup_epochs=0.5),
    image_size=Size(32, 32),
    batch_size=64,
    epochs=10,
)
"""512 codes for patches of 4 in images of 32 pixels. Ours; studies/tokenizer.md has its results on CIFAR-10."""

TOKENIZER_DIGITS = replace(
    TOKENIZER_TI4,
    tokenizer=ScalarTokenizer(codes=64, width=32, depth=1),
    patch_size=2,
    views=CenterCrop(),
    image_size=Size(8, 8),
    epochs=60,
)
"""64 codes for patches of 2 in scikit-learn's digits. Ours."""

TOKENIZERS = {
    "tokenizer-b16": Named(TOKENIZER_B16, "ours, with BEiT's number of codes"),
    "tokenizer-ti4": Named(TOKENIZER_TI4, "ours"),
    "tokenizer-digits": Named(TOKENIZER_DIGITS, "ours"),
}
"""All tokenizer recipes by their public names."""
