"""What a reconstruction is measured against: interpolation, and the nearest training image."""

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ImageColor
from torch import Tensor

from unmask.annotations import Unlabelled
from unmask.channels import IMAGENET
from unmask.contracts import Sample, Size
from unmask.errors import DataError
from unmask.masks import PatchMask
from unmask.patches import pixels_of
from unmask.pictures.sheet import BETTER, HIDDEN_COLOR, TEXT_COLOR, WORSE
from unmask.runs import reconstruct as module
from unmask.runs.reconstruct import (
    HEADINGS,
    Reconstruction,
    fitted_size,
    interpolated,
    nearest_errors,
    painted_mask,
    standing_in_words,
)


def ramp(height: int = 8, width: int = 10) -> Tensor:
    """Three planes, linear in row and column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows * 0.05 + columns * 0.02, columns * 0.09, 1 - rows * 0.1]).float()


def block(height: int, width: int, top: int, bottom: int, left: int, right: int) -> Tensor:
    hidden = torch.zeros(height, width, dtype=torch.bool)
    hidden[top:bottom, left:right] = True
    return hidden


class TestInterpolation:
    @pytest.mark.parametrize("area", [(2, 6, 2, 8), (1, 7, 1, 9), (0, 1, 3, 5)])
    def test_exact_on_a_ramp(self, area: tuple[int, int, int, int]) -> None:
        image, hidden = ramp(), block(8, 10, *area)
        broken = image.masked_fill(hidden, float("nan"))
        result = interpolated(broken, hidden)
        torch.testing.assert_close(result, image, atol=1e-6, rtol=0)  # one float32 rounding

    def test_visible_pixels_stay(self) -> None:
        image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
        hidden = block(8, 8, 0, 4, 2, 8)
        result = interpolated(image, hidden)
        assert result[:, ~hidden].equal(image[:, ~hidden])
        assert not result[:, hidden].equal(image[:, hidden])

    def test_beyond_the_visible_the_nearest_counts(self) -> None:
        image, hidden = ramp(), block(8, 10, 0, 8, 5, 10)
        result = interpolated(image, hidden)
        expected = image[:, :, 4:5].expand(-1, -1, 5)
        torch.testing.assert_close(result[:, :, 5:], expected, atol=1e-6, rtol=0)

    def test_all_visible_pixels_on_a_line(self) -> None:
        image, hidden = ramp(), block(8, 10, 1, 8, 0, 10)
        result = interpolated(image, hidden)
        expected = image[:, :1].expand(-1, 8, -1)
        torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


def rebuilt_with(error: float, interpolation: float) -> Reconstruction:
    """Pictures of one level each, with these errors."""
    masked, rebuilt, pasted, filled, original = (
        torch.full((3, 40, 40), level) for level in (0.5, 0.9, 0.2, 0.4, 0.6)
    )
    hidden = torch.zeros(40, 40, dtype=torch.bool)
    hidden[:, 20:] = True
    forms = (masked, rebuilt, pasted, filled, original)
    return Reconstruction(*forms, hidden, error, interpolation, IMAGENET)


class TestPicture:
    @pytest.mark.parametrize(
        ("errors", "words", "color", "others"),
        [
            ((12.31, 20.0), "error 12.3 of 255, interpolation 20.0 (model ahead)", BETTER, {WORSE}),
            (
                (20.0, 12.31),
                "error 20.0 of 255, interpolation 12.3 (model behind)",
                WORSE,
                {BETTER},
            ),
            (
                (7.04, 6.96),
                "error 7.0 of 255, interpolation 7.0 (equal)",
                TEXT_COLOR,
                {BETTER, WORSE},
            ),
            ((7.0, math.nan), "error 7.0 of 255, interpolation nan", TEXT_COLOR, {BETTER, WORSE}),
            (
                (math.nan, 7.0),
                "the target has no pixel values, so there is no error",
                TEXT_COLOR,
                {BETTER, WORSE},
            ),
        ],
    )
    def test_figures_say_by_word_and_colour_who_is_ahead(
        self, errors: tuple[float, float], words: str, color: str, others: set[str]
    ) -> None:
        result = rebuilt_with(*errors)
        assert "".join(part.text for part in result.caption()) == words
        drawn = {tuple(pixel) for pixel in np.asarray(result.picture()).reshape(-1, 3).tolist()}
        assert ImageColor.getrgb(color) in drawn
        assert not {ImageColor.getrgb(other) for other in others} & drawn

    def test_columns_are_what_the_headings_say(self) -> None:
        page = np.asarray(rebuilt_with(1.0, 2.0).picture())
        middle = page[150]  # a line of pixels through the pictures
        shown = [level for level, _ in groupby(middle[:, 0].tolist()) if level != 255]
        tint = ImageColor.getrgb(HIDDEN_COLOR)[0]
        # what is visible and what is hidden, pasted, interpolated, original
        assert shown == [153, tint, 51, 102, 153]
        assert len(HEADINGS) == 4

    def test_a_summary_counts_rows_and_averages_errors(self) -> None:
        rows = [rebuilt_with(10, 20), rebuilt_with(30, 20), rebuilt_with(math.nan, 5)]
        assert standing_in_words(rows) == (
            "ahead of interpolation in 1 of 2 images; mean error 20.0, interpolation 20.0"
        )
        assert standing_in_words(rows[2:]) == ""


def test_hidden_pixels_of_a_mask() -> None:
    mask = PatchMask.of(torch.tensor([[True, False, False, False, False, True]]))
    hidden = pixels_of(mask.removed, 2, Size(2, 3))
    assert hidden[0].int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1, 1],
    ]


@dataclass
class Shelf:
    """Images in memory; None cannot be decoded."""

    images: list[Tensor | None]
    where: str = "memory"
    smallest_side: int = 8
    in_memory: bool = True
    channels: int = 3
    values: str = "uint8"
    annotations = Unlabelled()
    fingerprint: str = ""
    state: str = ""
    refused: list[tuple[str, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Sample:
        image = self.images[position]
        if image is None:
            raise DataError("damaged")
        return Sample(image, None)

    def name(self, position: int) -> str:
        return f"image {position}"

    def labels(self) -> NDArray[np.int64]:
        return np.full(len(self), -1)

    def typical_size(self) -> Size:
        return Size(8, 8)


def noise(seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(256, (3, 8, 8), generator=random, dtype=torch.uint8)


UPPER_HALF = painted_mask(block(8, 8, 0, 4, 0, 8), Size(4, 4))


class TestNearest:
    def test_finds_a_planted_near_duplicate_and_not_the_image_itself(self) -> None:
        asked = noise(0)
        planted = asked.clone()
        planted[:, 7, 7] ^= 1  # visible: nearly nothing
        planted[:, :4] = asked[:, :4].clamp(max=245) + 10  # hidden: about ten levels off
        images = [*(noise(n) for n in range(1, 9)), planted, asked]
        ((error, name),), looked = nearest_errors(Shelf(images), 2, IMAGENET, [(asked, UPPER_HALF)])
        assert (name, looked) == ("image 8", 10)
        off = (planted.float() - asked.float())[:, :4].square().mean().sqrt().item()
        assert error == pytest.approx(off, rel=1e-5)

    def test_hidden_pixels_do_not_choose(self) -> None:
        """The one with equal visible pixels wins, however far its hidden ones are."""
        asked = noise(0)
        far, near = asked.clone(), asked.clone()
        far[:, :4] = 255 - far[:, :4]
        near[:, 4:] = near[:, 4:] ^ 3
        ((error, name),), _ = nearest_errors(Shelf([near, far]), 2, IMAGENET, [(asked, UPPER_HALF)])
        assert name == "image 1"
        assert error > 100

    def test_each_question_has_its_own_answer(self) -> None:
        first, second = noise(1), noise(2)
        shelf = Shelf([noise(3), first ^ 1, second ^ 1, None])
        answers, looked = nearest_errors(
            shelf, 2, IMAGENET, [(second, UPPER_HALF), (first, UPPER_HALF)]
        )
        assert [name for _, name in answers] == ["image 2", "image 1"]
        assert [error for error, _ in answers] == [1.0, 1.0]
        assert looked == 3

    def test_only_so_many_are_looked_through(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_MOST_IMAGES", 5)
        shelf = Shelf([noise(n) for n in range(50)])
        _, looked = nearest_errors(shelf, 2, IMAGENET, [(noise(99), UPPER_HALF)])
        assert looked == 5


@pytest.mark.parametrize(
    ("image", "fitted"),
    [
        (Size(224, 224), Size(224, 224)),
        (Size(480, 640), Size(192, 256)),  # 194 x 259 at 50,176 pixels
        (Size(640, 480), Size(256, 192)),
        (Size(10, 1000), Size(16, 2240)),  # a side never vanishes
        (Size(1, 600_000), Size(16, 392 * 16)),  # at most two times 196 patches
    ],
)
def test_size_that_keeps_proportions(image: Size, fitted: Size) -> None:
    assert fitted_size(image, Size(224, 224), 16) == fitted
