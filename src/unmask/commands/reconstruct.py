"""`unmask reconstruct RUN IMAGE...`: the paper's figure, with figures beside it."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unmask.console.arguments import parse
from unmask.console.hardware import Threads, use_threads
from unmask.console.hiding import hidden_by
from unmask.console.output import check_writable, console, loaded, matched, notes, writing
from unmask.console.wrong_calls import explained
from unmask.data import AnySource
from unmask.data.annotated import pictures_alone
from unmask.data.kinds import find_source, is_data, is_source, parse_channels
from unmask.data.objects import each_of, image_of, name_of
from unmask.data.statistics import read_as
from unmask.errors import DataError, SettingsError, UnmaskError
from unmask.masking import (
    AnyMasking,
)
from unmask.masks import PatchMask
from unmask.pictures.sheet import Inked, Row, save_sheet, sheet
from unmask.randomness import derive
from unmask.runs.batches import Images
from unmask.runs.model import Model
from unmask.runs.reconstruct import (
    HEADINGS,
    Reconstruction,
    nearest_errors,
    standing_in_words,
)
from unmask.spec import within
from unmask.targets import Hog, KMeansTokens, NormalizedPixels, TokenizerCodes
from unmask.targets.pixels import Levels
from unmask.traits import Predicting

_SHOWN, _SHOWN_OF_MANY = 12, 8
_MOST_SHOWN = 64


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask reconstruct`."""

    run: tyro.conf.Positional[str]
    """A run, or weights of unmask, a published MAE or transformers that hold a decoder."""

    images: tyro.conf.Positional[tuple[str, ...]]
    """Image files, folders of them, or digits."""

    out: str = "sheet.png"
    """The picture to write."""

    masking: Literal["as-trained", "random", "block", "grid"] = "as-trained"
    """What to hide."""

    ratio: float | None = None
    """Share of patches to hide; the run's, or the masking's usual one, if not given."""

    mask: str | None = None
    """A mask image instead: its white (or opaque) pixels are hidden."""

    seed: int = 0
    """Seed of the masks."""

    levels: Levels = "neighbors"
    """Mean and deviation of hidden patches, for models that predict normalised pixels: from visible neighbors, or
    the true ones, which only shows what a perfect guess would give."""

    bands: str | None = None
    """Channels to show as red, green and blue, or one as grey, such as 4,3,2; the first three if not given."""

    device: str = "cpu"
    """cpu, cuda (or gpu), cuda:1, mps, or auto."""

    threads: Threads = None
    """CPU threads of torch."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print figures as JSON."""

    def __post_init__(self) -> None:
        within(self, "(0, 1)", "ratio", usual="MAE uses 0.75")
        within(self, "[1, inf)", "threads")


class Reconstructed(NamedTuple):
    """An image, what was rebuilt of it, and how far off that is."""

    name: str
    """The image."""
    reconstruction: Reconstruction
    """The image masked, rebuilt, interpolated and as it was, with the errors."""
    mask: PatchMask
    """Which patches were hidden."""
    nearest: tuple[float, str] | None
    """Error and name of the training image that fits the visible patches best; None if that is not known."""


class Reconstructions(NamedTuple):
    """Some images, rebuilt."""

    images: list[Reconstructed]
    notes: list[str]
    """What the figures mean, a line each."""
    sheet: Image.Image
    """The picture that `unmask reconstruct` writes: a row for each image."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "reconstruct")
    check_writable(Path(args.out))
    use_threads(args.threads)
    rebuilt = reconstruct(
        args.run,
        args.images,
        masking=None if args.masking == "as-trained" else args.masking,
        ratio=args.ratio,
        mask=args.mask,
        seed=args.seed,
        levels=args.levels,
        bands=args.bands,
        device=args.device,
    )
    if args.json:
        figures = [_figures(one) for one in rebuilt.images]
        print(json.dumps({"sheet": args.out, "notes": rebuilt.notes, "images": figures}, indent=1))
    else:
        for one in rebuilt.images:
            console.result("".join(part.text for part in _caption(one)))
        for line in rebuilt.notes:
            console.result(line)
    with writing(Path(args.out)):
        save_sheet(rebuilt.sheet, Path(args.out))
    if not args.json:
        console.result(f"written: {args.out}")
    return 0


@explained("unmask.reconstruct('runs/photos', 'photo.jpg')")
def reconstruct(
    run: str | Path | Model,
    images: Images,
    *,
    masking: AnyMasking | Literal["random", "block", "grid"] | None = None,
    ratio: float | None = None,
    mask: str | Path | Tensor | NDArray[Any] | None = None,
    seed: int = 0,
    levels: Levels = "neighbors",
    bands: str | None = None,
    device: str = "cpu",
) -> Reconstructions:
    """Hide parts of images and rebuild them, as `unmask reconstruct` does; no file is written.

    Args:
        run: a run, or weights that hold a decoder, or a model that `load` gave, which stays where it is.
        images: image files, folders of them, "digits", specs of sources, pictures or arrays; one, or a list of them; or a
            torch Dataset, of which the first images are shown.
        masking: what to hide: a masking, or the name of one; as in training if not given.
        ratio: share of patches to hide; the run's, or the masking's usual one, if not given.
        mask: what to hide instead: a painted picture, whose white (or opaque) pixels are hidden, or an array that is True
            where something is hidden: pixels [h w], or patches [rows columns].
        seed: of the masks.
        levels: where a hidden patch's mean and deviation come from, for normalised pixels; "true" is cheating.
        bands: channels to show as red, green and blue, or one as grey, such as "4,3,2".
        device: where to compute.

    Raises:
        RunError: if the weights hold no decoder.
        SettingsError: if arguments do not fit together.
        DataError: if an image cannot be read.
    """
    model = run if isinstance(run, Model) else loaded(str(run), device)
    # before images are read, in case nothing can be rebuilt
    hidden = hidden_by(model, masking, ratio, mask)
    pictures = _pictures(images, model)
    questions = [
        (pixels, model.mask_for(pixels, hidden, derive("image", seed, number) % 2**31))
        for number, (_, pixels) in enumerate(pictures)
    ]
    results = [model.reconstruct(pixels, mask, levels=levels) for pixels, mask in questions]
    nearest, compared = _nearest(model, questions)
    rebuilt = [
        Reconstructed(name, result, mask, near)
        for (name, _), result, (_, mask), near in zip(
            pictures, results, questions, nearest, strict=True
        )
    ]
    chosen = _bands_shown(bands, model.spec.channels)
    remarks = _notes(model, levels, compared, chosen)
    if len(results) > 1 and (summary := standing_in_words(results)):
        remarks.insert(0, summary)
    page = sheet(HEADINGS, list(_rows(rebuilt, chosen)), remarks, shrinks=True)
    return Reconstructions(rebuilt, remarks, page)


def _rows(rebuilt: list[Reconstructed], chosen: tuple[int, ...]) -> Iterator[Row]:
    """The rows of the sheet: the chosen channels, from 0 to 1, and NaN where one of them is missing."""
    bands = tuple(band - 1 for band in chosen)
    for one in rebuilt:
        yield Row(one.reconstruction.versions(bands), _caption(one))


def _pictures(images: Images, model: Model) -> list[tuple[str, Tensor]]:
    """(name, pixels) of every image: files and pictures as they are, and some of each set of images."""
    entries = [images] if is_source(images) else each_of(images, model.spec.channels)
    pictures: list[tuple[str, Tensor]] = []
    # one more than are shown, so that the note below is printed
    for number in range(min(len(entries), _MOST_SHOWN + 1)):
        image = image_of(entries[number])
        if is_source(image):
            pictures += _some_of(image, model)
        elif not isinstance(image, str | Path):
            pictures.append((name_of(image, number), model.fit(image)))
        elif is_data(str(image)):
            pictures += _some_of(find_source(str(image), like=model.bands), model)
        else:
            pictures.append((Path(image).name, model.fit(image)))
    if not pictures:
        raise DataError("no image given: name image files, or folders that hold some")
    if len(pictures) > _MOST_SHOWN:
        notes.print(
            f"{max(len(entries), len(pictures))} images are too many for a sheet; the first {_MOST_SHOWN} are shown"
        )
    return pictures[:_MOST_SHOWN]


def _some_of(data: AnySource, model: Model) -> list[tuple[str, Tensor]]:
    """A few images of a set, those it keeps for testing if there are any."""
    source = matched(
        read_as(pictures_alone(data, data.splits()[-1]), model.spec.statistics),
        model.spec.channels,
        "this model was trained on",
    )
    count = len(source) if len(source) <= _SHOWN else _SHOWN_OF_MANY
    if count < len(source):
        notes.print(f"{count} of the {len(source):,} images in {source.where} are shown")
    pictures: list[tuple[str, Tensor]] = []
    for position in np.linspace(0, len(source) - 1, count).astype(int):
        image = model.spec.statistics.in_units(source[int(position)].image)
        pictures.append((source.name(int(position)), model.fit(image)))
    return pictures


def _bands_shown(text: str | None, channels: int) -> tuple[int, ...]:
    """Which channels a picture shows, counted from 1: three, or one as grey."""
    chosen = parse_channels(text, "--bands") or ((1, 2, 3) if channels >= 3 else (1,))
    if len(chosen) not in (1, 3) or max(chosen) > channels:
        raise SettingsError(
            f"--bands names one channel or three of the {channels}, such as "
            f"{'3,2,1' if channels >= 3 else '1'}; got {text!r}"
        )
    return chosen


def _nearest(
    model: Model, questions: list[tuple[Tensor, PatchMask]]
) -> tuple[list[tuple[float, str] | None], str]:
    """The nearest training image's error for each question, and how it was found; None where the images are gone."""
    try:
        if model.run is None:
            raise DataError("these weights do not say which images they saw")
        source = pictures_alone(model.run.data)
    except UnmaskError as error:
        return [None] * len(questions), f"no comparison ({error})"
    found, looked = nearest_errors(
        source, model.encoder.patch_size, model.spec.statistics, questions
    )
    return list(found), f"by the visible patches, among {looked}"


def _figures(one: Reconstructed) -> dict[str, Any]:
    """The figures of an image, to hundredths."""
    result, nearest = one.reconstruction, one.nearest
    figures: dict[str, Any] = {
        "image": one.name,
        "hidden": one.mask.removed_index.shape[1],
        "patches": one.mask.removed.shape[1],
    }
    if math.isnan(result.error):
        return figures
    figures |= {
        "error": round(result.error, 2),
        "interpolation_error": round(result.interpolation_error, 2),
    }
    if nearest is not None:
        figures |= {
            "nearest_training_error": round(nearest[0], 2),
            "nearest_training_image": nearest[1],
        }
    return figures


def _caption(one: Reconstructed) -> list[Inked]:
    """What is printed below an image: its name, how much is hidden, and the errors."""
    hidden, patches = one.mask.removed_index.shape[1], one.mask.removed.shape[1]
    name = f"{one.name}: {hidden} of {patches} hidden"
    if math.isnan(one.reconstruction.error):
        return [Inked(name)]
    parts = [Inked(f"{name}, "), *one.reconstruction.caption()]
    if one.nearest is not None:
        parts.append(Inked(f", nearest training image {one.nearest[0]:.1f}"))
    return parts


def _notes(model: Model, levels: Levels, compared: str, chosen: tuple[int, ...]) -> list[str]:
    objective = model.spec.objective
    target = objective.target if isinstance(objective, Predicting) else None
    if isinstance(target, Hog):
        return [
            f"{model.about}; drawn: edges in each half patch, as predicted; they have no levels"
        ]
    notes = [f"{model.about}; errors: root mean square on hidden pixels, of 255"]
    if model.spec.channels not in (1, 3) or model.spec.statistics.values == "float32":
        colours = "red, green, blue" if len(chosen) == 3 else "grey"
        notes.append(
            f"channels {', '.join(map(str, chosen))} as {colours}; errors over all {model.spec.channels}"
        )
    if model.spec.statistics.values == "float32":
        notes.append(
            "each from its 2nd to its 98th percentile in the training images, errors too; missing is white"
        )
    if isinstance(target, NormalizedPixels | KMeansTokens):
        notes.append(
            "levels of hidden patches: from the 8 nearest visible patches"
            if levels == "neighbors"
            else "levels of hidden patches: THE TRUE ONES, read from the hidden pixels"
        )
    if isinstance(target, TokenizerCodes):
        notes.append("rebuilt: the likeliest codes of hidden patches, as a picture")
    return [*notes, f"nearest training image: {compared}"]
