"""Which patches of which image are hidden. The shape letters are those of `contracts`."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unmask.errors import SettingsError


class PatchMask(NamedTuple):
    """Which patches of which image are hidden. True means removed.

    Every row removes the same number of patches, so rows can be stacked. `kept_index` may have any order, because
    attention does not depend on it. `removed_index` has a random order: an objective that rebuilds only some of the
    hidden patches takes the first ones.
    """

    image: Int[Tensor, " m"]
    removed: Bool[Tensor, "m n"]
    kept_index: Int[Tensor, "m k"]
    removed_index: Int[Tensor, "m r"]

    def of_images(self, rows: Int[Tensor, " b"], whole: int) -> "PatchMask":
        """The masks of the images at the positions `rows`, from a mask drawn for `whole` images."""
        device, per_image = self.image.device, len(self.image) // whole
        mask_rows = self.image.argsort(stable=True).view(whole, per_image)  # [image mask]
        chosen = mask_rows[rows.to(device)].flatten()
        image = torch.arange(len(rows), device=device).repeat_interleave(per_image)
        return PatchMask(
            image, self.removed[chosen], self.kept_index[chosen], self.removed_index[chosen]
        )

    @classmethod
    def in_order(
        cls, image: Int[Tensor, " m"], order: Int[Tensor, "m n"], kept: int
    ) -> "PatchMask":
        """The mask that keeps the first `kept` patches of each row of `order` and removes the others."""
        kept_index, removed_index = order[:, :kept], order[:, kept:]
        removed = torch.ones(order.shape, dtype=torch.bool, device=order.device)
        return cls(image, removed.scatter_(1, kept_index, False), kept_index, removed_index)

    @classmethod
    def of(
        cls, removed: Bool[Tensor, "m n"], generator: torch.Generator | None = None
    ) -> "PatchMask":
        """The mask from one row of flags per image; a generator shuffles the indices, without one they are sorted.

        Raises:
            SettingsError: if rows hide different numbers of patches, or hide none or all.
        """
        counts = removed.sum(1)
        count, patches = int(counts[0]), removed.shape[1]
        if not bool((counts == count).all()):
            raise SettingsError(
                "every image of a batch must hide the same number of patches, so that they can be stacked; "
                f"these hide between {int(counts.min())} and {int(counts.max())} of {patches}"
            )
        check_count(patches - count, patches)
        if generator is None:
            order = removed.to(torch.uint8).argsort(dim=1, stable=True)
        else:
            noise = torch.rand(removed.shape, generator=generator, device=generator.device)
            # visible patches first: noise is below 1, so no visible patch exceeds a removed one
            order = (removed + noise.to(removed.device)).argsort(dim=1)
        image = torch.arange(len(removed), device=removed.device)
        return cls(image, removed, order[:, : patches - count], order[:, patches - count :])


def check_count(kept: int, patches: int) -> None:
    """Raises SettingsError, with the ratios that work, for a mask that keeps or hides no patch."""
    if 0 < kept < patches:
        return
    what = "keep none" if kept <= 0 else "hide none"
    if patches < 2:
        raise SettingsError(
            "an image of one patch cannot be masked: some patches must stay visible and others be hidden; use a larger "
            "image (--image-size) or a smaller patch"
        )
    raise SettingsError(
        f"this mask would {what} of the {patches} patches, so there is nothing to learn; "
        f"use a ratio between {1 / patches:.3g} and {1 - 1 / patches:.3g} (MAE uses 0.75), "
        "a larger image or a smaller patch"
    )
