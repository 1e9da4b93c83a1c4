"""A source with a mask beside each image: `images/x.png`, and in `masks/x.png` the class of every pixel.

data/classes.txt             a class on each line, in the order of their numbers
data/images/x.png            an image, in any format that folders of images may hold
data/masks/x.png             one channel of numbers, 0 for the first class; 255 for pixels that do not count
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unmask.annotations import UNKNOWN, ClassMaps
from unmask.channels import Values
from unmask.contracts import Sample, Size
from unmask.data.folder import Folder, list_files
from unmask.data.image_files import EncodedImages
from unmask.errors import DataError


@dataclass(frozen=True, kw_only=True)
class MaskedFolder:
    """A folder of images with a class map for each."""

    path: str
    """The folder that holds `images`, `masks` and `classes.txt`."""

    def splits(self) -> tuple[str, ...]:
        """One: test images are drawn from the seed."""
        return ("train",)

    def open(self, split: str = "train") -> "MaskedImages":
        """List images and masks; nothing is decoded.

        Raises:
            DataError: if there are no images, no names of classes, or an image without a mask.
        """
        root = Path(self.path).expanduser()
        try:
            names = (root / "classes.txt").read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise DataError(
                f"{root / 'classes.txt'} cannot be read ({error.strerror}); write a class on each line"
            ) from None
        images = Folder(path=str(root / "images")).open()
        return MaskedImages(images, root / "masks", tuple(name for name in names if name))


class MaskedImages:
    """Images, as an `ImageSource`: what a folder of images says of itself, and a class map for each."""

    values: Values = "uint8"

    def __init__(self, images: EncodedImages, masks: Path, classes: tuple[str, ...]) -> None:
        self._images, self._masks = images, masks
        self.annotations = ClassMaps(names=classes)
        listing = list_files(masks, frozenset({".png"}))
        there = set(listing.names[row] for row in range(len(listing.names)))
        for position in range(len(images)):
            if self._mask_name(position) not in there:
                raise DataError(
                    f"{images.name(position)} has no mask; draw {masks / self._mask_name(position)}, or remove the image"
                )
        self.where, self.channels = images.where, images.channels
        self.refused: list[tuple[str, str]] = images.refused
        self.others: Counter[str] = images.others
        self.smallest_side, self.in_memory = images.smallest_side, images.in_memory
        # Equal for equal data: the masks count too, or a run would go on with others than it began with.
        self.fingerprint = f"{images.fingerprint}-{listing.fingerprint}"
        self.state = f"{images.state}-{listing.state}"

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int) -> Sample:
        """An image [c h w] and the class of each of its pixels [h w]; DataError if either cannot be read."""
        image, _ = self._images[position]
        path = self._masks / self._mask_name(position)
        try:
            with Image.open(path) as mask:
                numbers = np.asarray(mask)  # of a palette its numbers, not its colours
        except OSError as error:
            raise DataError(f"its mask {path} cannot be read ({error})") from None
        if numbers.shape != tuple(image.shape[1:]):
            raise DataError(
                f"its mask {path} has the shape {numbers.shape}, and the image {tuple(image.shape[1:])}; a mask "
                "has the image's size and one channel"
            )
        classes = torch.from_numpy(numbers.astype(np.int64))
        wrong = (classes >= len(self.annotations.names)) & (classes != self.annotations.ignored)
        if bool(wrong.any()):
            raise DataError(
                f"its mask {path} has the class {int(classes[wrong][0])}, and classes.txt names "
                f"{len(self.annotations.names)}, counted from 0"
            )
        return Sample(image, classes)

    def name(self, position: int) -> str:
        """The image's name below `images`."""
        return self._images.name(position)

    def labels(self) -> NDArray[np.int64]:
        """No image as a whole has a class."""
        return np.full(len(self), UNKNOWN)

    def typical_size(self) -> Size:
        """Median height and width."""
        return self._images.typical_size()

    def _mask_name(self, position: int) -> str:
        return str(Path(self._images.name(position)).with_suffix(".png"))
