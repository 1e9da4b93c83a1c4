"""Some test images of a dense task beside what is known of them and what the module locates in them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unmask.annotations import AnyAnnotations, ClassMaps
from unmask.contracts import ImageSource
from unmask.data.labelled import Subset
from unmask.data.picture_facts import evenly
from unmask.pictures.located import small_enough, with_legend, with_map, with_objects
from unmask.pictures.sheet import Row, sheet

_SHOWN = 6  # images in a sheet
_LARGEST = 360  # pixels of a picture's longer side in a sheet
LEAST_SCORE = 0.5
"""Lowest score of the objects that are drawn."""


class Example(NamedTuple):
    """A test image."""

    picture: Float[Tensor, "c h w"]
    """From 0 to 1."""
    known: Any
    """Its annotation."""
    located: Any
    """What the module locates in it."""
    name: str


def chosen_for_examples(source: ImageSource) -> Subset:
    """Evenly spaced images."""
    return Subset(source, np.array(evenly(len(source), _SHOWN)))


def example_sheet(examples: Sequence[Example], kind: AnyAnnotations) -> Image.Image:
    """A row for each image: the picture, what is known of it, and what was located in it."""
    rows = [
        Row(
            [
                small_enough(one.picture, one.known, _LARGEST)[0],
                painted(one.picture, one.known, kind),
                painted(one.picture, one.located, kind),
            ],
            one.name,
        )
        for one in examples
    ]
    page = sheet(["picture", "annotation", "prediction"], rows, [])
    return with_legend(page, kind.names) if isinstance(kind, ClassMaps) else page


def painted(
    picture: Float[Tensor, "c h w"], located: Any, kind: AnyAnnotations, largest: int = _LARGEST
) -> Float[Tensor, "3 new_h new_w"]:
    """The picture, 0 to 1, no larger than `largest`, with a class map or objects drawn on it."""
    picture, located = small_enough(picture, located, largest)
    if isinstance(kind, ClassMaps):
        return with_map(picture, located, len(kind.names))
    return with_objects(picture, located, kind.names, LEAST_SCORE)
