"""A source whose images are corrupted at the size that a model sees."""

import numpy as np

from unmask.contracts import ImageSource, Sample, Size
from unmask.data.corruptions import corrupted
from unmask.data.labelled import Subset
from unmask.data.multi_views import view_of
from unmask.data.views import AnyViews
from unmask.traits import Levelled


class CorruptedImages(Subset):
    """The images of a source after their view, corrupted; as in ImageNet-C, whose pictures are cut to size first.

    Args:
        whole: images of 8 bits.
        views: the view of the model, which must give one image.
        size: of the view.
        corruption: a name of `corruptions.CORRUPTIONS`; None for the view as it is.
        severity: from 1 to 5.
        seed: of all draws.
    """

    def __init__(
        self,
        whole: ImageSource,
        views: AnyViews,
        size: Size,
        corruption: str | None,
        severity: int,
        seed: int,
    ) -> None:
        super().__init__(whole, np.arange(len(whole)))
        self.views, self.size = views, size
        self.corruption, self.severity, self.seed = corruption, severity, seed
        self.smallest_side, self.in_memory = min(size), False

    def __getitem__(self, position: int) -> Sample:
        """Raises DataError if the image cannot be decoded."""
        (image,), annotation = view_of(
            self.views, self.whole[position], self.annotations, self.size, position
        )
        if self.corruption is not None:
            image = corrupted(image, self.corruption, self.severity, self.seed, position)
        return Sample(image, annotation)

    def with_levels(self, levels: tuple[float, float] | None) -> "CorruptedImages":
        """See `Levelled`."""
        whole = self.whole.with_levels(levels) if isinstance(self.whole, Levelled) else self.whole
        return CorruptedImages(
            whole, self.views, self.size, self.corruption, self.severity, self.seed
        )

    def typical_size(self) -> Size:
        """The size of the view."""
        return self.size
