"""What makes up a recipe of fine-tuning, probing, or training from scratch with labels."""

import math
from dataclasses import dataclass

from unmask.contracts import Size
from unmask.data.mixing import Mixing
from unmask.data.noise import NOISELESS, Noise
from unmask.data.views import AnyViews
from unmask.encoders import AnyEncoder
from unmask.errors import SettingsError
from unmask.patches import patch_grid
from unmask.tasks import AnyTask
from unmask.training.optimizers import AnyOptimizer
from unmask.training.schedules import WarmupCosine


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """How to train a classifier."""

    encoder: AnyEncoder
    """What it is made for; given weights must be of it."""

    task: AnyTask
    """How much of the encoder learns, the head, and what regularises them."""

    views: AnyViews
    """Crops, flips and augmentations in training."""

    test_views: AnyViews
    """What is tested on."""

    mixing: Mixing
    """What is done to whole batches in training."""

    noise: Noise = NOISELESS
    """What is hidden from the classifier in training, after mixing."""

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
        if self.batch_size < 1:
            raise SettingsError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.mixing.mixes and self.batch_size % 2:
            raise SettingsError(
                f"mixup and cutmix pair the images of a batch, so batch_size must be even, got "
                f"{self.batch_size}"
            )
        if not 0 < self.epochs < math.inf:
            raise SettingsError(f"epochs must be above 0 and finite, got {self.epochs}")
        self.task.check(self.encoder.depth)
        self.encoder_grid()

    @property
    def pairs(self) -> bool:
        """Whether an image is given something of another one of the batch: its mirror image in the order."""
        return self.mixing.mixes or self.noise.pairs

    def encoder_grid(self) -> Size:
        """The grid of patches of a crop; refuses a size that the patch does not divide."""
        return patch_grid(self.image_size, self.encoder.patch_size)

    def every_size(self) -> tuple[Size, ...]:
        """Pixels of a crop: one size."""
        return (self.image_size,)

    def size_at(self, epoch: int) -> Size:
        """Pixels of a crop in an epoch: the same in all."""
        return self.image_size
