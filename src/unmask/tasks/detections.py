"""The objects that a detector finds in a picture."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from unmask.cutouts import Cutouts
from unmask.tasks.boxes import clipped, decoded, with_area
from unmask.tasks.pasting import pasted
from unmask.tasks.regions import OFFSET_SCALE

_LEAST_SCORE = 0.05  # of a detection
_OVERLAP = 0.5  # of detections of one class, above which the weaker is left out
_MOST = 100  # detections in a picture, as COCO counts


class Detections(NamedTuple):
    """The objects found in a picture, in its own pixels, by decreasing score."""

    boxes: Float[Tensor, "n 4"]
    """Left, top, right and bottom."""
    scores: Float[Tensor, " n"]
    """Probability of the class, 0.05 to 1."""
    classes: Int[Tensor, " n"]
    masks: Bool[Tensor, "n h w"] | Cutouts | None = None
    """Which pixels belong to each object, as `Cutouts` where tiles were looked at; None where masks were not learned."""


def best(
    scores: Float[Tensor, "n classes_and_background"],
    offsets: Float[Tensor, "n classes 4"],
    proposals: Float[Tensor, "n 4"],
    size: tuple[int, int],
) -> Detections:
    """The detections of an image: every class of every proposal, without weak, empty and doubled ones."""
    from torchvision.ops import batched_nms

    probabilities = scores.softmax(1)[:, :-1]
    number, classes = (probabilities > _LEAST_SCORE).nonzero(as_tuple=True)
    boxes = decoded(offsets[number, classes], proposals[number], OFFSET_SCALE)
    boxes = clipped(boxes, *size)
    usable = with_area(boxes)
    boxes, classes, values = boxes[usable], classes[usable], probabilities[number, classes][usable]
    chosen = batched_nms(boxes, values, classes, _OVERLAP)[:_MOST]
    return Detections(boxes[chosen], values[chosen], classes[chosen])


def in_whole(
    found: Detections,
    masks: Float[Tensor, "n side side"] | None,
    extent: tuple[int, int],
    whole: tuple[int, int],
) -> Detections:
    """Detections in the frame of the original picture, on the CPU; boxes that become empty are left out."""
    boxes, (height, width) = found.boxes.cpu(), whole
    factors = boxes.new_tensor([width / extent[1], height / extent[0]]).repeat(2)
    boxes = clipped(boxes * factors, height, width)
    usable = with_area(boxes)
    return Detections(
        boxes[usable],
        found.scores.cpu()[usable],
        found.classes.cpu()[usable],
        None if masks is None else pasted(masks.cpu()[usable], boxes[usable], height, width),
    )
