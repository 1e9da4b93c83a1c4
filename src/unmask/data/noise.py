"""Regularisation of a classifier's input: dropped or swapped patches, and pixel noise."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unmask.channels import Statistics
from unmask.contracts import Batch
from unmask.errors import SettingsError
from unmask.masks import PatchMask
from unmask.patches import patch_grid, pixels_of, size_of
from unmask.randomness import generator
from unmask.spec import within

_SETTLED = 0.9  # share of the training after which the patch share stays at `last`


@dataclass(frozen=True, kw_only=True)
class PatchKeep:
    """The share of patches that are kept, as a schedule over the training.

    It goes from `first` to `last` along half a cosine, and stays at `last` for the last tenth of the steps, so that
    training can end on whole images, as in evaluation.
    """

    first: float = 1.0
    """Share kept at the first step."""

    last: float = 1.0
    """Share kept in the last tenth of the steps."""

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "first", "last", usual="it is the share of patches to keep")

    @classmethod
    def parse(cls, text: str) -> "PatchKeep":
        """Parse "0.5" (a constant share) or "0.25:1" (from the first to the last share).

        Raises:
            SettingsError: if the text is neither.
        """
        try:
            shares = [float(part) for part in text.split(":")]
        except ValueError:
            shares = []
        if len(shares) not in (1, 2):
            raise SettingsError(
                "--patch-keep must be a share of the patches, such as 0.5, or a first and a last one, such as "
                f"0.25:1, got {text!r}"
            )
        try:
            return cls(first=shares[0], last=shares[-1])
        except SettingsError as error:
            raise SettingsError(f"--patch-keep {text}: {error}") from None

    def share(self, progress: float) -> float:
        """The share kept at this progress of the training, 0 to 1."""
        done = min(1.0, progress / _SETTLED)
        return self.first + (self.last - self.first) * (1 - math.cos(math.pi * done)) / 2

    def __str__(self) -> str:
        if self.first == self.last:
            return f"{self.first:.0%}"
        return f"{self.first:.0%} at first, {self.last:.0%} at the end"


WHOLE = PatchKeep()
"""All patches in every step."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Patch dropout and pixel noise for training a classifier; labels are unchanged. Off by default.

    Dropped patches are never embedded, which also makes a step faster (PatchDropout, Liu and others, 2023).
    """

    patch_keep: PatchKeep = WHOLE
    """Share of each image's own patches that is kept."""

    instead: Literal["nothing", "patches"] = "nothing"
    """What replaces the other patches: nothing, for fewer tokens, or the patches of another image of the batch at the
    same positions."""

    pixel_noise: float = 0.0
    """Standard deviation of Gaussian noise on every pixel, relative to that of its channel."""

    def __post_init__(self) -> None:
        within(self, "[0, inf)", "pixel_noise", usual="0.3 is a third of a standard deviation")

    @property
    def pairs(self) -> bool:
        """Whether an image gets patches of another image of the batch."""
        return self.instead == "patches" and self.patch_keep != WHOLE

    def __call__(
        self, batch: Batch, patch_size: int, statistics: Statistics, progress: float, *key: int
    ) -> Batch:
        """The batch with noise, a function of the progress (0 to 1) and the key.

        Patches come from the image that mixup would mix in: for the first image from the last, and so on.
        """
        images = batch.images
        if self.pixel_noise > 0:
            images = self._noisy(batch, statistics, *key)
        if self.patch_keep == WHOLE:  # so images may have a size that patches do not divide
            return batch._replace(views=(images,))
        grid = patch_grid(size_of(images), patch_size)
        patches = grid.height * grid.width
        kept = max(1, round(patches * self.patch_keep.share(progress)))
        if kept == patches:
            return batch._replace(views=(images,))
        random = torch.rand(batch.whole, patches, generator=generator("cpu", "hidden", *key))
        order = batch.own(random).argsort(dim=1).to(images.device)
        mask = PatchMask.in_order(torch.arange(len(images), device=images.device), order, kept)
        if self.instead == "nothing":
            return batch._replace(views=(images,), shown=mask.kept_index)
        hidden = pixels_of(mask.removed, patch_size, grid)[:, None]
        return batch._replace(views=(torch.where(hidden, images.flip(0), images),))

    def _noisy(self, batch: Batch, statistics: Statistics, *key: int) -> Float[Tensor, "b c h w"]:
        images = batch.images
        values = images.float() / 255 if images.dtype == torch.uint8 else images
        random = generator(images.device, "pixel noise", *key)
        shape = (batch.whole, *images.shape[1:])
        noise = batch.own(torch.randn(shape, generator=random, device=images.device))
        return values + self.pixel_noise * noise * statistics.std[:, None, None]


NOISELESS = Noise()
"""No patch dropout and no pixel noise."""
