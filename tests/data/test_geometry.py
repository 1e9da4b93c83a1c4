"""Pixels, class maps and boxes move together, by one drawn geometry."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from reference.problems import random
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from unmask.annotations import ClassLabels, ClassMaps, ObjectLabels, Objects, is_dense
from unmask.contracts import Sample, Size
from unmask.data import geometry as module
from unmask.data.geometry import (
    Box,
    Geometry,
    Placing,
    moved,
    moved_map,
    moved_objects,
    moved_pixels,
)
from unmask.data.multi_views import MultiCrop, TwoCrops, view_of
from unmask.data.scaled_views import FittedImage, ScaleJitter, WholeImage
from unmask.data.views import (
    AugmentedCrop,
    CenterCrop,
    FixedCrop,
    JitteredCrop,
    MarginCrop,
    RandomCrop,
)
from unmask.errors import SettingsError

MAPS = ClassMaps(names=tuple("abcd"))
OBJECTS = ObjectLabels(names=tuple("abcd"), masks=True)
VIEWS = [
    RandomCrop(smallest_share=0.3),
    RandomCrop(flip_probability=1.0),
    CenterCrop(),
    MarginCrop(share=0.7),
    FixedCrop(share=0.6),
    JitteredCrop(probability=0.0),
    WholeImage(longest_side=40),
    WholeImage(longest_side=400),
    FittedImage(side="shortest"),
    ScaleJitter(least=1.8),
    ScaleJitter(least=0.5, side="shortest"),
]
WHOLES = [Size(60, 90), Size(90, 61), Size(24, 24)]


def fields(size: Size, side: int = 20) -> Tensor:
    """A chessboard of four classes, [h w], whose fields are `side` pixels."""
    rows, columns = (torch.arange(n) // side for n in size)
    return (2 * (rows[:, None] % 2) + columns[None] % 2).long()


def painted(classes: Tensor) -> Tensor:
    """The picture of a map: each class is a level of its own."""
    return (classes * 80).to(torch.uint8).expand(3, -1, -1).contiguous()


def keys(count: int = 12) -> Iterator[tuple[int, ...]]:
    return ((3, 0, index) for index in range(count))


@pytest.mark.parametrize("views", VIEWS, ids=lambda views: type(views).__name__)
@pytest.mark.parametrize("whole", WHOLES, ids=str)
def test_a_map_stays_on_its_picture(views: Placing, whole: Size) -> None:
    """Away from edges, which bicubic resizing blurs, the picture has the level of the map's class."""
    classes = fields(whole)
    looked_at = 0
    for key in keys():
        sample = Sample(painted(classes), classes)
        (picture,), shown = view_of(views, sample, MAPS, Size(32, 24), *key)  # type: ignore[arg-type]
        assert isinstance(shown, Tensor)
        assert shown.shape == picture.shape[-2:]
        assert shown.dtype == torch.long
        part, resized, *_ = views.geometry(whole, Size(32, 24), *key)
        scale = max(1.0, *(a / b for a, b in zip(resized, part.size, strict=True)))
        reach = math.ceil(2 * scale) + 1  # of the cubic kernel
        clean = torch.nn.functional.max_pool2d(_edges(shown), 2 * reach + 1, 1, reach)[0] == 0
        assert torch.equal(picture[0][clean], (shown * 80).to(torch.uint8)[clean])
        looked_at += int(clean.sum())
    assert looked_at > 40


def _edges(classes: Tensor) -> Tensor:
    """1 where a pixel differs from the one above or to its left, [1 h w]; and around the view, beyond which may be more."""
    edges = torch.zeros(1, *classes.shape)
    edges[0, [0, -1]] = edges[0, :, [0, -1]] = 1
    edges[0, 1:] += classes[1:] != classes[:-1]
    edges[0, :, 1:] += classes[:, 1:] != classes[:, :-1]
    return edges


@pytest.mark.parametrize("views", VIEWS, ids=lambda views: type(views).__name__)
def test_boxes_stay_around_their_objects(views: Placing) -> None:
    """A box in the view is the box around what is left of its mask; without masks, but for rounding to whole pixels."""
    whole, size = Size(60, 90), Size(32, 24)
    objects = rectangles(whole, [(5, 8, 40, 30), (50, 2, 88, 20), (20, 35, 70, 58), (0, 0, 90, 60)])
    for key in keys():
        sample = Sample(torch.zeros(3, *whole, dtype=torch.uint8), objects)
        (picture,), shown = view_of(views, sample, OBJECTS, size, *key)  # type: ignore[arg-type]
        assert isinstance(shown, Objects)
        assert shown.masks is not None
        assert shown.masks.dtype == torch.bool
        assert shown.masks.shape[1:] == picture.shape[-2:]
        assert len(shown.boxes) == len(shown.classes) == len(shown.masks) > 0
        around = [box_around(mask) for mask in shown.masks]
        assert shown.boxes.tolist() == around
        bare = sample._replace(annotation=objects._replace(masks=None))
        _, clipped = view_of(views, bare, OBJECTS, size, *key)  # type: ignore[arg-type]
        assert isinstance(clipped, Objects)
        for box, number in zip(around, shown.classes.tolist(), strict=True):
            (other,) = clipped.boxes[clipped.classes == number]
            assert (other - torch.tensor(box)).abs().max() <= 1, (box, other)


def test_boxes_follow_what_is_left_of_a_mask() -> None:
    """Of a triangle, a crop shows a corner that is smaller than the clipped box; each box equals a scan over pixels."""
    rows, columns = torch.arange(60)[:, None], torch.arange(90)[None]
    triangle = (columns < 60 - rows) & (rows >= 5)
    draw = random(3)
    noise = torch.rand(6, 60, 90, generator=draw) < 0.001
    masks = torch.cat([triangle[None], noise])
    objects = Objects(torch.zeros(7, 4), torch.arange(7), masks)
    for left in range(0, 60, 7):
        cut = Geometry(Box(20, left, 30, 30), Size(30, 30), Box(0, 0, 30, 30), left % 2 == 0)
        found = moved_objects(objects, Size(60, 90), cut)
        assert found.masks is not None
        assert found.boxes.tolist() == [box_around(mask) for mask in found.masks]


def rectangles(whole: Size, boxes: list[tuple[int, int, int, int]]) -> Objects:
    masks = torch.zeros(len(boxes), *whole, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return Objects(torch.tensor(boxes).float(), torch.arange(len(boxes)), masks)


def box_around(mask: Tensor) -> list[float]:
    """Left, top, right and bottom of what is set, by looking at every pixel."""
    left = top = 10**6
    right = bottom = 0
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            if mask[row, column]:
                left, top = min(left, column), min(top, row)
                right, bottom = max(right, column + 1), max(bottom, row + 1)
    return [float(left), float(top), float(right), float(bottom)]


class TestByHand:
    """Without resizing, every number can be said."""

    whole = Size(6, 8)
    cut = Geometry(
        Box(1, 2, 4, 5), Size(4, 5), Box(0, 1, 4, 3), False
    )  # rows 1 to 4, columns 3 to 5

    def test_pixels_and_map(self) -> None:
        classes = torch.arange(48).reshape(6, 8)
        expected = classes[1:5, 3:6]
        assert torch.equal(moved_map(classes, self.cut), expected)
        assert torch.equal(moved_pixels(classes.byte()[None], self.cut)[0], expected.byte())
        mirrored = self.cut._replace(mirrored=True)
        assert torch.equal(moved_map(classes, mirrored), expected.flip(1))
        assert torch.equal(moved_pixels(classes.byte()[None], mirrored)[0], expected.byte().flip(1))

    def test_boxes_are_shifted_clipped_and_mirrored(self) -> None:
        boxes = torch.tensor([[3.5, 1.5, 5.0, 3.0], [0.0, 0.0, 8.0, 6.0], [4.0, 4.0, 9.0, 5.5]])
        objects = Objects(boxes, torch.tensor([7, 8, 9]))
        found = moved_objects(objects, self.whole, self.cut)
        assert found.boxes.tolist() == [[0.5, 0.5, 2.0, 2.0], [0, 0, 3, 4], [1, 3, 3, 4]]
        assert found.classes.tolist() == [7, 8, 9]
        assert found.masks is None
        assert type(found.boxes) is Tensor
        mirrored = moved_objects(objects, self.whole, self.cut._replace(mirrored=True))
        assert mirrored.boxes.tolist() == [[1.0, 0.5, 2.5, 2.0], [0, 0, 3, 4], [0, 3, 2, 4]]

    def test_objects_outside_are_left_out(self) -> None:
        boxes = torch.tensor([[0.0, 0.0, 3.0, 6.0], [6.0, 0.0, 8.0, 6.0], [3.0, 0.0, 4.0, 2.0]])
        found = moved_objects(Objects(boxes, torch.tensor([1, 2, 3])), self.whole, self.cut)
        assert found.classes.tolist() == [3]
        assert found.boxes.tolist() == [[0, 0, 1, 1]]

    def test_an_object_without_a_pixel_left_is_left_out(self) -> None:
        """Its box reaches into the view, its mask does not."""
        masks = torch.zeros(2, 6, 8, dtype=torch.bool)
        masks[0, 0, 0] = masks[1, 2, 4] = True
        objects = Objects(torch.tensor([[0.0, 0, 8, 6]] * 2), torch.tensor([1, 2]), masks)
        found = moved_objects(objects, self.whole, self.cut)
        assert found.classes.tolist() == [2]
        assert found.masks is not None
        assert found.masks.nonzero().tolist() == [[0, 1, 1]]

    def test_no_objects(self) -> None:
        for masks in (None, torch.zeros(0, 6, 8, dtype=torch.bool)):
            objects = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), masks)
            found = moved_objects(objects, self.whole, self.cut)
            assert found.boxes.shape == (0, 4)
            assert masks is None or found.masks.shape == (0, 4, 3)

    def test_enlarged_threefold(self) -> None:
        classes = torch.tensor([[1, 2], [3, 4]])
        geometry = Geometry(Box(0, 0, 2, 2), Size(6, 6), Box(0, 0, 6, 6), False)
        expected = classes.repeat_interleave(3, 0).repeat_interleave(3, 1)
        assert torch.equal(moved_map(classes, geometry), expected)
        boxes = moved_objects(
            Objects(torch.tensor([[1.0, 0, 2, 2]]), torch.tensor([0])), Size(2, 2), geometry
        ).boxes
        assert boxes.tolist() == [[3, 0, 6, 6]]

    def test_nothing_known_of_an_image(self) -> None:
        assert moved(None, self.whole, self.cut) is None

    def test_classes_above_255_survive(self) -> None:
        geometry = Geometry(Box(0, 0, 2, 2), Size(4, 4), Box(0, 0, 4, 4), False)
        assert moved_map(torch.full((2, 2), 70_000), geometry).unique().tolist() == [70_000]


def test_a_smaller_map_takes_the_pixel_in_the_middle() -> None:
    classes = torch.arange(9)[None].repeat(9, 1)
    geometry = Geometry(Box(0, 0, 9, 9), Size(3, 3), Box(0, 0, 3, 3), False)
    assert moved_map(classes, geometry)[0].tolist() == [1, 4, 7]


@pytest.mark.parametrize("size", [Size(16, 16), Size(20, 31), Size(230, 240)], ids=str)
def test_views_are_those_that_torchvision_makes(size: Size) -> None:
    """Resize and centre crop by torchvision's own functions, bit for bit."""
    image = torch.randint(256, (3, 45, 70), generator=random(1), dtype=torch.uint8)

    def covering(target: Size) -> Tensor:
        scale = max(target.height / 45, target.width / 70)
        sides = [max(target.height, round(45 * scale)), max(target.width, round(70 * scale))]
        return F.resize(image, sides, F.InterpolationMode.BICUBIC, antialias=True)

    expected = F.center_crop(covering(size), list(size))
    assert torch.equal(CenterCrop()(image, size)[0], expected)
    around = size if min(size) > 224 else Size(*(int(side / 0.875) for side in size))
    assert torch.equal(MarginCrop()(image, size)[0], F.center_crop(covering(around), list(size)))


class TestLongPictures:
    """Of a picture of 1 x 600,000 pixels, only the part that is shown is resized."""

    @pytest.mark.parametrize("views", [CenterCrop(), MarginCrop(), FixedCrop()])
    @pytest.mark.parametrize("whole", [Size(1, 600_000), Size(600_000, 1), Size(2, 50_000)])
    def test_little_is_resized(self, views: CenterCrop, whole: Size) -> None:
        image = torch.arange(whole.height * whole.width).reshape(1, *whole).to(torch.uint8)
        geometry = views.geometry(whole, Size(32, 32), 0, 0, 0)
        assert geometry.resized.height * geometry.resized.width < 100 * 32 * 32
        assert views(image, Size(32, 32), 0, 0, 0)[0].shape == (1, 32, 32)

    @pytest.mark.parametrize("shape", [(4, 1000), (1000, 4)])
    def test_the_view_is_that_of_the_whole(
        self, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow = (torch.arange(1000) / 100).sin() * 100 + 128
        image = slow.reshape(1, 1, -1).expand(1, 4, -1).to(torch.uint8)
        image = image if shape[0] == 4 else image.transpose(1, 2)
        short = CenterCrop()(image, Size(16, 16))[0].float()
        monkeypatch.setattr(module, "_LONG", math.inf)
        assert CenterCrop().geometry(Size(*shape), Size(16, 16)).resized != Size(16, 16)
        torch.testing.assert_close(
            short, CenterCrop()(image, Size(16, 16))[0].float(), atol=1.5, rtol=0
        )

    def test_ordinary_pictures_keep_their_geometry(self) -> None:
        geometry = CenterCrop().geometry(Size(100, 3000), Size(32, 32))
        assert geometry == Geometry(Box(0, 0, 100, 3000), Size(32, 960), Box(0, 464, 32, 32), False)


def test_geometry_may_be_asked_twice() -> None:
    for views in (RandomCrop(), FixedCrop()):
        found = [views.geometry(Size(50, 40), Size(8, 8), 1, 2, 3) for _ in range(2)]
        assert found[0] == found[1] != views.geometry(Size(50, 40), Size(8, 8), 1, 2, 4)


@pytest.mark.parametrize("views", [AugmentedCrop(), MultiCrop(), TwoCrops()])
def test_views_that_annotations_cannot_follow(views: AugmentedCrop) -> None:
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    whole = Size(96, 96)
    for kind, annotation in ((MAPS, fields(Size(40, 40))), (OBJECTS, rectangles(whole, []))):
        assert is_dense(kind)
        with pytest.raises(
            SettingsError,
            match=r"cannot follow views:\w+-crops?, .* choose one of random-crop, .*whole-image",
        ):
            view_of(views, Sample(image, annotation), kind, whole, 0)
    label = Sample(image, torch.tensor(2))
    assert view_of(views, label, ClassLabels(names=("a",)), whole, 0)[1] == 2


class TestWholeImage:
    @pytest.mark.parametrize(
        ("whole", "shown"),
        [
            ((400, 300), (200, 150)),
            ((300, 401), (150, 200)),
            ((90, 20), (90, 20)),
            ((1000, 2), (200, 1)),
        ],
    )
    def test_keeps_proportions_and_enlarges_nothing(
        self, whole: tuple[int, int], shown: tuple[int, int]
    ) -> None:
        image = torch.zeros(1, *whole, dtype=torch.uint8)
        (view,) = WholeImage(longest_side=200)(image, Size(8, 8), 1)
        assert view.shape == (1, *shown)

    def test_a_small_image_is_shown_as_it_is(self) -> None:
        image = torch.from_numpy(np.arange(60, dtype=np.uint8).reshape(1, 6, 10))
        assert torch.equal(WholeImage()(image, Size(4, 4))[0], image)

    def test_no_pixels(self) -> None:
        with pytest.raises(SettingsError, match="longest_side must be at least 1, got 0"):
            WholeImage(longest_side=0)
