"""Mixup, cutmix and random erasing of a batch; labels are mixed in the same shares as images."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unmask.channels import Statistics
from unmask.contracts import Batch
from unmask.errors import SettingsError
from unmask.randomness import generator, seeded
from unmask.spec import within


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixup (Zhang and others, 2018) or cutmix (Yun and others, 2019) of a whole batch, and random erasing.

    As in timm, every batch is mixed with its reverse, by mixup or cutmix with equal probability. If processes share a
    batch, each has both images of a pair (`data.order.rows_of`). With 0 for all three, the batch is unchanged.
    """

    mixup: float = 0.8
    """Alpha of mixup's Beta distribution (MAE table 9); 0 turns mixup off."""

    cutmix: float = 1.0
    """Alpha of cutmix's Beta distribution (MAE table 9); 0 turns cutmix off."""

    erasing: float = 0.0
    """Probability of replacing a rectangle of an image with Gaussian noise; 0.25 in the published code."""

    def __post_init__(self) -> None:
        within(self, "[0, inf)", "mixup", "cutmix")
        within(self, "[0, 1]", "erasing")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed in pairs, so that the batch size must be even."""
        return self.mixup > 0 or self.cutmix > 0

    def __call__(self, batch: Batch, classes: int, statistics: Statistics, *key: int) -> Batch:
        """The mixed batch, a function of the key.

        uint8 images become floating point, 0 to 1, the encoder's units. Class labels become shares of classes, float32
        [b classes]; multi-label labels are mixed in the same shares.

        Raises:
            SettingsError: if images are mixed, but have no class labels or multi-label labels.
        """
        if not self.mixes and self.erasing == 0:
            return batch
        images, labels = batch.images, batch.annotations
        images = images.float() / 255 if images.dtype == torch.uint8 else images.clone()
        if self.erasing > 0:
            images = self._erased(batch, images, statistics, *key)
        if self.mixes:
            images, labels = self._mixed(images, _mixable(batch), classes, *key)
        return batch._replace(views=(images,), annotations=labels)

    def _mixed(
        self, images: Float[Tensor, "b c h w"], labels: Tensor, classes: int, *key: int
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b classes"]]:
        if labels.ndim == 1:
            return self._by_timm(images, labels, classes, *key)
        # timm returns the share of an image's own pixels only through its labels. So we pass class 0 for the first half
        # of the batch and class 1 for the second.
        half = torch.arange(len(images), device=images.device) >= len(images) // 2
        images, shares = self._by_timm(images, half.long(), 2, *key)
        own = shares[:1, :1]
        return images, labels * own + labels.flip(0) * (1 - own)

    def _by_timm(
        self, images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"], classes: int, *key: int
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b classes"]]:
        from timm.data.mixup import Mixup

        mix = Mixup(self.mixup, self.cutmix, label_smoothing=0.0, num_classes=classes)
        with seeded("mixing", *key):
            return mix(images, labels)

    def _erased(
        self, batch: Batch, images: Float[Tensor, "b c h w"], statistics: Statistics, *key: int
    ) -> Float[Tensor, "b c h w"]:
        from timm.data.random_erasing import RandomErasing

        whole = torch.ones(batch.whole, 1, *batch.images.shape[-2:])
        with seeded("erasing", *key):
            erased = RandomErasing(self.erasing, mode="const", device="cpu")(whole) == 0
        random = generator(images.device, "erasing", *key)
        shape = (batch.whole, *images.shape[1:])
        noise = batch.own(torch.randn(shape, generator=random, device=images.device))
        noise = noise * statistics.std[:, None, None] + statistics.mean[:, None, None]
        return torch.where(batch.own(erased).to(images.device), noise, images)


def _mixable(batch: Batch) -> Tensor:
    """Class labels, int64 [b], or multi-label labels, float [b classes].

    Raises:
        SettingsError: for other annotations, or none.
    """
    labels = batch.annotations
    if isinstance(labels, Tensor) and labels.ndim == 1 + labels.is_floating_point():
        return labels
    raise SettingsError(
        "mixup and cutmix need labels of whole images, and these images have none; set --mixing.mixup 0 and "
        "--mixing.cutmix 0"
    )


UNMIXED = Mixing(mixup=0.0, cutmix=0.0, erasing=0.0)
"""No mixing and no erasing."""
