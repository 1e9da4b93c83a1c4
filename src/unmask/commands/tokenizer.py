"""`unmask tokenizer DATA --out TOK`: learn discrete codes of image patches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from torch import nn

from unmask.console.arguments import DataFlags, Peek
from unmask.console.hardware import RunFlags
from unmask.console.output import console, images_in_words, notes, other_recipes, say_left_out
from unmask.console.plan import say_plan, with_shorter_warmup, with_smaller_batch
from unmask.console.train import main as train_main
from unmask.console.training_command import Command, Common, Request
from unmask.console.typed import band_words, data_words
from unmask.data.statistics import measure
from unmask.errors import SettingsError, typed
from unmask.patches import patch_grid
from unmask.pictures.drawing import drawn
from unmask.pictures.sheet import Row, save_sheet, sheet
from unmask.recipes import TOKENIZERS, Tokenizing, choose_tokenizer, find_tokenizer
from unmask.runs.folder import RunFolder
from unmask.runs.job import Images, Outcome
from unmask.runs.plan import seconds_of_step
from unmask.runs.run import Run, parameter_count
from unmask.runs.tokenize import Coded, Judged, Tokenize, check_patches
from unmask.training.step_cost import Cost

_HEADINGS = ["original", "tokenizer", "k-means"]
_ENOUGH = 0.5  # share of the codes that should be used; below it the console warns
_NEAR_DECIBELS = 2.0  # how far below k-means a tokenizer may be before the console warns


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask tokenizer`."""

    data: tyro.conf.Positional[str | None] = None
    """A folder of images, tar shards, Parquet, multi-band images, or digits."""

    out: str | None = None
    """Folder of the tokenizer; runs/RECIPE-DATA if not given."""

    recipe_name: Annotated[str | None, tyro.conf.arg(name="recipe")] = None
    """A recipe's name, or FILE.py:NAME, which runs that file; chosen from the images if not given."""

    resume: str | None = None
    """Continue this training exactly where it stopped; DATA, if given, is where its images are now."""

    about_data: Annotated[DataFlags, tyro.conf.arg(name="")] = DataFlags()
    """How to read DATA."""

    recipe: Annotated[Tokenizing, tyro.conf.arg(name="")]
    """Settings that change the result."""

    seed: int = 0
    """Seed of weights, order of images and crops, and of the held-out images if DATA has no test images."""

    running: Annotated[RunFlags, tyro.conf.arg(name="")] = RunFlags()
    """Settings that must not change the result."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    return train_main(COMMAND, arguments)


def _request(arguments: list[str], command_line: Peek) -> Request:
    """The new run that a command line asks for."""
    if command_line.help:
        default = find_tokenizer(command_line.flags.get("recipe", "tokenizer-b16"))
        COMMAND.parse(arguments, Arguments(recipe=default))
    if not command_line.words:
        raise SettingsError("which images? `unmask tokenizer FOLDER --out TOK`")
    wanted = command_line.flags.get("recipe")
    if wanted is not None:
        find_tokenizer(wanted)  # report a misspelt name before scanning the images
    spec = command_line.source()
    console.print(f"reading   {command_line.words[0]} ...")
    images = Tokenize.open(spec, command_line.seed)
    name, default = _recipe(command_line, images)
    args = COMMAND.parse(arguments, Arguments(recipe=default))
    recipe = with_shorter_warmup(args.recipe, command_line)
    job = Tokenize(recipe=recipe)

    def say_images() -> None:
        _say_images(images)
        check_patches(recipe, images.train)

    return Request(
        common=Common(name, spec, images, args.out, args.seed, args.running),
        job=job,
        statistics=lambda: measure(images.train),
        start=lambda _: (job, None),
        say_images=say_images,
        say_plan=lambda run, module, cost: _say_plan(run, recipe, module, images, cost),
    )


def _say_done(run: Run, folder: RunFolder, _: Images, outcome: Outcome | None) -> None:
    """Print how good the codes are, and how to use the tokenizer."""
    if outcome is None:
        return  # the first process evaluates and prints
    for line in _said(outcome.score):
        console.result(line)
    for line in _verdict(outcome.score):
        console.warn(line)
    picture = _picture(folder)
    look = f"look at it:  {picture}\n" if picture.exists() else ""
    use = [*data_words(run.data), *band_words(run.data), "objective.target:tokenizer"]
    console.print(
        f"done: {folder.root}\n{look}use it:  {typed('pretrain', *use, '--objective.target.path', folder.root)}"
    )


def _draw(folder: RunFolder, outcome: Outcome) -> None:
    """Draw images as the tokenizer and its rivals give them back."""
    rows = [Row(each.versions, each.name) for each in outcome.pictures]
    lines = _said(outcome.score)[1:3]
    note = drawn(_picture(folder), lambda path: save_sheet(sheet(_HEADINGS, rows, lines), path))
    if note:
        notes.note(note)


def _picture(folder: RunFolder) -> Path:
    return folder.root / "codes.png"


def _said(result: Judged) -> list[str]:
    """The results, one line each."""

    def line(name: str, coded: Coded) -> str:
        return (
            f"{name:10}{coded.psnr:.2f} dB, perplexity {coded.perplexity:,.0f} of {result.codes:,} codes "
            f"({coded.used:,} in use)"
        )

    return [
        f"evaluated on {result.images:,} held-out images:",
        line("tokenizer", result.tokenizer),
        line("k-means", result.kmeans),
        line("", result.kmeans_with_levels)
        + ": k-means of normalised patches, which also knows mean and deviation of each patch",
    ]


def _verdict(result: Judged) -> list[str]:
    """Warnings, each with a remedy."""
    lines: list[str] = []
    if result.tokenizer.perplexity < _ENOUGH * result.codes:
        lines.append(
            f"fewer than half of the codes are in use (perplexity {result.tokenizer.perplexity:,.0f} of "
            f"{result.codes:,}); train longer (--epochs), or use fewer codes (--tokenizer.codes)"
        )
    if result.tokenizer.psnr < result.kmeans.psnr - _NEAR_DECIBELS:
        lines.append(
            f"{result.kmeans.psnr - result.tokenizer.psnr:.1f} dB worse than k-means; train longer (--epochs), or use "
            "objective.target:kmeans-tokens"
        )
    return lines


def _recipe(command_line: Peek, images: Images) -> tuple[str, Tokenizing]:
    """The requested recipe, or one that suits the size and number of the images."""
    if "recipe" in command_line.flags:
        return command_line.flags["recipe"], find_tokenizer(command_line.flags["recipe"])
    size = images.train.typical_size()
    name = choose_tokenizer(size)
    console.print(
        f"recipe    {name}, for images of about {size.height} x {size.width} pixels; {other_recipes()}"
    )
    return name, with_smaller_batch(TOKENIZERS[name].recipe, len(images.train), command_line)


def _say_images(images: Images) -> None:
    train, test = images.train, images.test
    assert test is not None
    console.print(
        f"images    {images_in_words(train)} for training in {train.where}, "
        f"{len(test):,} for testing ({images.split})"
    )
    say_left_out(train)


def _say_plan(
    run: Run, recipe: Tokenizing, tokenizer: nn.Module, images: Images, cost: Cost
) -> None:
    grid = patch_grid(recipe.image_size, recipe.patch_size)
    levels = " x ".join(map(str, recipe.tokenizer.levels))
    say_plan(
        run,
        f"tokenizer {recipe.tokenizer.codes:,} codes ({levels} levels) of patches of {recipe.patch_size}, "
        f"{grid.height} x {grid.width} in {recipe.image_size} pixels; {parameter_count(tokenizer) / 1e6:.2f} M "
        "parameters",
        cost,
        seconds_of_step(run, images.train, cost),
    )


COMMAND = Command(
    name="tokenizer",
    arguments=Arguments,
    request=_request,
    fixed=("recipe_name", "out", "about_data", "recipe", "seed"),
    again="unmask tokenizer DATA",
    say_done=_say_done,
    draw=_draw,
)
