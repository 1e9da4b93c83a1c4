"""Noise against overfitting: patches left out or taken from another image, and noise on pixels."""

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

_SETTLED = 0.9


@dataclass(frozen=True, kw_only=True)
class PatchKeep:
    """The share of patches that is shown, over the course of a training.

    It goes from `first` to `last` along half a cosine, and stays there for the last tenth of the steps, so
    that a training may end on whole images, as they are tested.
    """

    first: float = 1.0
    """Share shown at the first step."""

    last: float = 1.0
    """Share shown in the last tenth of the steps."""

    def __post_init__(self) -> None:
        for name in ("first", "last"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingsError(
                    "the share of patches to keep (--patch-keep) must be above 0 and at most 1, got "
                    f"{getattr(self, name):g}"
                )

    @classmethod
    def parse(cls, text: str) -> "PatchKeep":
        """Read "0.5" (that share always) or "0.25:1" (from the first to the last share).

        Raises:
            SettingsError: if the text is neither.
        """
        try:
            shares = [float(part) for part in text.split(":")]
        except ValueError:
            shares = []
        if len(shares) not in (1, 2):
            raise SettingsError(
                "--patch-keep is a share of the patches, such as 0.5, or a first and a last one, such as "
                f"0.25:1; got {text!r}"
            )
        return cls(first=shares[0], last=shares[-1])

    def share(self, progress: float) -> float:
        """The share shown when so much of the training, 0 to 1, is done."""
        done = min(1.0, progress / _SETTLED)
        return self.first + (self.last - self.first) * (1 - math.cos(math.pi * done)) / 2

    def __str__(self) -> str:
        if self.first == self.last:
            return f"{self.first:.0%}"
        return f"{self.first:.0%} at first, {self.last:.0%} at last"


WHOLE = PatchKeep()
"""All patches, always."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What is hidden from a classifier, or laid over its images, while it learns; labels stay as they are.

    Patches left out are never embedded, which makes a step faster as well (PatchDropout, Liu and others,
    2023). By default nothing is hidden.
    """

    patch_keep: PatchKeep = WHOLE
    """Share of each image's own patches that is shown."""

    instead: Literal["nothing", "patches"] = "nothing"
    """What stands where patches are hidden: nothing, so that there are fewer tokens, or the patches that
    another image of the batch has there."""

    pixel_noise: float = 0.0
    """Deviation of the Gaussian noise on every pixel, in deviations of its channel."""

    def __post_init__(self) -> None:
        if not 0 <= self.pixel_noise < math.inf:
            raise SettingsError(
                f"pixel_noise must be 0 or more and finite, got {self.pixel_noise}; 0.3 is a third of the deviation "
                "of a channel"
            )

    @property
    def pairs(self) -> bool:
        """Whether an image is given something of another one of the batch."""
        return self.instead == "patches" and self.patch_keep != WHOLE

    def __call__(
        self, batch: Batch, patch_size: int, statistics: Statistics, progress: float, *key: int
    ) -> Batch:
        """The batch with its noise, which depends on the progress (0 to 1) and the key alone.

        Patches are taken from the image that mixup would mix in: the first from the last, and so on.
        """
        images = batch.images
        if self.pixel_noise > 0:
            images = self._noisy(batch, statistics, *key)
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
"""Images as they are."""
