"""The feed that decodes and crops images in loading processes, for any source, views and annotations."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.data import default_collate

from unmask.annotations import Annotation
from unmask.contracts import Batch, ImageSource, Size
from unmask.data.loader import CropSize, Failures, Wanted, read_or_replace
from unmask.data.multi_views import AnyPretrainingViews, check_views_carry, view_of
from unmask.data.views import AnyViews
from unmask.traits import Cut, Outlined

_APART = 4.0  # sides of an image from one to the next, where they are not parts of one picture


class Shown(NamedTuple):
    """The views of one image, with its annotation."""

    views: tuple[Tensor, ...]
    annotation: Annotation
    position: int
    """Position of the image in the source; that of its replacement if the requested image could not be decoded."""
    footprints: Float[Tensor, "v 4 2"] | None
    """See `Batch`."""


class CpuFeed:
    """A source's images as an objective sees them, by (epoch, index).

    The size of crops may depend on the epoch; then `size` is a function that can be pickled.
    """

    def __init__(
        self,
        source: ImageSource,
        views: AnyPretrainingViews | AnyViews,
        size: CropSize,
        seed: int,
    ) -> None:
        """Raises SettingsError if the source's annotations cannot follow the views."""
        check_views_carry(views, source.annotations)
        self.source, self.views, self.size, self.seed = source, views, size, seed

    def load(self, wanted: Wanted, failures: Failures) -> Batch:
        """The whole batch."""
        shown = [self.shown(key, wanted.size, failures) for key in wanted.keys]
        pictures = [
            collate_pictures(list(views))
            for views in zip(*(image.views for image in shown), strict=True)
        ]
        return Batch(
            views=tuple(views for views, _ in pictures),
            annotations=self.source.annotations.collate([image.annotation for image in shown]),
            index=torch.tensor([image.position for image in shown]),
            epoch=wanted.epoch,
            sizes=pictures[0][1],
            footprints=_together([image.footprints for image in shown]),
        )

    def arrive(self, loaded: Batch, device: torch.device, failures: Failures) -> Batch:
        """The batch on the device."""
        return loaded.to(device)

    def shown(self, key: tuple[int, int], size: Size, failures: Failures) -> Shown:
        """The views of the image with this key (epoch, index), or of its replacement."""
        read = self.source.__getitem__
        sample, position = read_or_replace(read, self.source, self.seed, key, failures)
        kind = self.source.annotations
        views, annotation = view_of(self.views, sample, kind, size, self.seed, *key)
        return Shown(views, annotation, position, self._footprints(position, *key))

    def _footprints(self, position: int, *key: int) -> Float[Tensor, "v 4 2"] | None:
        """What the views show, in the picture that the image was cut from."""
        if not isinstance(self.views, Outlined):
            return None
        window = torch.tensor([_APART * position, 0.0, 1.0, 1.0])
        if isinstance(self.source, Cut):
            window = torch.from_numpy(self.source.windows[position]).float()
        return window[:2] + self.views.footprints(self.seed, *key) * window[2:]


def _together(footprints: list[Float[Tensor, "v 4 2"] | None]) -> Float[Tensor, "b v 4 2"] | None:
    known = [one for one in footprints if one is not None]
    return torch.stack(known) if known else None


def collate_pictures(
    pictures: list[Shaped[Tensor, "c _ _"]],
) -> tuple[Shaped[Tensor, "b c h w"], Int[Tensor, "b 2"] | None]:
    """One tensor, and the height and width of each picture, or None if all have the same size.

    Smaller pictures are padded at the right and at the bottom, with 0 or, in floating point, with NaN.
    """
    if len({picture.shape for picture in pictures}) == 1:
        return default_collate(pictures), None
    sizes = torch.tensor([picture.shape[-2:] for picture in pictures])
    height, width = sizes.amax(0).tolist()
    first = pictures[0]
    missing = math.nan if first.is_floating_point() else 0
    padded = first.new_full((len(pictures), len(first), height, width), missing)
    for row, picture in zip(padded, pictures, strict=True):
        row[:, : picture.shape[1], : picture.shape[2]] = picture
    return padded, sizes
