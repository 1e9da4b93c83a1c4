"""Pictures of class maps and objects: colours where they belong, sizes, and names in the legend."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from unmask.annotations import ClassMaps, ObjectLabels, Objects
from unmask.pictures.colors import class_colors
from unmask.pictures.located import small_enough, with_map, with_objects
from unmask.runs.examples import Example, example_sheet

GREY = torch.full((1, 40, 60), 0.5)


class Found(NamedTuple):
    boxes: Tensor
    scores: Tensor
    classes: Tensor
    masks: Tensor | None = None


def test_a_map_colours_its_pixels_and_leaves_ignored_ones() -> None:
    classes = torch.full((40, 60), 255)
    classes[:10], classes[10:20] = 0, 1
    painted = with_map(GREY, classes, 2)
    red, other = (torch.tensor(color) / 255 for color in class_colors(2))
    for rows, color in ((slice(0, 10), red), (slice(10, 20), other)):
        expected = (0.55 * color + 0.45 * 128 / 255)[:, None, None].expand(-1, 10, 60)
        torch.testing.assert_close(painted[:, rows], expected)
    assert painted[:, 20:].unique().tolist() == pytest.approx([128 / 255])


def test_boxes_masks_and_weak_objects() -> None:
    boxes = torch.tensor([[2.0, 15, 20, 35], [30, 15, 58, 38]])
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[0, 25:30, 5:15] = True
    found = Found(boxes, torch.tensor([0.9, 0.3]), torch.tensor([1, 0]), masks)
    painted = with_objects(GREY, found, ["cat", "dog"], least=0.5)
    color = torch.tensor(class_colors(2)[1]) / 255
    torch.testing.assert_close(painted[:, 34, 10], color)  # the lower edge
    assert not torch.allclose(painted[:, 27, 10], torch.full((3,), 0.5), atol=0.1)
    assert painted[:, 20:, 31:].unique().tolist() == pytest.approx([128 / 255])  # the weak one


def test_where_masks_overlap_the_surest_gives_the_colour() -> None:
    """Not black, which is what torchvision's drawing makes of it."""
    boxes = torch.tensor([[0.0, 0, 60, 40], [0, 0, 60, 40]])
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[0, 20:35, 5:40], masks[1, 20:35, 20:55] = True, True
    found = Found(boxes, torch.tensor([0.9, 0.6]), torch.tensor([0, 1]), masks)
    painted = with_objects(GREY, found, ["cat", "dog"])
    cat, dog = (0.55 * torch.tensor(color) / 255 + 0.45 * 128 / 255 for color in class_colors(2))
    for x, color in ((10, cat), (30, cat), (50, dog)):
        torch.testing.assert_close(painted[:, 30, x], color, atol=1 / 255, rtol=0)


def test_large_pictures_shrink_with_what_is_in_them() -> None:
    picture, classes = torch.rand(3, 100, 200), torch.arange(200).expand(100, -1) // 100
    small, shrunk = small_enough(picture, classes, 50)
    assert small.shape == (3, 25, 50)
    assert torch.equal(shrunk, torch.arange(50).expand(25, -1) // 25)
    objects = Objects(torch.tensor([[20.0, 10, 100, 50]]), torch.tensor([0]))
    assert small_enough(picture, objects, 50)[1].boxes.tolist() == [[5, 2.5, 25, 12.5]]
    assert small_enough(picture, classes, 200)[0] is picture


@pytest.mark.parametrize("count", [0, 2])
def test_sheets_of_maps_and_objects(count: int) -> None:
    kind = ClassMaps(names=("grass", "street"))
    classes = torch.zeros(40, 60, dtype=torch.long)
    page = example_sheet([Example(GREY, classes, classes, "a.png")], kind)
    boxes = torch.tensor([[1.0, 1, 20, 20]] * count).reshape(-1, 4)
    objects = Objects(
        boxes, torch.zeros(count, dtype=torch.long), torch.zeros(count, 40, 60).bool()
    )
    found = Found(boxes, torch.ones(count), objects.classes, objects.masks)
    objects_page = example_sheet(
        [Example(GREY, objects, found, "a.png")], ObjectLabels(names=("car",), masks=True)
    )
    assert page.width == objects_page.width
    assert page.height > objects_page.height  # by the legend
