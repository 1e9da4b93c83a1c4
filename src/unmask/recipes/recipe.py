"""A pretraining recipe: all settings that change the result, and no others."""

from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from unmask.contracts import Size
from unmask.data.multi_views import AnyPretrainingViews, sizes_of
from unmask.data.sizes import AnySizes, SteadySize
from unmask.encoders import AnyEncoder
from unmask.errors import SettingsError
from unmask.masking.squares import check_squares, side_of
from unmask.objectives import AnyObjective
from unmask.patches import patch_grid
from unmask.spec import sized, within
from unmask.training.optimizers import AnyOptimizer
from unmask.training.schedules import WarmupCosine
from unmask.traits import Comparing, Hiding


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to pretrain."""

    pairs: ClassVar[bool] = False
    """Whether images of a batch are mixed in pairs: never here."""

    encoder: AnyEncoder
    """Encoder to train."""

    objective: AnyObjective
    """Training objective."""

    views: AnyPretrainingViews
    """Augmentation: crops and flips."""

    optimizer: AnyOptimizer
    """Optimizer."""

    schedule: WarmupCosine
    """Learning rate schedule."""

    image_size: Size
    """Size of a crop in pixels: one number for a square, or HEIGHTxWIDTH."""

    sizes: AnySizes = SteadySize()
    """Whether crops have this size in all epochs or grow to it."""

    batch_size: int
    """Images per step, all micro-batches together."""

    epochs: float
    """Number of epochs: how often each image is shown."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "batch_size")
        sized(self.image_size, "height", "width")
        within(self, "(0, inf)", "epochs")
        self._check_views()
        side = self.mask_side
        check_squares(self.encoder_grid(), side, self.encoder.patch_size)

    def _check_views(self) -> None:
        """Refuse views that the objective cannot use, or that cannot be divided into patches."""
        for size in self.every_size():
            views = sizes_of(self.views, size)
            for view in views:
                patch_grid(view, self.encoder.patch_size)
            if isinstance(self.objective, Comparing):
                self.objective.check_views(self.views, views)
            elif len(views) > 1:
                raise SettingsError(
                    f"this objective uses one view of each image, and these views are {len(views)}; use "
                    "views:random-crop"
                )
        if (
            isinstance(self.objective, Comparing)
            and self.batch_size < self.objective.smallest_batch
        ):
            raise SettingsError(
                f"this objective compares images, so a batch needs at least {self.objective.smallest_batch}, got "
                f"{self.batch_size}; use a larger --batch-size"
            )

    @property
    def mask_side(self) -> int:
        """Side, in patches, of the squares that are hidden together; 1 if nothing is hidden."""
        return side_of(self.objective.masking) if isinstance(self.objective, Hiding) else 1

    def encoder_grid(self) -> Size:
        """The grid of patches of a crop; refuses an image size that the patch size does not divide."""
        return patch_grid(self.image_size, self.encoder.patch_size)

    def every_size(self) -> tuple[Size, ...]:
        """All sizes of crops, in the order of training; the last is `image_size`."""
        unit = self.encoder.patch_size * self.mask_side
        return self.sizes.stages_to(self.image_size, unit)

    def size_at(self, epoch: float) -> Size:
        """The size of crops when so many epochs are over; it changes between epochs, if they are as many as the sizes."""
        sizes = self.every_size()
        over = int(epoch) if self.epochs >= len(sizes) else epoch
        return sizes[min(len(sizes) - 1, int(over * len(sizes) / self.epochs))]


R = TypeVar("R")


@dataclass(frozen=True)
class Named(Generic[R]):
    """A recipe with its source."""

    recipe: R
    source: str
    """Where the settings come from."""
    expected: str = ""
    """The score that its authors report, or that we measured."""
