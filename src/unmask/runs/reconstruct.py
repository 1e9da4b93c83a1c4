"""Hide parts of an image, rebuild them, and compare the error with simple baselines."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource, Masking, Size
from unmask.data.statistics import read_as
from unmask.data.views import center_crop
from unmask.errors import DataError, SettingsError
from unmask.masking import AnyMasking, draw_masks
from unmask.masks import PatchMask
from unmask.patches import denormalize, patchify, pixels_of, size_of, unpatchify
from unmask.pictures.sheet import (
    BETTER,
    TEXT_COLOR,
    WORSE,
    Inked,
    Row,
    save_sheet,
    sheet,
    with_hidden,
)
from unmask.randomness import generator
from unmask.targets.pixels import Levels
from unmask.traits import Reconstructing

_MOST_IMAGES = 2_000  # training images to compare with


Standing = Literal["ahead", "behind", "equal"]
"""How a model compares with interpolation."""

_COLORS: dict[Standing, str] = {"ahead": BETTER, "behind": WORSE, "equal": TEXT_COLOR}


class Reconstruction(NamedTuple):
    """An image, what is hidden of it, and what the model and interpolation make of that, each [c h w].

    uint8 images are scaled to 0 to 1; others keep their own units, with NaN for missing values.
    """

    masked: Tensor
    rebuilt: Tensor
    """The decoder's output at all patches; it was not trained on the visible ones."""
    pasted: Tensor
    """The output at hidden patches, the input at visible ones."""
    interpolated: Tensor
    """Linear interpolation from the visible patches at hidden ones, the input at visible ones."""
    original: Tensor
    hidden: Tensor
    """True at hidden pixels [h w]."""
    error: float
    """Root mean square error on the hidden pixels, in levels of 255 of each channel's range; NaN if the target
    has no pixel values."""
    interpolation_error: float
    """The error of `interpolated`."""
    statistics: ChannelStatistics
    """What is black and what is white in each channel, for pictures."""

    def picture(self, bands: tuple[int, ...] | None = None) -> Image.Image:
        """The image masked, rebuilt, interpolated and as it was, with the errors below; small pictures are enlarged.

        `bands` are the channels to show, counted from 0: three as red, green and blue, or one as grey; the first ones if
        not given.
        """
        return sheet(HEADINGS, [Row(self.versions(bands), self.caption())], [], shrinks=True)

    def versions(self, bands: tuple[int, ...] | None = None) -> list[Tensor]:
        """The forms [c h w] under `HEADINGS`, scaled for display from 0 to 1, NaN for missing values; see `picture`."""
        chosen = list(bands) if bands else slice(None)
        masked, *others = (
            self.statistics.stretched(pixels)[chosen]
            for pixels in (self.original, self.pasted, self.interpolated, self.original)
        )
        return [with_hidden(masked, self.hidden), *others]

    def show(self) -> None:
        """Open the picture in the system's viewer; in a notebook, the result as the last line of a cell shows it too."""
        self.picture().show()

    def save(self, path: str | Path) -> Path:
        """Write the picture to a file; its ending says the format, such as .png.

        Raises:
            SettingsError: if the ending is not that of a picture, or the file cannot be written.
        """
        path = Path(path).expanduser()
        try:
            save_sheet(self.picture(), path)
        except ValueError:
            raise SettingsError(f"{path} has no ending of a picture; use .png") from None
        except OSError as error:
            raise SettingsError(f"{path} cannot be written ({error.strerror or error})") from None
        return path

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        file = io.BytesIO()
        self.picture().save(file, "PNG")
        return file.getvalue()

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.original.shape[-2:]))
        caption = "".join(part.text for part in self.caption())
        return f"Reconstruction of {size} pixels: {caption}; .show() or .save('sheet.png')"

    @property
    def standing(self) -> Standing | None:
        """Whether the model is ahead of interpolation, by the errors as they are printed; None without an error."""
        ours, other = round(self.error, 1), round(self.interpolation_error, 1)
        if math.isnan(ours) or math.isnan(other):
            return None
        return "ahead" if ours < other else "behind" if ours > other else "equal"

    def caption(self) -> list[Inked]:
        """Both errors, green where the model is ahead of interpolation and red where it is behind."""
        if math.isnan(self.error):
            return [Inked("the target has no pixel values, so there is no error")]
        text = f"error {self.error:.1f} of 255, interpolation {self.interpolation_error:.1f}"
        if self.standing is None:  # there was nothing to interpolate
            return [Inked(text)]
        model = "equal" if self.standing == "equal" else f"model {self.standing}"
        return [Inked(f"{text} ({model})", _COLORS[self.standing])]


HEADINGS = ["masked", "rebuilt, visible patches pasted", "interpolation", "original"]
"""What stands above the forms of a `Reconstruction` in a picture."""


def standing_in_words(results: Sequence[Reconstruction]) -> str:
    """How often the model is ahead of interpolation, and both mean errors; "" if no image has them."""
    scored = [one for one in results if one.standing is not None]
    if not scored:
        return ""
    ahead = sum(one.standing == "ahead" for one in scored)
    ours, other = (
        sum(errors) / len(scored)
        for errors in zip(*((one.error, one.interpolation_error) for one in scored), strict=True)
    )
    return f"ahead of interpolation in {ahead} of {len(scored)} images; mean error {ours:.1f}, interpolation {other:.1f}"


@torch.inference_mode()
def reconstruct(
    objective: Reconstructing,
    image: Shaped[Tensor, "c h w"],
    mask: PatchMask,
    levels: Levels,
    statistics: ChannelStatistics,
) -> Reconstruction:
    """Rebuild the hidden patches of one image."""
    rebuilt, original, hidden = rebuild(objective, image, mask, levels)
    middle = (torch.tensor(statistics.low) + torch.tensor(statistics.high)) / 2
    truth = statistics.stretched(original)
    filled = interpolated(original, hidden)
    error = _levels_off(statistics.stretched(rebuilt), truth, hidden)
    return Reconstruction(
        masked=torch.where(hidden, middle.to(original)[:, None, None], original),
        rebuilt=rebuilt,
        pasted=torch.where(hidden, rebuilt, original),
        interpolated=filled,
        original=original,
        hidden=hidden,
        error=error if objective.target.gives_levels else math.nan,
        interpolation_error=_levels_off(statistics.stretched(filled), truth, hidden),
        statistics=statistics,
    )


def rebuild(
    objective: Reconstructing, image: Shaped[Tensor, "c h w"], mask: PatchMask, levels: Levels
) -> tuple[Float[Tensor, "c h w"], Float[Tensor, "c h w"], Bool[Tensor, "h w"]]:
    """The decoder's output at all patches, the image in the same units, and which pixels are hidden."""
    images, moments = image[None], objective.encoder.statistics
    output = objective.predict_all(images, mask)
    output = objective.target.pixels(output, images, mask, moments, levels)
    patch_size, grid = objective.encoder.patch_size, objective.grid_of(images)
    hidden = pixels_of(mask.removed, patch_size, grid)[0]
    rebuilt = unpatchify(denormalize(output, moments), patch_size, grid)[0]
    original = image.float()
    if image.dtype == torch.uint8:
        rebuilt, original = rebuilt.clamp(0, 1), original / 255
    return rebuilt, original, hidden


def _levels_off(guess: Tensor, truth: Tensor, hidden: Bool[Tensor, "h w"]) -> float:
    """Root mean square error on the known hidden pixels, in levels of 255."""
    return float((guess - truth)[:, hidden].square().nanmean().sqrt() * 255)


def interpolated(
    image: Float[Tensor, "c h w"], hidden: Bool[Tensor, "h w"]
) -> Float[Tensor, "c h w"]:
    """Fill hidden pixels by linear interpolation between visible ones; outside of them, by the nearest one.

    Pixels with missing values are not used; if all are missing, the result is NaN.
    """
    from scipy.interpolate import griddata
    from scipy.spatial import QhullError

    visible = ~hidden & ~image.isnan().any(0)
    if not bool(visible.any()):
        return image.masked_fill(hidden, math.nan)
    values = image[:, visible].T.cpu().numpy()
    known, unknown = visible.nonzero().cpu().numpy(), hidden.nonzero().cpu().numpy()
    filled = griddata(known, values, unknown, method="nearest")
    try:
        linear = griddata(known, values, unknown, method="linear")
        filled = np.where(np.isnan(linear), filled, linear)
    except QhullError:  # all visible pixels lie on one line
        pass
    result = image.clone()
    result[:, hidden] = torch.from_numpy(filled.T).to(result)
    return result


def nearest_errors(
    source: ImageSource,
    patch_size: int,
    statistics: ChannelStatistics,
    questions: list[tuple[Tensor, PatchMask]],
) -> tuple[list[tuple[float, str] | None], int]:
    """For each (image, mask): the training image nearest on the visible patches, and its error on the hidden ones.

    A model that only memorised its training images would be no better than this. At most 2,000 evenly spaced
    images are compared; the image itself is excluded. Returns (error in levels of 255, name) for each pair (None if
    there is no other image), and the number of images compared.
    """
    source = read_as(source, statistics)
    positions = np.unique(np.linspace(0, len(source) - 1, _MOST_IMAGES).astype(int))
    best = [(math.inf, 0.0, "")] * len(questions)
    compared = 0
    for position in positions:
        try:
            image = statistics.in_units(source[int(position)].image)
        except DataError:
            continue
        compared += 1
        for number, (target, mask) in enumerate(questions):
            candidate, wanted = (
                patchify(255 * statistics.stretched(pixels)[None], patch_size)
                for pixels in (center_crop(image, size_of(target[None])), target.cpu())
            )
            off = (candidate - wanted).square().nanmean(-1)[0]  # [n]
            visible = float(off[mask.kept_index[0].cpu()].nanmean())
            itself = not bool(off.nan_to_num().any())
            if visible < best[number][0] and not itself:
                hidden = float(off[mask.removed_index[0].cpu()].nanmean().sqrt())
                best[number] = (visible, hidden, source.name(int(position)))
    return [(hidden, name) if name else None for _, hidden, name in best], compared


def fitted_size(image: Size, trained: Size, patch_size: int) -> Size:
    """The size, in multiples of the patch size, with the image's aspect ratio and about the training area.

    A picture so long that a row of patches has more than twice that area loses its ends.
    """
    area = trained.height * trained.width
    scale = (area / (image.height * image.width)) ** 0.5
    height, width = (max(1, round(side * scale / patch_size)) for side in image)
    most = max(1, 2 * area // patch_size**2)
    return Size(min(height, most) * patch_size, min(width, most) * patch_size)


def mask_of(
    objective: Reconstructing,
    pixels: Shaped[Tensor, "c h w"],
    mask: PatchMask | AnyMasking | NDArray[Any] | Tensor | None,
    seed: int,
) -> PatchMask:
    """The mask for one image: drawn by a masking, or that of the objective, from an array, or `mask` itself.

    Raises:
        SettingsError: if it is something else.
    """
    if isinstance(mask, PatchMask):
        return mask
    grid = objective.grid_of(pixels[None])
    if isinstance(mask, np.ndarray | Tensor):
        return PatchMask(*(part.to(pixels.device) for part in painted_mask(mask, grid)))
    masking = objective.masking if mask is None else mask
    if not isinstance(masking, Masking):
        raise SettingsError(
            "a mask is an array or tensor that is True where something is hidden ([h w], [rows columns] or [n]), or a "
            f"masking such as unmask.RandomMasking(); got {type(mask).__name__}"
        )
    drawn = draw_masks(masking, pixels[None], grid, generator(pixels.device, "reconstruct", seed))
    return PatchMask(*(part[:1] for part in drawn))


def painted_mask(painted: NDArray[Any] | Tensor, grid: Size) -> PatchMask:
    """The mask that hides every patch that is at least half painted; `painted` is [h w], or [n] with a value a patch.

    Raises:
        SettingsError: if that hides nothing or everything, or has another shape.
    """
    wanted = torch.as_tensor(painted)
    if wanted.ndim == 1 and len(wanted) == grid.height * grid.width:
        wanted = wanted.reshape(tuple(grid))
    if wanted.ndim != 2 or 0 in wanted.shape:
        raise SettingsError(
            f"a mask has the shape [h w] in pixels, [{grid.height} {grid.width}] in patches or "
            f"[{grid.height * grid.width}], got {list(wanted.shape)}"
        )
    share = torch.nn.functional.interpolate(wanted[None, None].float(), tuple(grid), mode="area")
    removed = (share >= 0.5).flatten(1)
    hidden, every = int(removed.sum()), removed.shape[1]
    if hidden == every:
        raise SettingsError(
            f"this mask hides all of the {every} patches, so there is nothing to rebuild them from; paint only a part of "
            "the picture (what is white, opaque or True is hidden)"
        )
    if hidden == 0:
        raise SettingsError(
            f"this mask hides none of the {every} patches, so there is nothing to rebuild; paint at least half of a patch "
            "(what is white, opaque or True is hidden)"
        )
    return PatchMask.of(removed)
