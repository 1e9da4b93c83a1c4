"""`unmask pretrain DATA`: pretrain an encoder on the user's images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import torch
import tyro

from unmask.channels import ChannelStatistics
from unmask.console.arguments import Peek, as_typed, number, parse, peek
from unmask.console.fitting import fitting_warmup, free_folder
from unmask.console.hardware import (
    RunFlags,
    check_decode,
    fitting_part,
    flags_of,
    hardware_of,
    measured,
    say_what_differs,
)
from unmask.console.output import console, shown
from unmask.console.plan import say_images, say_plan, say_statistics
from unmask.console.ranks import Job, begun_before, check_same, held, prepared, together
from unmask.console.resuming import folder_to_resume, going_on, newest_of, refuse_changes
from unmask.console.signals import signals
from unmask.contracts import ImageSource, Size
from unmask.data import AnySource, Tiff
from unmask.data.kinds import find_source, parse_channels
from unmask.data.statistics import MEASURED, measure, statistics_of
from unmask.errors import RunError, SettingsError
from unmask.objectives import AnyPretraining
from unmask.recipes import RECIPES, Recipe, choose_recipe, find_recipe
from unmask.runs.codes import brings_target, with_tokenizer
from unmask.runs.collapse import collapse, in_words
from unmask.runs.folder import RunFolder
from unmask.runs.init import (
    put_in,
    recipe_for,
    save_start,
    start_from,
    statistics_for,
)
from unmask.runs.plan import check_whole, make_plan
from unmask.runs.pretrain import pretrain
from unmask.runs.run import Run, new_run
from unmask.runs.training import Progress
from unmask.runs.weights import Found, find_weights
from unmask.training.checkpoint import Checkpoint
from unmask.training.distributed import check_batch
from unmask.traits import Masked


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask pretrain`."""

    data: tyro.conf.Positional[str | None] = None
    """A folder of images, or digits."""

    recipe_name: Annotated[str | None, tyro.conf.arg(name="recipe")] = None
    """A recipe's name, or FILE.py:NAME; chosen from the images if not given."""

    out: str | None = None
    """Folder of the run; runs/RECIPE-DATA if not given."""

    resume: str | None = None
    """Continue this run exactly where it stopped."""

    like: str | None = None
    """Repeat the settings of this run."""

    init: str | None = None
    """Start from these weights: a run, or a file of unmask, a published MAE, timm or transformers."""

    data_kind: str | None = None
    """What DATA is (folder, shards, parquet, tiff, digits); seen from what is there if not given."""

    channels: str | None = None
    """Channels of multi-band images to take, counted from 1, such as 4,3,2; all if not given."""

    no_data: float | None = None
    """The value of multi-band images that means that there is none; GeoTIFFs say so themselves."""

    statistics: str | None = None
    """Mean and deviation of each channel: imagenet, measure, or a JSON file; those of the weights to
    start from, or measured, if not given."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    """Everything that changes the result."""

    seed: int = 0
    """Seed of weights, order, crops and masks."""

    running: Annotated[RunFlags, tyro.conf.arg(name="")] = RunFlags()
    """What must not change the result."""


Pretraining = Job[Run, ImageSource, AnyPretraining]


def main(arguments: list[str]) -> int:
    """Run the command."""
    seen = peek(arguments)
    prepare = _resume if "resume" in seen.flags and not seen.help else _begin
    with together() as waiting:
        job = prepared(partial(prepare, arguments, seen), _join, waiting)
        return 0 if job is None else _train(job)


def _begin(arguments: list[str], seen: Peek) -> Pretraining | None:
    if {"like", "recipe"} <= set(seen.flags):
        raise SettingsError("--like brings its recipe along: leave out --recipe, or --like")
    like = RunFolder(seen.flags["like"]).read() if "like" in seen.flags else None
    if seen.help:
        _parse(arguments, _default(like, find_recipe(seen.flags.get("recipe", "mae-b16"))))
    if not seen.words:
        raise SettingsError(
            "which images? `unmask pretrain FOLDER`, or `unmask pretrain digits` to try it out"
        )
    spec = _source(seen, like)
    if like is None and "recipe" in seen.flags:
        find_recipe(
            seen.flags["recipe"]
        )  # a misspelt name should not wait for a scan of the images
    init = _weights(seen, like)
    source = spec.open("train")
    name, default = _recipe(seen, like, init, source)
    args = _parse(arguments, _default(like, default))
    recipe = args.recipe if args.recipe == default else fitting_warmup(args.recipe, seen)
    if (before := begun_before(args.out, name, seen.words[0])) is not None:
        old = before.read()
        if (old.recipe, old.data, old.seed) == (recipe, spec, args.seed):
            return _resume(again := ["--resume", str(before.root)], peek(again))
    folder = RunFolder(args.out or free_folder(name, seen.words[0]))
    folder.check_free()
    say_images(spec.splits(), source, args.recipe.image_size)
    check_batch(recipe.batch_size, paired=False)
    hardware = hardware_of(
        args.running.machine,
        in_memory=source.in_memory,
        batch_size=recipe.batch_size,
        shard=args.running.shard,
        decode=args.running.decode,
    )
    check_decode(hardware, source, recipe.views)
    statistics = _statistics(args, like, init, source)
    say_statistics(statistics)
    if init is None or not brings_target(init.weights.spec, recipe):
        recipe = with_tokenizer(recipe, source.channels, statistics.values)
    start = start_from(init, recipe, statistics) if init else None
    if start:
        console.print(f"weights   {start.words}")
    run = new_run(
        name,
        recipe,
        spec,
        source,
        statistics,
        hardware,
        seed=args.seed,
        save_every_minutes=args.running.save_every_minutes,
        max_set_aside=args.running.max_set_aside,
        init=start.words if start else None,
    )
    objective = run.build()
    if start:
        put_in(objective, start.weights)
    cost = measured(objective, recipe, source, hardware)
    fitting = fitting_part(cost, recipe.batch_size, args.running.machine.micro_batch, hardware)
    check_whole(objective, fitting.micro_batch, recipe.batch_size // fitting.processes)
    run = replace(run, hardware=fitting)
    say_plan(run, make_plan(run, objective, source, cost), cost)
    folder.create(run)
    first = save_start(folder, run, source, objective) if start else None
    return Job(run, folder, source, objective, first)


def _resume(arguments: list[str], seen: Peek) -> Pretraining | None:
    folder = folder_to_resume(seen)
    run = folder.read()
    old = _default(run, run.recipe)
    args = _parse(arguments, replace(old, resume=seen.flags["resume"]))
    _refuse_changes(args, old)
    check_batch(run.recipe.batch_size, paired=False)
    changed = going_on(run, args.running)
    found = newest_of(folder, run)
    if found is not None and found.info.step >= run.steps:
        console.print(f"{folder.root} is finished: {run.steps:,} of {run.steps:,} steps are done")
        return None
    source = run.data.open("train")
    if source.fingerprint != run.fingerprint:
        raise RunError(
            f"the images of this run have changed ({run.images:,} then, {len(source):,} now, or other "
            "names or sizes), so it cannot go on exactly; put them back, or begin anew with "
            f"`unmask pretrain DATA --like {folder.root} --out NEW`"
        )
    check_decode(changed.hardware, source, run.recipe.views)
    say_what_differs(changed.hardware, run.hardware, run.torch_version)
    console.print(
        f"continuing {folder.root} from step {found.info.step if found else 0:,} of {run.steps:,}"
    )
    objective = run.build()
    hardware = changed.hardware
    check_whole(objective, hardware.micro_batch, run.recipe.batch_size // hardware.processes)
    return Job(changed, folder, source, objective, found)


def _join(folder: RunFolder, run: Any, start: Checkpoint | None) -> Pretraining:
    """The job that another process has prepared, if this one sees the same images."""
    run = Run.read(run)
    source = run.data.open("train")
    check_same(source, run.fingerprint)
    return Job(run, folder, source, run.build(), start)


def _train(job: Pretraining) -> int:
    """Train until the end or a signal, and say how to go on."""
    run, folder = job.run, job.folder
    torch.set_num_threads(run.hardware.threads)
    with held(folder), signals() as stop:
        reports = pretrain(run, folder, job.data, job.module, stop.event, job.start)
        for _ in shown(_watched(reports), run.recipe_name):
            pass
    if stop.event.is_set():
        console.print(f"stopped and saved; continue with:\nunmask pretrain --resume {folder.root}")
        return 128 + stop.signal
    if folder.set_aside.exists():
        console.print(f"images that could not be used are listed in {folder.set_aside}")
    data = as_typed(run.data)
    console.print(f"done: {folder.root}")
    if isinstance(run.recipe.objective, Masked):
        console.print(f"look at it:  unmask reconstruct {folder.root} {data} --out sheet.png")
    console.print(f"measure it:  unmask evaluate {folder.root} {data} --protocol knn")
    return 0


def _watched(reports: Iterable[Progress]) -> Iterator[Progress]:
    """Pass reports on, saying what was seen of the embedding, and once that it has collapsed."""
    told = False
    for report in reports:
        for line in report.lines:
            if (words := in_words(line)) is not None:
                console.print(f"step {line['step']:,}: {words}")
            if not told and (reason := collapse(line)) is not None:
                told = True
                console.print(
                    f"collapsed: {reason}; images are hardly told apart. Training goes on. Early in a run this may pass; if the "
                    "next looks are no better, stop it and begin anew with half of --schedule.base-lr, a longer "
                    "--schedule.warmup-epochs or a larger --batch-size"
                )
        yield report


def _parse(arguments: list[str], default: Arguments) -> Arguments:
    return parse(
        Arguments,
        arguments,
        "pretrain",
        f"Pretrain an encoder on your images. Recipes: {', '.join(RECIPES)}.",
        default,
    )


def _default(like: Run | None, recipe: Recipe) -> Arguments:
    if like is None:
        return Arguments(recipe=recipe)
    return Arguments(
        recipe=recipe, recipe_name=like.recipe_name, seed=like.seed, running=flags_of(like)
    )


def _source(seen: Peek, like: Run | None) -> AnySource:
    """What DATA and the flags about it name; the run to repeat says which channels to take."""
    channels, no_data = parse_channels(seen.flags.get("channels")), seen.flags.get("no-data")
    taken = like.data if like and isinstance(like.data, Tiff) else Tiff(path="")
    return find_source(
        seen.words[0],
        seen.flags.get("data-kind"),
        channels or taken.channels,
        taken.no_data if no_data is None else number("--no-data", no_data),
    )


def _weights(seen: Peek, like: Run | None) -> Found | None:
    """The weights to start from, if any."""
    if "init" not in seen.flags:
        if like is not None and like.init is not None:
            console.print(f"that run started from {like.init}; --init would do so again")
        return None
    found = find_weights(seen.flags["init"])
    for line in (*found.damaged, *found.weights.notes):
        console.print(f"--init: {line}")
    return found


def _recipe(
    seen: Peek, like: Run | None, init: Found | None, source: ImageSource
) -> tuple[str, Recipe]:
    """The recipe asked for, or one chosen from the weights to start from, or from the images."""
    if like is not None:
        return like.recipe_name, like.recipe
    if "recipe" in seen.flags:
        return seen.flags["recipe"], find_recipe(seen.flags["recipe"])
    if init is not None:
        name, recipe, reason = recipe_for(init.weights.spec)
        console.print(f"recipe {name}, because {reason}; --recipe takes another of that encoder")
        return name, recipe
    size = source.typical_size()
    if "image-size" in seen.flags:
        size = Size.parse(seen.flags["image-size"])
    name, reason = choose_recipe(size, len(source))
    others = ", ".join(other for other in RECIPES if other != name)
    console.print(f"recipe {name}, because {reason}; --recipe takes another: {others}")
    return name, RECIPES[name].recipe


def _refuse_changes(args: Arguments, old: Arguments) -> None:
    if args.data is not None:
        raise SettingsError("--resume finds the images by itself: leave out DATA")
    kept = ("recipe_name", "out", "like", "data_kind", "channels", "no_data", "statistics")
    another = f"unmask pretrain DATA --like {args.resume} --out NEW"
    refuse_changes(args, old, (*kept, "recipe", "seed", "init"), another)


def _statistics(
    args: Arguments, like: Run | None, init: Found | None, source: ImageSource
) -> ChannelStatistics:
    """As asked for; else of the weights to start from, or of the run to repeat unless measured there."""
    if args.statistics is not None:
        return statistics_of(source, args.statistics)
    if init is not None and (its := statistics_for(init.weights.spec, source)) is not None:
        return its
    repeats = like is not None and not like.statistics.source.startswith(MEASURED)
    if like is not None and repeats and len(like.statistics.mean) == source.channels:
        return like.statistics
    return measure(source)
