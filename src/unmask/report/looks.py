"""Eight images of a run, rebuilt after some of its steps: a strip of pictures for each, in the folder `looks`.

They are taken when training checks the embedding anyway, and from a copy of the model, so they change nothing.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from unmask.contracts import ImageSource
from unmask.data.in_order import WHOLE_IMAGE, in_order
from unmask.data.labelled import Subset
from unmask.files import write_whole
from unmask.formats.model import Weights, split
from unmask.masking import draw_masks
from unmask.masks import PatchMask
from unmask.pictures.sheet import HIDDEN_COLOR, enlarged, save_sheet, to_rgb
from unmask.randomness import generator, seeded
from unmask.recipes import Recipe
from unmask.runs.collapse import look_steps
from unmask.runs.folder import RunFolder
from unmask.runs.reconstruct import rebuild
from unmask.runs.run import Run
from unmask.traits import Masked, Reconstructing

_IMAGES = 8
_MOST = 10
"""Strips that are kept, besides the two of what the encoder sees and of the originals."""

_SMALLEST_SIDE, _LARGEST_SIDE, _GAP = 64, 128, 4  # pixels of a picture

_CLEAR = "#00000000"
"""Colour of missing values."""

HIDDEN, ORIGINAL = "hidden", "original"
"""Names of the strips that do not depend on the step."""


class Looks:
    """Rebuilds the same images, with the same masks, after each tenth of a run, or less often in a short one."""

    def __init__(self, run: Run, folder: RunFolder, source: ImageSource) -> None:
        self._run, self._folder, self._source = run, folder, source
        self._steps = look_steps(run, run.recipe.image_size)
        self._asked: list[tuple[Tensor, PatchMask]] | None = None

    def due(self, step: int) -> bool:
        """Whether to take a look after this step."""
        return step in self._steps

    def take(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Rebuild the images with the weights of a pretraining module after a step, and write the strip."""
        self._folder.looks.mkdir(exist_ok=True)
        with seeded("report"), torch.inference_mode():
            objective = self._copy(tensors)
            if self._asked is None:
                self._asked = self._questions(objective)
            pictures = [rebuild(objective, *asked, "neighbors") for asked in self._asked]
        first = not strip_path(self._folder, ORIGINAL).exists()
        self._write(
            step, [torch.where(removed, guess, truth) for guess, truth, removed in pictures]
        )
        if first:
            visible = [torch.where(removed, torch.nan, truth) for _, truth, removed in pictures]
            self._write(HIDDEN, visible, HIDDEN_COLOR)
            self._write(ORIGINAL, [truth for _, truth, _ in pictures])
        _thin(self._folder)

    def forget_after(self, step: int) -> None:
        """Delete the strips past a checkpoint, from which the run continues."""
        for later in steps_looked_at(self._folder):
            if later > step:
                strip_path(self._folder, later).unlink()

    def _copy(self, tensors: dict[str, Tensor]) -> Reconstructing:
        """The objective with these weights, not compiled, so that nothing that training uses is touched."""
        weights = Weights(self._run.model, *split(tensors))
        module = weights.build_objective().to(self._run.hardware.device).eval()
        assert isinstance(module, Reconstructing)
        return module

    def _questions(self, objective: Reconstructing) -> list[tuple[Tensor, PatchMask]]:
        """The images on the device and what is hidden of each; both follow from the run alone."""
        run, recipe = self._run, self._run.recipe
        assert isinstance(recipe, Recipe)
        rows = np.linspace(0, len(self._source) - 1, min(_IMAGES, len(self._source)))
        images = Subset(self._source, np.unique(rows.astype(np.int64)))
        (batch,) = in_order(
            images, WHOLE_IMAGE, recipe.image_size, run.statistics, [], batch_size=_IMAGES
        )
        pixels = batch.images.to(run.hardware.device)
        grid = objective.grid_of(pixels)
        drawn = [
            draw_masks(
                objective.masking, one[None], grid, generator(one.device, "report", run.seed, place)
            )
            for place, one in enumerate(pixels)
        ]
        # a masking may draw several masks of an image
        masks = [PatchMask(*(part[:1] for part in masks)) for masks in drawn]
        return list(zip(pixels, masks, strict=True))

    def _write(
        self, name: int | str, pictures: list[Float[Tensor, "c h w"]], unknown: str = _CLEAR
    ) -> None:
        """Write a strip; pixels that are NaN get the colour `unknown`."""
        stretched = [self._run.statistics.stretched(picture.cpu()) for picture in pictures]
        strip = _side_by_side([_tile(picture, unknown) for picture in stretched])
        write_whole(strip_path(self._folder, name), lambda path: save_sheet(strip, path))


def are_possible(run: Run, module: nn.Module) -> bool:
    """Whether the run rebuilds what it hides, so that there is something to see."""
    recipe = run.recipe
    return (
        isinstance(recipe, Recipe)
        and isinstance(recipe.objective, Masked)
        and isinstance(module, Reconstructing)
    )


class Strip(NamedTuple):
    """A strip of pictures in the folder of a run."""

    caption: str
    path: Path


def strips(folder: RunFolder) -> list[Strip]:
    """What the encoder sees, the images as rebuilt after some steps, and the originals; none if there were no looks."""
    steps = [Strip(f"step {step:,}", strip_path(folder, step)) for step in steps_looked_at(folder)]
    if not steps:
        return []
    hidden = Strip("what the encoder sees", strip_path(folder, HIDDEN))
    return [hidden, *steps, Strip("original", strip_path(folder, ORIGINAL))]


def steps_looked_at(folder: RunFolder) -> list[int]:
    """The steps of the strips in a folder."""
    names = [path.stem for path in folder.looks.glob("*.png")]
    return sorted(int(name) for name in names if name.isdecimal())


def strip_path(folder: RunFolder, name: int | str) -> Path:
    """The file of a strip."""
    return folder.looks / f"{name}.png"


def _thin(folder: RunFolder) -> None:
    """Delete strips until ten are left, spread evenly; first and last stay."""
    steps = steps_looked_at(folder)
    kept = {steps[round(place)] for place in np.linspace(0, len(steps) - 1, min(_MOST, len(steps)))}
    for step in set(steps) - kept:
        strip_path(folder, step).unlink()


def _tile(picture: Float[Tensor, "c h w"], unknown: str) -> Image.Image:
    """A picture of 64 to 128 pixels a side, as far as its proportions allow; NaN gets the colour `unknown`."""
    known = ~picture[:3].isnan().any(0)
    covered = Image.fromarray((known * 255).to(torch.uint8).numpy())
    tile = Image.new("RGBA", covered.size, unknown)
    tile.paste(to_rgb(picture), mask=covered)
    if max(tile.size) <= _SMALLEST_SIDE:
        tile = enlarged(tile, _SMALLEST_SIDE)
    tile.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return tile


def _side_by_side(tiles: list[Image.Image]) -> Image.Image:
    width = sum(tile.width for tile in tiles) + _GAP * (len(tiles) - 1)
    strip = Image.new("RGBA", (width, max(tile.height for tile in tiles)))
    left = 0
    for tile in tiles:
        strip.paste(tile, (left, 0))
        left += tile.width + _GAP
    return strip
