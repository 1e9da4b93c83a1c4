"""Masks are drawn for the whole step, so that parts of it get the rows they would get alone."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from unmask.contracts import Masking, Part, Size
from unmask.masking import BlockMasking, PartitionMasking, RandomMasking, count_visible, draw_masks
from unmask.masks import PatchMask
from unmask.patches import patchify
from unmask.traits import LooksAtImages

GRID = Size(4, 4)


@dataclass(frozen=True, kw_only=True)
class DarkestMasking:
    """Hide the darkest half of the patches; noise decides between equal ones."""

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        return RandomMasking(ratio=0.5).sample(batch, grid, generator)

    def sample_of(self, images: Tensor, grid: Size, generator: torch.Generator) -> PatchMask:
        brightness = patchify(images, images.shape[-1] // grid.width).float().mean(-1)
        noise = torch.rand(brightness.shape, generator=generator)
        kept = brightness.shape[1] // 2
        order = (noise - brightness).argsort(dim=1)
        return PatchMask.in_order(torch.arange(len(images)), order, kept)


def images(count: int = 6) -> Tensor:
    random = torch.Generator().manual_seed(3)
    return torch.randint(0, 2, (count, 3, 8, 8), generator=random, dtype=torch.uint8)


def draw(masking: Masking, pixels: Tensor, part: Part | None, masks: int) -> PatchMask:
    generator = torch.Generator().manual_seed(5)
    return draw_masks(masking, pixels, GRID, generator, part=part, masks_per_image=masks)


@pytest.mark.parametrize("masks", [1, 3])
@pytest.mark.parametrize(
    "masking",
    [RandomMasking(), BlockMasking(), PartitionMasking(masks=2, ratio=0.5), DarkestMasking()],
    ids=lambda masking: type(masking).__name__,
)
def test_a_part_of_a_step_gets_its_rows(masking: Masking, masks: int) -> None:
    pixels = images()
    whole = draw(masking, pixels, None, masks)
    per_image = len(whole.image) // 6
    assert per_image == masks * (2 if isinstance(masking, PartitionMasking) else 1)
    assert whole.image.tolist() == [i for i in range(6) for _ in range(per_image)]
    rows = torch.tensor([4, 1])
    part = draw(masking, pixels[rows], Part(rows, 6), masks)
    assert part.image.tolist() == [i for i in range(2) for _ in range(per_image)]
    mask_rows = torch.cat([torch.arange(row * per_image, (row + 1) * per_image) for row in rows])
    for ours, theirs in zip(part[1:], whole[1:], strict=True):
        assert ours.equal(theirs[mask_rows])


def test_a_masking_that_looks_at_images_sees_them() -> None:
    masking = DarkestMasking()
    assert isinstance(masking, LooksAtImages)
    assert not isinstance(RandomMasking(), LooksAtImages)
    pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    pixels[0, :, :4], pixels[1, :, 4:] = 200, 200  # the upper half is bright, then the lower
    removed = draw(masking, pixels, None, 1).removed.view(2, 4, 4)
    assert removed[0, 2:].all()
    assert not removed[0, :2].any()
    assert removed[1, :2].all()
    assert not removed[1, 2:].any()


def test_patches_that_stay_visible_are_counted() -> None:
    assert count_visible(RandomMasking(ratio=0.75), GRID) == 4
    assert count_visible(DarkestMasking(), GRID) == 8
