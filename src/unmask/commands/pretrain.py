"""`unmask pretrain DATA`: pretrain an encoder on your images."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from unmask.channels import ChannelStatistics
from unmask.clock import enter
from unmask.console.arguments import DataFlags, Peek
from unmask.console.from_python import HeldOrNamed, refuse_loader, refuse_settings
from unmask.console.hardware import RunFlags, flags_of
from unmask.console.in_time import choose, fitted, minutes_of
from unmask.console.output import console
from unmask.console.plan import (
    say_images,
    say_statistics,
    with_shorter_warmup,
    with_smaller_parts,
)
from unmask.console.pretraining import longer, say_done, say_pretraining, watch_embedding
from unmask.console.pretraining_start import (
    initial_weights,
    recipe_of,
    size_of,
    statistics_from,
)
from unmask.console.train import finished_folder, resumed_folder
from unmask.console.train import main as train_main
from unmask.console.training_command import Command, Common, Request
from unmask.console.wrong_calls import explained
from unmask.data.annotated import pictures_alone
from unmask.data.kinds import as_source
from unmask.errors import SettingsError
from unmask.formats.model import Weights
from unmask.recipes import Recipe, find_recipe
from unmask.runs.folder import RunFolder
from unmask.runs.job import Images
from unmask.runs.plan import make_plan
from unmask.runs.pretrain import Pretrain
from unmask.runs.run import Run
from unmask.runs.target import brings_target, with_tokenizer
from unmask.runs.weights import Found, find_weights, start_from
from unmask.spec import within


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

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "minutes", "hours")


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
    images = Images(pictures_alone(spec))
    weights = None if init is None else find_weights(init)
    if isinstance(recipe, Recipe):
        name, chosen = "own", recipe
    elif recipe is not None:
        name, chosen = recipe, find_recipe(recipe)
    elif minutes is not None and weights is None:
        name, chosen = choose(spec, images.train, images.train.typical_size(), minutes, running)
    else:
        nothing = Peek([], {}, False)
        name, chosen = recipe_of(nothing, None, weights, images.train)
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
    weights = initial_weights(command_line, like)
    images = Images(pictures_alone(spec))
    if minutes is not None and like is None and weights is None and "recipe" not in flags:
        running = COMMAND.parse(arguments, _flags(like, find_recipe("mae-b16"))).running
        name, recipe = choose(
            spec, images.train, size_of(command_line, images.train), minutes, running
        )
    else:
        name, recipe = recipe_of(command_line, like, weights, images.train)
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
        chosen = statistics_from(statistics, like, weights, source)
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
        say_plan=lambda run, module, cost: say_pretraining(
            run, make_plan(run, recipe, module, source, cost), cost
        ),
        minutes=minutes,
        in_time=fitted,
        learned_before=() if weights is None else weights.learned_from,
    )


def _flags(like: Run | None, recipe: Recipe) -> Arguments:
    if like is None:
        return Arguments(recipe=recipe)
    return Arguments(
        recipe=recipe, recipe_name=like.recipe_name, seed=like.seed, running=flags_of(like)
    )


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
    say_done=say_done,
    longer=longer,
    watched=watch_embedding,
)
