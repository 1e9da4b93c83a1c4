"""`unmask tokenizer DATA --out TOK`: discrete codes of image patches, learnt from images."""

from dataclasses import dataclass
from typing import Annotated

import tyro
from torch import nn

from unmask.console.arguments import DataFlags, Peek, number, parse
from unmask.console.hardware import (
    RunFlags,
    batch_words,
    expected_words,
    flags_of,
    machine_words,
)
from unmask.console.output import bands_in_words, console, say_left_out
from unmask.console.recipe_changes import with_shorter_warmup, with_smaller_batch
from unmask.console.train import Command, Start, Wish
from unmask.console.train import main as train_main
from unmask.data.kinds import find_source, parse_channels
from unmask.data.statistics import measure
from unmask.errors import SettingsError
from unmask.patches import patch_grid
from unmask.pictures.sheet import Row, sheet
from unmask.recipes import TOKENIZERS, Tokenizing, choose_tokenizer, find_tokenizer
from unmask.runs.codes import Coded, Judged, check_patches
from unmask.runs.folder import RunFolder
from unmask.runs.job import Images, Outcome
from unmask.runs.plan import seconds_of_step
from unmask.runs.run import Run, parameter_count
from unmask.runs.tokenize import Tokenize, open_images
from unmask.training.schedules import epochs_in_words
from unmask.training.step_cost import Cost

_HEADINGS = ["original", "tokenizer", "k-means"]
_ENOUGH = 0.5  # share of the codes that should be in use
_NEAR_DECIBELS = 2.0  # how far behind k-means a tokenizer may be without a word


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask tokenizer`."""

    data: tyro.conf.Positional[str | None] = None
    """A folder of images, tar shards, Parquet, multi-band images, or digits."""

    out: str | None = None
    """Folder of the tokenizer; runs/RECIPE-DATA if not given."""

    recipe_name: Annotated[str | None, tyro.conf.arg(name="recipe")] = None
    """A recipe's name, or FILE.py:NAME; chosen from the images if not given."""

    resume: str | None = None
    """Continue this tokenizer's training exactly where it stopped."""

    about_data: Annotated[DataFlags, tyro.conf.arg(name="")] = DataFlags()
    """What DATA holds."""

    recipe: Annotated[Tokenizing, tyro.conf.arg(name="")]
    """Everything that changes the result."""

    seed: int = 0
    """Seed of weights, order, crops, and of the images held out where there are no test images."""

    running: Annotated[RunFlags, tyro.conf.arg(name="")] = RunFlags()
    """What must not change the result."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    return train_main(COMMAND, arguments)


def _wish(arguments: list[str], seen: Peek) -> Wish:
    """The tokenizer that a command line asks for."""
    if seen.help:
        default = find_tokenizer(seen.flags.get("recipe", "tokenizer-b16"))
        _parse(arguments, Arguments(recipe=default))
    if not seen.words:
        raise SettingsError("which images? `unmask tokenizer FOLDER --out TOK`")
    if "recipe" in seen.flags:
        find_tokenizer(seen.flags["recipe"])  # a misspelt name should not wait for a scan
    no_data = seen.flags.get("no-data")
    spec = find_source(
        seen.words[0],
        seen.flags.get("data-kind"),
        parse_channels(seen.flags.get("channels")),
        None if no_data is None else number("--no-data", no_data),
    )
    seed = seen.flags.get("seed", "0")
    images = open_images(spec, int(seed) if seed.isdecimal() else 0)
    name, default = _recipe(seen, images)
    args = _parse(arguments, Arguments(recipe=default))
    recipe = with_shorter_warmup(args.recipe, seen)
    job = Tokenize(recipe=recipe)

    def plan(run: Run, module: nn.Module, cost: Cost) -> None:
        _say_plan(run, recipe, module, cost, seconds_of_step(run, images.train, cost))

    def say_images() -> None:
        _say_images(images)
        check_patches(recipe, images.train)

    return Wish(
        recipe_name=name,
        job=job,
        data=spec,
        images=images,
        out=args.out,
        seed=args.seed,
        running=args.running,
        statistics=lambda: measure(images.train),
        start=lambda _: Start(job, None),
        say_images=say_images,
        say_plan=plan,
    )


def _say_done(_: Run, folder: RunFolder, outcome: Outcome | None) -> None:
    """Say what the codes keep, draw it, and say how to use the tokenizer."""
    if outcome is None:
        return  # another process has judged it
    lines = _said(outcome.score)
    picture = folder.root / "codes.png"
    rows = [Row(each.versions, each.name) for each in outcome.pictures]
    sheet(_HEADINGS, rows, lines[1:3]).save(picture)
    for line in (*lines, *_verdict(outcome.score)):
        console.print(line)
    console.print(
        f"done: {folder.root}\nlook at it:  {picture}\nuse it:  unmask pretrain DATA objective.target:tokenizer "
        f"--objective.target.path {folder.root}"
    )


def _said(result: Judged) -> list[str]:
    """What was found, one line each."""

    def line(name: str, coded: Coded) -> str:
        return (
            f"{name:10}{coded.psnr:.2f} dB, perplexity {coded.perplexity:,.0f} of {result.codes:,} codes "
            f"({coded.used:,} in use)"
        )

    return [
        f"judged on {result.images:,} images that it has not seen:",
        line("tokenizer", result.tokenizer),
        line("k-means", result.kmeans),
        line("", result.kmeans_with_levels)
        + ": k-means of normalised patches, given their mean and deviation beside the code",
    ]


def _verdict(result: Judged) -> list[str]:
    """What is not as it should be, and what would help."""
    lines: list[str] = []
    if result.tokenizer.perplexity < _ENOUGH * result.codes:
        lines.append(
            f"fewer than half of the codes are in use (perplexity {result.tokenizer.perplexity:,.0f} of "
            f"{result.codes:,}); train longer (--epochs), or take fewer with --tokenizer.codes"
        )
    if result.tokenizer.psnr < result.kmeans.psnr - _NEAR_DECIBELS:
        lines.append(
            f"{result.kmeans.psnr - result.tokenizer.psnr:.1f} dB behind k-means; train longer (--epochs), or take "
            "objective.target:kmeans-tokens"
        )
    return lines


def _parse(arguments: list[str], default: Arguments) -> Arguments:
    return parse(
        Arguments,
        arguments,
        "tokenizer",
        f"Learn discrete codes of image patches. Recipes: {', '.join(TOKENIZERS)}.",
        default,
    )


def _flags_of(run: Run, root: str) -> Arguments:
    assert isinstance(run.job, Tokenize)
    return Arguments(
        recipe=run.job.recipe,
        recipe_name=run.recipe_name,
        resume=root,
        seed=run.seed,
        running=flags_of(run),
    )


def _recipe(seen: Peek, images: Images) -> tuple[str, Tokenizing]:
    """The recipe asked for, or one that suits the images, with a batch that suits their number."""
    if "recipe" in seen.flags:
        return seen.flags["recipe"], find_tokenizer(seen.flags["recipe"])
    size = images.train.typical_size()
    name = choose_tokenizer(size)
    console.print(
        f"recipe {name}, for images of about {size.height} x {size.width} pixels; --recipe takes another: "
        f"{', '.join(other for other in TOKENIZERS if other != name)}"
    )
    return name, with_smaller_batch(TOKENIZERS[name].recipe, len(images.train), seen)


def _say_images(images: Images) -> None:
    train, test = images.train, images.test
    assert test is not None
    console.print(
        f"images    {len(train):,} {bands_in_words(train.channels)} to learn from in {train.where}, "
        f"{len(test):,} to judge by ({images.split})"
    )
    say_left_out(train)


def _say_plan(
    run: Run, recipe: Tokenizing, tokenizer: nn.Module, cost: Cost, step_seconds: float
) -> None:
    hardware = run.hardware
    grid = patch_grid(recipe.image_size, recipe.patch_size)
    levels = " x ".join(map(str, recipe.tokenizer.levels))
    console.print(
        f"tokenizer {recipe.tokenizer.codes:,} codes ({levels} levels) of patches of {recipe.patch_size}, "
        f"{grid.height} x {grid.width} in {recipe.image_size} pixels; {parameter_count(tokenizer) / 1e6:.2f} M "
        "parameters\n"
        f"batch     {batch_words(recipe.batch_size, hardware)}, learning rate up to "
        f"{recipe.schedule.peak(recipe.batch_size):.3g}\n"
        f"steps     {run.steps:,} ({epochs_in_words(recipe.epochs)})\n"
        f"machine   {machine_words(hardware)}\n"
        f"expected  {expected_words(cost, step_seconds, run.steps, hardware)}"
    )


COMMAND: Command[Arguments] = Command(
    name="tokenizer",
    wish=_wish,
    flags_of=_flags_of,
    parse=_parse,
    words=("data",),
    fixed=("recipe_name", "out", "about_data", "recipe", "seed"),
    again="unmask tokenizer DATA",
    say_done=_say_done,
)
