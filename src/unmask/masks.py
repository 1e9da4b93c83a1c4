"""Which patches of which image are hidden. Shape letters are those of `contracts`."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unmask.errors import SettingsError


class PatchMask(NamedTuple):
    """Which patches of which image are hidden. True means removed.

    Every row removes the same number of patches, so that rows can be stacked. The order of
    `kept_index` is free: attention does not care. A masking gives `removed_index` in random order, for where
    not all hidden patches are to be rebuilt it is cut short.
    """

    image: Int[Tensor, "m"]
    removed: Bool[Tensor, "m n"]
    kept_index: Int[Tensor, "m k"]
    removed_index: Int[Tensor, "m r"]

    def of_images(self, rows: Int[Tensor, "b"], whole: int) -> "PatchMask":
        """The masks of some images, by their places, of a mask drawn for `whole` images."""
        device, per_image = self.image.device, len(self.image) // whole
        found = self.image.argsort(stable=True).view(whole, per_image)[rows.to(device)].flatten()
        image = torch.arange(len(rows), device=device).repeat_interleave(per_image)
        rest = (self.removed[found], self.kept_index[found], self.removed_index[found])
        return PatchMask(image, *rest)

    @classmethod
    def in_order(cls, image: Int[Tensor, "m"], order: Int[Tensor, "m n"], kept: int) -> "PatchMask":
        """The mask whose rows keep the first `kept` patches of an order of all, and remove the others."""
        kept_index, removed_index = order[:, :kept], order[:, kept:]
        removed = torch.ones(order.shape, dtype=torch.bool, device=order.device)
        return cls(image, removed.scatter_(1, kept_index, False), kept_index, removed_index)

    @classmethod
    def of(
        cls, removed: Bool[Tensor, "m n"], generator: torch.Generator | None = None
    ) -> "PatchMask":
        """The mask of a table of flags, one row an image; indices rise, or are shuffled by a generator.

        Raises:
            SettingsError: if rows differ in their count, or one hides nothing or everything.
        """
        counts = removed.sum(1)
        count, patches = int(counts[0]), removed.shape[1]
        if not bool((counts == count).all()):
            raise SettingsError(
                "every image of a batch must hide the same number of patches; "
                f"these hide between {int(counts.min())} and {int(counts.max())} of {patches}"
            )
        check_count(patches - count, patches)
        if generator is None:
            order = removed.to(torch.uint8).argsort(dim=1, stable=True)
        else:
            noise = torch.rand(removed.shape, generator=generator, device=generator.device)
            order = (removed + noise.to(removed.device)).argsort(dim=1)  # noise is below 1
        image = torch.arange(len(removed), device=removed.device)
        return cls(image, removed, order[:, : patches - count], order[:, patches - count :])


def check_count(kept: int, patches: int) -> None:
    """Refuse a mask that keeps or hides nothing.

    Raises:
        SettingsError: naming the ratios that would work for this number of patches.
    """
    if 0 < kept < patches:
        return
    what = "keep none" if kept <= 0 else "hide none"
    if patches < 2:
        raise SettingsError(
            "a mask keeps some patches and hides others, and an image of one patch (1 of 1 patches) cannot; use a larger image "
            "(--image-size) or a smaller patch"
        )
    raise SettingsError(
        f"this mask would {what} of the {patches} patches, so there is nothing to learn; "
        f"use a ratio between {1 / patches:.3g} and {1 - 1 / patches:.3g} (MAE uses 0.75), "
        "a larger image or a smaller patch"
    )
