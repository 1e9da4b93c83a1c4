"""`unmask pretrain DATA`: pretrain an encoder on your images."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from unmask.annotations import has_classes
from unmask.channels import ChannelStatistics
from unmask.clock import enter
from unmask.console.arguments import DataFlags, Peek
from unmask.console.from_python import explained
from unmask.console.hardware import RunFlags, flags_of
from unmask.console.held import HeldOrNamed, refuse_loader, refuse_settings
from unmask.console.in_time import choose, fitted, minutes_of
from unmask.console.output import console, other_recipes
from unmask.console.plan import (
    say_images,
    say_plan,
    say_statistics,
    visible_words,
    with_shorter_warmup,
    with_smaller_parts,
)
from unmask.console.train import Command, Common, Request, finished_folder, resumed_folder
from unmask.console.train import main as train_main
from unmask.console.typed import as_typed, data_words
from unmask.contracts import ImageSource, Size
from unmask.data import Held
from unmask.data.kinds import as_source
from unmask.data.statistics import MEASURED, measure, statistics_of
from unmask.errors import SettingsError, number_of, typed
from unmask.formats.model import Weights
from unmask.recipes import RECIPES, Recipe, choose_recipe, find_recipe
from unmask.runs.collapse import collapse, in_words
from unmask.runs.folder import RunFolder
from unmask.runs.job import Images, Outcome
from unmask.runs.plan import Plan, make_plan
from unmask.runs.pretrain import Pretrain
from unmask.runs.run import Run
from unmask.runs.target import brings_target, with_tokenizer
from unmask.runs.training import Progress
from unmask.runs.weights import Found, find_weights, recipe_for, start_from, statistics_for
from unmask.training.schedules import epochs_in_words
from unmask.training.step_cost import Cost
from unmask.traits import Masked

_CHECK_SECONDS = 30.0  # between printed checks of the embedding; all are in the log
_LONG = 3600.0
"""Seconds of a run from which on a shorter way is named."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask pretrain`."""

    data: tyro.conf.Positional[str | None] = None
    """A folder of images, tar shards, Parquet, multi-band images, or digits."""

    recipe_name: Annotated[str | None, tyro.conf.arg(name="recipe")] = None
    """A recipe's name, or FILE.py:NAME, which runs that file; chosen from the images if not given."""

    out: str | None = None
    """Folder of the run; runs/RECIPE-DATA if not given."""

    resume: str | None = None
    """Continue this run exactly where it stopped; DATA, if given, is where its images are now."""

    like: str | None = None
    """Use the settings of this run."""

    init: str | None = None
    """Start from these weights: a run, or weights of unmask, a published MAE, timm or transformers."""

    minutes: float | None = None
    """End after this time, start to finish; the recipe is chosen for it if none is given."""

    hours: float | None = None
    """The same in hours."""

    about_data: Annotated[DataFlags, tyro.conf.arg(name="")] = DataFlags()
    """How to read DATA."""

    statistics: str | None = None
    """Mean and standard deviation of each channel: imagenet, measure, or a JSON file. If not given: those
    of the initial weights, else measured."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    """Settings that change the result."""

    seed: int = 0
    """Seed of weights, order of images, crops and masks."""

    running: Annotated[RunFlags, tyro.conf.arg(name="")] = RunFlags()
    """Settings that must not change the result."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    return train_main(COMMAND, arguments)


@explained("unmask.pretrain('photos', out='runs/photos')")
def pretrain(
    data: HeldOrNamed,
    *,
    recipe: str | Recipe | None = None,
    out: str | Path | None = None,
    init: str | Path | None = None,
    statistics: str | None = None,
    minutes: float | None = None,
    seed: int = 0,
    running: RunFlags | None = None,
    resume: str | Path | None = None,
) -> Path:
    """Pretrain an encoder on images, as `unmask pretrain` does.

    Args:
        data: a folder, pattern, file, "digits", source, list, array, or map-style Dataset (see docs/python.md).
        recipe: a recipe, its name, or FILE.py:NAME, which runs that file; chosen from the images if not given.
        out: the folder of the run; runs/RECIPE-DATA if not given.
        init: initial weights; random if not given.
        statistics: mean and deviation of each channel: "imagenet", "measure", or a JSON file.
        minutes: time after which the run ends; the epochs of the recipe if not given.
        seed: of weights, order, crops and masks.
        running: settings that must not change the result: device, workers, precision and so on.
        resume: the folder of a run on these images, to continue it exactly; then only `running` may be given too.

    Returns:
        The folder of the run, for `load`, `evaluate`, `finetune` and `reconstruct`.

    Raises:
        UnmaskError: for a DataLoader, images that cannot be used or differ each time, or others than those to resume.
    """
    enter()
    refuse_loader(data, "pretrain")
    spec = as_source(data, labels=False)
    if resume is not None:
        refuse_settings(recipe=recipe, out=out, init=init, statistics=statistics, minutes=minutes)
        return resumed_folder(COMMAND, resume, spec, running)
    running = running or RunFlags()
    images = Images(spec.open("train"))
    weights = None if init is None else find_weights(init)
    if isinstance(recipe, Recipe):
        name, chosen = "own", recipe
    elif recipe is not None:
        name, chosen = recipe, find_recipe(recipe)
    elif minutes is not None and weights is None:
        name, chosen = choose(spec, images.train, images.train.typical_size(), minutes, running)
    else:
        nothing = Peek([], {}, False)
        name, chosen = _recipe(nothing, None, weights, images.train)
        chosen = with_smaller_parts(chosen, len(images.train), nothing)
    common = Common(name, spec, images, out, seed, running)
    request = _request_for(
        common, chosen, weights, like=None, statistics=statistics, minutes=minutes
    )
    return finished_folder(COMMAND, request)


def _request(arguments: list[str], command_line: Peek) -> Request:
    """The new run that a command line asks for."""
    flags = command_line.flags
    if {"like", "recipe"} <= set(flags):
        raise SettingsError("--like already sets the recipe; leave out --recipe or --like")
    like = Run.read(RunFolder(flags["like"]), "pretrain") if "like" in flags else None
    if command_line.help:
        COMMAND.parse(arguments, _flags(like, find_recipe(flags.get("recipe", "mae-b16"))))
    if not command_line.words:
        raise SettingsError(
            "which images? `unmask pretrain FOLDER`, or `unmask pretrain digits` to try it out"
        )
    spec = command_line.source(like.band_reading if like else None)
    console.print(f"reading   {command_line.words[0]} ...")
    if like is None and "recipe" in flags:
        find_recipe(flags["recipe"])  # report a misspelt name before scanning the images
    minutes = minutes_of(flags)
    weights = _weights(command_line, like)
    images = Images(spec.open("train"))
    if minutes is not None and like is None and weights is None and "recipe" not in flags:
        running = COMMAND.parse(arguments, _flags(like, find_recipe("mae-b16"))).running
        name, recipe = choose(
            spec, images.train, _size(command_line, images.train), minutes, running
        )
    else:
        name, recipe = _recipe(command_line, like, weights, images.train)
    args = COMMAND.parse(arguments, _flags(like, recipe))
    recipe = (
        _shortened(args.recipe, recipe, len(images.train), command_line)
        if minutes is None
        else args.recipe
    )
    common = Common(name, spec, images, args.out, args.seed, args.running)
    return _request_for(
        common,
        recipe,
        weights,
        like=like,
        statistics=args.statistics,
        minutes=minutes,
    )


def _shortened(recipe: Recipe, default: Recipe, images: int, command_line: Peek) -> Recipe:
    """The recipe that the flags give, with warm-up and batch for fewer epochs than its own, or for few images."""
    if recipe != default:
        recipe = with_shorter_warmup(recipe, command_line)
    own = {"recipe", "like"}.isdisjoint(command_line.flags)
    if own or ("recipe" in command_line.flags and recipe.epochs < default.epochs):
        recipe = with_smaller_parts(recipe, images, command_line)
    return recipe


def _request_for(
    common: Common,
    recipe: Recipe,
    weights: Found | None,
    *,
    like: Run | None,
    statistics: str | None,
    minutes: float | None,
) -> Request:
    """The request for a new pretraining run."""
    source = common.images.train
    if weights is None or not brings_target(weights.weights.spec, recipe):
        recipe = with_tokenizer(recipe, source.channels, source.values)
    job = Pretrain(recipe=recipe)

    def normalisation() -> ChannelStatistics:
        chosen = _statistics(statistics, like, weights, source)
        say_statistics(chosen)
        return chosen

    def start(chosen: ChannelStatistics) -> tuple[Pretrain, Weights | None]:
        if weights is None:
            return job, None
        fitted = start_from(weights, recipe, chosen)
        console.print(f"weights   {fitted.words}")
        return replace(job, init=fitted.words), fitted.weights

    return Request(
        common=common,
        job=job,
        statistics=normalisation,
        start=start,
        say_images=lambda: say_images(common.data.splits(), source, recipe.image_size),
        say_plan=lambda run, module, cost: _say_plan(
            run, make_plan(run, recipe, module, source, cost), cost
        ),
        minutes=minutes,
        in_time=fitted,
    )


def _say_plan(run: Run, plan: Plan, cost: Cost) -> None:
    recipe = run.recipe
    assert isinstance(recipe, Recipe)
    encoder = recipe.encoder
    *smaller, _ = sizes = recipe.every_size()
    rising = (
        f"sizes     {', '.join(map(str, sizes))} pixels, {epochs_in_words(recipe.epochs / len(sizes))} each\n"
        if smaller
        else ""
    )
    rest = "in the decoder" if isinstance(recipe.objective, Masked) else "used only in training"
    say_plan(
        run,
        f"model     {number_of(encoder.depth, 'block')} of {encoder.embed_dim}, patches of {encoder.patch_size}: "
        f"{plan.encoder_parameters / 1e6:.2f} M parameters, and {plan.decoder_parameters / 1e6:.2f} M "
        f"{rest}\n"
        f"{visible_words(recipe, plan)}",
        cost,
        plan.step_seconds,
        after_steps=rising,
        at_most=f"at most; measured at {recipe.image_size} pixels: " if smaller else "",
    )
    if (
        run.minutes is None
        and not isinstance(run.data, Held)
        and plan.step_seconds * run.steps > _LONG
    ):
        words = typed("pretrain", *data_words(run.data), "--minutes", "30")
        console.print(f"          a shorter way, with a recipe made for the time: {words}")


def _say_done(run: Run, folder: RunFolder, images: Images, _: Outcome | None) -> None:
    console.print(f"done: {folder.root}")
    if isinstance(run.data, Held):
        console.print(f"look at it:  unmask.load({str(folder.root)!r}).reconstruct(image).show()")
        return
    if isinstance(run.job, Pretrain) and isinstance(run.job.recipe.objective, Masked):
        words = typed("reconstruct", folder.root, as_typed(run.data), "--out", "sheet.png")
        console.print(f"look at it:  {words}")
    if _can_be_evaluated(images.train):
        words = typed("evaluate", folder.root, *data_words(run.data), "--protocol", "knn")
        console.print(f"measure it:  {words}")


def _can_be_evaluated(source: ImageSource) -> bool:
    """Whether `unmask evaluate` can train and test on these images: several classes, some with more than one image."""
    if not has_classes(source.annotations):
        return False
    labels = source.labels()
    if labels.ndim > 1:
        return bool((labels > 0).any())
    counts = np.bincount(labels[labels >= 0])
    return bool(np.count_nonzero(counts) > 1 and counts.max() > 1)


def _watched(reports: Iterable[Progress]) -> Iterator[Progress]:
    """Pass reports on; print checks of the embedding, and warn once if it has collapsed."""
    warned, printed = False, time.perf_counter()
    for report in reports:
        for line in report.lines:
            words, now = in_words(line), time.perf_counter()
            is_last = line["step"] == report.steps
            if words is not None and (is_last or now - printed > _CHECK_SECONDS):
                console.print(f"step {line['step']:,}: {words}")
                printed = now
            if not warned and (reason := collapse(line, report.steps)) is not None:
                warned = True
                console.warn(
                    f"collapsed: {reason}; the encoder hardly distinguishes images. Training continues, because an early "
                    "collapse may recover. If the next checks are no better, stop and start again with half of "
                    "--schedule.base-lr"
                )
        yield report


def _flags(like: Run | None, recipe: Recipe) -> Arguments:
    if like is None:
        return Arguments(recipe=recipe)
    return Arguments(
        recipe=recipe, recipe_name=like.recipe_name, seed=like.seed, running=flags_of(like)
    )


def _weights(command_line: Peek, like: Run | None) -> Found | None:
    """The initial weights, if any."""
    if "init" not in command_line.flags:
        if like is not None and like.init is not None:
            console.note(
                f"that run started from {like.init}; this one starts from random weights unless you give --init"
            )
        return None
    weights = find_weights(command_line.flags["init"])
    for line in (*weights.damaged, *weights.weights.notes):
        console.print(f"--init: {line}")
    return weights


def _recipe(
    command_line: Peek, like: Run | None, init: Found | None, source: ImageSource
) -> tuple[str, Recipe]:
    """The requested recipe, or one chosen from the initial weights or from the images."""
    if like is not None:
        assert isinstance(like.job, Pretrain)
        return like.recipe_name, like.job.recipe
    if "recipe" in command_line.flags:
        return command_line.flags["recipe"], find_recipe(command_line.flags["recipe"])
    if init is not None:
        name, recipe, reason = recipe_for(init.weights.spec)
        console.print(
            f"recipe    {name}, because {reason}; --recipe chooses another with that encoder"
        )
        return name, recipe
    name, reason = choose_recipe(_size(command_line, source), len(source))
    console.print(f"recipe    {name}, because {reason}; {other_recipes()}")
    return name, RECIPES[name].recipe


def _size(command_line: Peek, source: ImageSource) -> Size:
    """The size of images for which a recipe is chosen."""
    if "image-size" in command_line.flags:
        return Size.parse(command_line.flags["image-size"])
    return source.typical_size()


def _statistics(
    wanted: str | None, like: Run | None, init: Found | None, source: ImageSource
) -> ChannelStatistics:
    """As requested; else those of the initial weights; else those of --like unless measured there; else measured."""
    if wanted is not None:
        return statistics_of(source, wanted)
    if init is not None and (own := statistics_for(init.weights.spec, source)) is not None:
        return own
    if like is not None and not like.statistics.source.startswith(MEASURED):
        own = statistics_for(like.model, source)
        if own is not None:
            return own
    return measure(source)


def _longer(run: Run, root: Path, epochs: str) -> str:
    """How to train on from the weights of a run, with its settings."""
    if isinstance(run.data, Held):
        return ""
    same = ["--like", str(root), "--init", str(root), "--epochs", epochs]
    return f"start from its weights: {typed('pretrain', *data_words(run.data), *same)}"


COMMAND = Command(
    name="pretrain",
    arguments=Arguments,
    request=_request,
    fixed=(
        "recipe_name",
        "out",
        "like",
        "about_data",
        "statistics",
        "recipe",
        "seed",
        "init",
        "minutes",
        "hours",
    ),
    again="unmask pretrain DATA --like {run} --out NEW",
    say_done=_say_done,
    longer=_longer,
    watched=_watched,
)
