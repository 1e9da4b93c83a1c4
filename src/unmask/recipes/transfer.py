"""A recipe for training with labels: fine-tuning, linear probing, or training from scratch."""

from dataclasses import dataclass

from unmask.contracts import Size
from unmask.data.mixing import Mixing
from unmask.data.noise import NOISELESS, Noise
from unmask.data.views import AnyViews
from unmask.encoders import AnyEncoder
from unmask.errors import SettingsError
from unmask.patches import patch_grid
from unmask.spec import within
from unmask.tasks import AnyTask
from unmask.training.optimizers import AnyOptimizer
from unmask.training.schedules import WarmupCosine


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """How to train a classifier."""

    encoder: AnyEncoder
    """Encoder; weights to start from must have this shape."""

    task: AnyTask
    """Task: the head, which part of the encoder is trained, and regularisation."""

    views: AnyViews
    """Augmentation of training images: crops, flips and others."""

    test_views: AnyViews
    """Crops of test images."""

    mixing: Mixing
    """Augmentation of whole training batches (mixup, cutmix, erasing)."""

    noise: Noise = NOISELESS
    """Patches or pixels that are hidden in training, after mixing."""

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
        within(self, "[1, inf)", "batch_size")
        if self.mixing.mixes and self.batch_size % 2:
            raise SettingsError(
                f"mixup and cutmix pair the images of a batch, so batch_size must be even, got "
                f"{self.batch_size}"
            )
        within(self, "(0, inf)", "epochs")
        self.task.check(self.encoder.depth)
        self.encoder_grid()

    @property
    def pairs(self) -> bool:
        """Whether an image gets content of another image of its batch: image i that of image batch_size - 1 - i."""
        return self.mixing.mixes or self.noise.pairs

    def encoder_grid(self) -> Size:
        """The grid of patches of a crop; refuses an image size that the patch size does not divide."""
        return patch_grid(self.image_size, self.encoder.patch_size)

    def every_size(self) -> tuple[Size, ...]:
        """All sizes of crops: only one."""
        return (self.image_size,)

    def size_at(self, epoch: int) -> Size:
        """The size of crops in an epoch: the same in all epochs."""
        return self.image_size
