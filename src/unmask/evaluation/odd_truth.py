"""What is odd in test images, as far as their annotations say it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from unmask.annotations import (
    Annotation,
    AnyAnnotations,
    ClassLabels,
    ClassMaps,
    ObjectLabels,
    Objects,
)
from unmask.contracts import ImageSource, Size
from unmask.data.decode import reasons
from unmask.data.picture_formats import open_image
from unmask.data.resizing import nearest
from unmask.errors import DataError, SettingsError, did_you_mean

GOOD = ("good", "normal", "ok")
"""Names of a class of normal images."""

_MASKS = "ground_truth"  # beside the folder of test images, as in MVTec AD: CLASS/NAME_mask.png


class Odd(NamedTuple):
    """What is known of an image."""

    image: bool
    """Whether anything in it is odd."""
    pixels: Bool[Tensor, "h w"] | None
    """Which pixels are odd; None if that is not known."""
    ignored: Bool[Tensor, "h w"] | None = None
    """Which pixels are neither odd nor normal: those that class maps leave open, and crowds; None for none."""


class Truth:
    """What is odd in the images of a source.

    Objects are odd, and so are the pixels of class maps that are not of the first class; images of classes are odd unless
    their class is the good one. Masks beside class folders are found in `ground_truth/CLASS/NAME_mask.png`.
    """

    def __init__(self, source: ImageSource, good: str | None = None) -> None:
        """`good` is the name of the class of normal images; None for `GOOD`.

        Raises:
            SettingsError: if no class has the name that was given.
        """
        self.source, self.kind = source, source.annotations
        self.good = _good_class(self.kind, good)

    @property
    def known(self) -> bool:
        """Whether anything is known of the images."""
        return isinstance(self.kind, ObjectLabels | ClassMaps) or self.good is not None

    @property
    def words(self) -> str:
        """What counts as odd."""
        if isinstance(self.kind, ObjectLabels):
            return "objects are odd, by their masks" if self.kind.masks else "the boxes are odd"
        if isinstance(self.kind, ClassMaps):
            return f"all pixels are odd that are not {self.kind.names[0]}"
        if self.good is not None:
            return f"all classes are odd but {self.kind.names[self.good]}"
        return "nothing is known of these images"

    def of(self, position: int, annotation: Annotation, whole: Size, size: Size) -> Odd | None:
        """What is odd in an image of `whole` pixels, at `size`; None if it is not known."""
        if isinstance(annotation, Objects):
            return _odd_objects(annotation, whole, size)
        if isinstance(self.kind, ClassMaps):
            assert isinstance(annotation, Tensor)
            ignored = annotation == self.kind.ignored
            pixels = (annotation != 0) & ~ignored
            if bool(ignored.all()):
                return None
            return Odd(bool(pixels.any()), _resized(pixels, size), _resized(ignored, size))
        if self.good is None or not isinstance(annotation, Tensor) or int(annotation) < 0:
            return None
        if int(annotation) == self.good:
            return Odd(False, torch.zeros(*size, dtype=torch.bool))
        return Odd(True, self._mask(position, size))

    def _mask(self, position: int, size: Size) -> Bool[Tensor, "h w"] | None:
        """The pixels of a mask in `ground_truth`, if there is one.

        Raises:
            DataError: if it cannot be read.
        """
        name = Path(self.source.name(position))
        file = Path(self.source.where).parent / _MASKS / name.parent / f"{name.stem}_mask.png"
        if not file.is_file():
            return None
        try:
            with reasons(file), open_image(file) as picture:
                pixels = torch.from_numpy(np.array(picture.convert("L"))) > 0
        except DataError as error:
            raise DataError(f"{file} cannot be read: {error}") from None
        return _resized(pixels, size)


def _good_class(kind: AnyAnnotations, good: str | None) -> int | None:
    """The number of the class of normal images, if there is one."""
    names = kind.names if isinstance(kind, ClassLabels) else ()
    if good is not None:
        if good not in names:
            raise SettingsError(
                f"--good {good} is no class of these images; {did_you_mean(good, names)}"
            )
        return names.index(good)
    return next((number for number, name in enumerate(names) if name.lower() in GOOD), None)


def _odd_objects(objects: Objects, whole: Size, size: Size) -> Odd:
    """What is odd in an image of objects: crowds make an image odd, and their pixels are left out."""
    crowd = objects.crowd
    if crowd is None or not bool(crowd.any()):
        return Odd(len(objects.boxes) > 0, _resized(_of_objects(objects, whole), size))
    single, crowds = (_of_objects(objects.rows(chosen), whole) for chosen in (~crowd, crowd))
    return Odd(True, _resized(single, size), _resized(crowds & ~single, size))


def _of_objects(objects: Objects, whole: Size) -> Bool[Tensor, "h w"]:
    """The pixels of all objects: of masks where they are known, else of boxes, whose pixels have their middle inside."""
    if objects.masks is not None:
        return objects.masks.any(0)
    pixels = torch.zeros(*whole, dtype=torch.bool)
    for left, top, right, bottom in objects.boxes.round().long().tolist():
        pixels[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return pixels


def _resized(pixels: Bool[Tensor, "h w"], size: Size) -> Bool[Tensor, "new_h new_w"]:
    return nearest(pixels[None].byte(), size)[0].bool()
