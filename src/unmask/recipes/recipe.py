"""What makes up a recipe: everything that changes the result, and nothing else."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from unmask.contracts import Size
from unmask.data.multi_views import AnyPretrainingViews, sizes_of
from unmask.data.sizes import AnySizes, SteadySize
from unmask.encoders import AnyEncoder
from unmask.errors import SettingsError
from unmask.masking.squares import check_squares, side_of
from unmask.objectives import AnyObjective
from unmask.patches import patch_grid
from unmask.training.optimizers import AnyOptimizer
from unmask.training.schedules import WarmupCosine
from unmask.traits import Comparing, Hiding


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to pretrain."""

    encoder: AnyEncoder
    """What is trained."""

    objective: AnyObjective
    """What makes it learn."""

    views: AnyPretrainingViews
    """Crops and flips."""

    optimizer: AnyOptimizer
    """How weights follow gradients."""

    schedule: WarmupCosine
    """The learning rate over time."""

    image_size: Size
    """Pixels of a crop: one number for a square, or HEIGHTxWIDTH."""

    sizes: AnySizes = SteadySize()
    """Whether crops have that size from the first epoch on."""

    batch_size: int
    """Images of a step, all micro-batches together."""

    epochs: float
    """How often every image is shown."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise SettingsError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 < self.epochs < math.inf:
            raise SettingsError(f"epochs must be above 0 and finite, got {self.epochs}")
        self._check_views()
        side = self.mask_side
        check_squares(self.encoder_grid(), side, self.encoder.patch_size)
        stages = len(self.every_size())
        if self.epochs < stages and stages > 1:
            raise SettingsError(
                f"{stages} sizes take at least as many epochs, got {self.epochs:g}; give more --epochs, fewer "
                "--sizes.stages, or sizes:steady for one size"
            )

    def _check_views(self) -> None:
        """Refuse views that the objective cannot use, or that cannot be cut into patches."""
        for size in self.every_size():
            views = sizes_of(self.views, size)
            for view in views:
                patch_grid(view, self.encoder.patch_size)
            if isinstance(self.objective, Comparing):
                self.objective.check_views(views)
            elif len(views) > 1:
                raise SettingsError(
                    f"this objective looks at one view of each image, and these views are {len(views)}; choose "
                    "views:random-crop"
                )
        if (
            isinstance(self.objective, Comparing)
            and self.batch_size < self.objective.smallest_batch
        ):
            raise SettingsError(
                f"this objective compares images, so a batch needs at least {self.objective.smallest_batch}, got "
                f"{self.batch_size}; give more with --batch-size"
            )

    @property
    def mask_side(self) -> int:
        """Side of what is hidden together, in patches; 1 where nothing is hidden."""
        return side_of(self.objective.masking) if isinstance(self.objective, Hiding) else 1

    def encoder_grid(self) -> Size:
        """The grid of patches of a crop; refuses a size that the patch does not divide."""
        return patch_grid(self.image_size, self.encoder.patch_size)

    @property
    def pairs(self) -> bool:
        """Whether images of a batch are mixed in pairs: never here."""
        return False

    def every_size(self) -> tuple[Size, ...]:
        """Pixels of a crop, in the order of training; the last is `image_size`."""
        unit = self.encoder.patch_size * self.mask_side
        return self.sizes.stages_to(self.image_size, unit)

    def size_at(self, epoch: int) -> Size:
        """Pixels of a crop in an epoch, counted from 0."""
        sizes = self.every_size()
        return sizes[min(len(sizes) - 1, int(epoch * len(sizes) / self.epochs))]


class Named(NamedTuple):
    """A recipe with its origin."""

    recipe: Recipe
    source: str
    """Where the numbers come from."""
    expected: str
    """The score that it gave its authors, and what it gave us."""
