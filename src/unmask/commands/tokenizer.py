"""`unmask tokenizer DATA --out TOK`: discrete codes of image patches, learnt from images."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import torch
import tyro

from unmask.console.arguments import Peek, number, parse, peek
from unmask.console.fitting import fitting_warmup, free_folder
from unmask.console.hardware import (
    RunFlags,
    batch_words,
    check_decode,
    expected_words,
    fitting_part,
    flags_of,
    hardware_of,
    machine_words,
    measured,
    say_what_differs,
)
from unmask.console.output import bands_in_words, console, say_left_out, shown
from unmask.console.ranks import Job, begun_before, check_same, held, prepared, together
from unmask.console.resuming import folder_to_resume, going_on, newest_of, refuse_changes
from unmask.console.signals import signals
from unmask.data.kinds import find_source, parse_channels
from unmask.data.statistics import measure
from unmask.errors import RunError, SettingsError
from unmask.patches import patch_grid
from unmask.pictures.sheet import Row, sheet
from unmask.recipes import TOKENIZERS, Tokenizing, choose_tokenizer, find_tokenizer
from unmask.runs.codes import Coded, Judged, check_patches, judge, write_judged
from unmask.runs.folder import RunFolder
from unmask.runs.plan import seconds_of_step
from unmask.runs.run import parameter_count
from unmask.runs.tokenizer import Parted, TokenizerRun, new_tokenizer, open_parted
from unmask.runs.training import training
from unmask.targets.tokenizer import PatchTokenizer
from unmask.training.checkpoint import Checkpoint
from unmask.training.distributed import check_batch, here
from unmask.training.schedules import epochs_in_words, fitting_batch
from unmask.training.step_cost import Cost

Learning = Job[TokenizerRun, Parted, PatchTokenizer]

_HEADINGS = ["original", "tokenizer", "k-means"]
_ENOUGH, _NEAR_DECIBELS = 0.5, 2.0


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

    data_kind: str | None = None
    """What DATA is (folder, shards, parquet, tiff, digits); seen from what is there if not given."""

    channels: str | None = None
    """Channels of multi-band images to take, counted from 1, such as 4,3,2; all if not given."""

    no_data: float | None = None
    """The value of multi-band images that means that there is none; GeoTIFFs say so themselves."""

    recipe: Annotated[Tokenizing, tyro.conf.arg(name="")]
    """Everything that changes the result."""

    seed: int = 0
    """Seed of weights, order, crops, and of the images held out where there are no test images."""

    running: Annotated[RunFlags, tyro.conf.arg(name="")] = RunFlags()
    """What must not change the result."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    seen = peek(arguments)
    prepare = _resume if "resume" in seen.flags and not seen.help else _begin
    with together() as waiting:
        job = prepared(partial(prepare, arguments, seen), _join, waiting)
        return 0 if job is None else _train(job)


def _begin(arguments: list[str], seen: Peek) -> Learning | None:
    if seen.help:
        _parse(
            arguments, Arguments(recipe=find_tokenizer(seen.flags.get("recipe", "tokenizer-b16")))
        )
    if not seen.words:
        raise SettingsError("which images? `unmask tokenizer FOLDER --out TOK`")
    if "recipe" in seen.flags:
        find_tokenizer(seen.flags["recipe"])  # a misspelt name should not wait for a scan
    bands = parse_channels(seen.flags.get("channels"))
    no_data = seen.flags.get("no-data")
    spec = find_source(
        seen.words[0],
        seen.flags.get("data-kind"),
        bands,
        None if no_data is None else number("--no-data", no_data),
    )
    seed = seen.flags.get("seed", "0")
    parted = open_parted(spec, int(seed) if seed.isdecimal() else 0)
    name, default = _recipe(seen, parted)
    args = _parse(arguments, Arguments(recipe=default))
    recipe = fitting_warmup(args.recipe, seen)
    if (before := begun_before(args.out, name, seen.words[0])) is not None:
        old = before.read_tokenizer()
        if (old.recipe, old.data, old.seed) == (recipe, spec, args.seed):
            return _resume(again := ["--resume", str(before.root)], peek(again))
    folder = RunFolder(args.out or free_folder(name, seen.words[0]))
    folder.check_free()
    _say_images(parted)
    check_patches(recipe, parted.train)
    check_batch(recipe.batch_size, paired=False)
    hardware = hardware_of(
        args.running.machine,
        in_memory=parted.train.in_memory,
        batch_size=recipe.batch_size,
        shard=args.running.shard,
        decode=args.running.decode,
    )
    check_decode(hardware, parted.train, recipe.views)
    run = new_tokenizer(
        name,
        recipe,
        spec,
        parted.train,
        measure(parted.train),
        hardware,
        seed=args.seed,
        save_every_minutes=args.running.save_every_minutes,
        max_set_aside=args.running.max_set_aside,
    )
    tokenizer = run.build()
    cost = measured(tokenizer, recipe, parted.train, hardware)
    fitting = fitting_part(cost, recipe.batch_size, args.running.machine.micro_batch, hardware)
    run = replace(run, hardware=fitting)
    _say_plan(run, tokenizer, cost, seconds_of_step(run, parted.train, cost))
    folder.create(run)
    return Job(run, folder, parted, tokenizer, None)


def _resume(arguments: list[str], seen: Peek) -> Learning | None:
    folder = folder_to_resume(seen)
    run = folder.read_tokenizer()
    old = Arguments(
        recipe=run.recipe,
        recipe_name=run.recipe_name,
        resume=str(folder.root),
        seed=run.seed,
        running=flags_of(run),
    )
    args = _parse(arguments, old)
    _refuse_changes(args, old)
    check_batch(run.recipe.batch_size, paired=False)
    changed = going_on(run, args.running)
    found = newest_of(folder, run)
    step = found.info.step if found else 0
    if step >= run.steps and folder.results.exists():
        console.print(f"{folder.root} is finished: {run.steps:,} of {run.steps:,} steps are done")
        return None
    parted = open_parted(run.data, run.seed)
    if parted.train.fingerprint != run.fingerprint:
        raise RunError(
            f"the images of this tokenizer have changed ({run.images:,} then, {len(parted.train):,} now, or other "
            "names or sizes), so it cannot go on exactly; put them back, or begin anew"
        )
    check_decode(changed.hardware, parted.train, run.recipe.views)
    say_what_differs(changed.hardware, run.hardware, run.torch_version)
    console.print(f"continuing {folder.root} from step {step:,} of {run.steps:,}")
    return Job(changed, folder, parted, run.build(), found)


def _join(folder: RunFolder, run: Any, start: Checkpoint | None) -> Learning:
    """The job that another process has prepared, if this one sees the same images."""
    run = TokenizerRun.read(run)
    parted = open_parted(run.data, run.seed)
    check_same(parted.train, run.fingerprint)
    return Job(run, folder, parted, run.build(), start)


def _train(job: Learning) -> int:
    """Train until the end or a signal, then say what the codes keep."""
    run, folder, parted = job.run, job.folder, job.data
    torch.set_num_threads(run.hardware.threads)
    with held(folder), signals() as stop:
        reports = training(run, folder, parted.train, job.module, stop.event, job.start)
        for _ in shown(reports, run.recipe_name):
            pass
        if stop.event.is_set():
            console.print(
                f"stopped and saved; continue with:\nunmask tokenizer --resume {folder.root}"
            )
            return 128 + stop.signal
        if here().first:
            _judge(run, folder, parted)
    return 0


def _judge(run: TokenizerRun, folder: RunFolder, parted: Parted) -> None:
    """Judge what was saved on images that it has not seen, and say how to use it."""
    newest, _ = folder.newest()
    assert newest is not None
    tokenizer = run.build()
    tokenizer.load_state_dict(newest.read("model"))
    console.print("judging it beside k-means ...")
    result, pictures, unreadable = judge(tokenizer, run, parted.train, parted.test)
    write_judged(folder, result)
    if folder.set_aside.exists():
        console.print(f"images that could not be used are listed in {folder.set_aside}")
    if unreadable:
        name, reason = unreadable[0]
        console.print(f"{len(unreadable)} held-out images left out, the first {name}: {reason}")
    lines = _said(result)
    picture = folder.root / "codes.png"
    rows = [Row(each.pictures, each.name) for each in pictures]
    sheet(_HEADINGS, rows, lines[1:3]).save(picture)
    for line in (*lines, *_verdict(result)):
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
        + ": k-means of normalised patches, whose mean and deviation it is given beside the code",
    ]


def _verdict(result: Judged) -> list[str]:
    """What is not as it should be, and what would help."""
    found: list[str] = []
    if result.tokenizer.perplexity < _ENOUGH * result.codes:
        found.append(
            f"fewer than half of the codes carry something (perplexity {result.tokenizer.perplexity:,.0f} of "
            f"{result.codes:,}); train longer (--epochs), or take fewer with --tokenizer.codes"
        )
    if result.tokenizer.psnr < result.kmeans.psnr - _NEAR_DECIBELS:
        found.append(
            f"{result.kmeans.psnr - result.tokenizer.psnr:.1f} dB behind k-means; train longer (--epochs), or take "
            "objective.target:kmeans-tokens"
        )
    return found


def _parse(arguments: list[str], default: Arguments) -> Arguments:
    return parse(
        Arguments,
        arguments,
        "tokenizer",
        f"Learn discrete codes of image patches. Recipes: {', '.join(TOKENIZERS)}.",
        default,
    )


def _recipe(seen: Peek, parted: Parted) -> tuple[str, Tokenizing]:
    """The recipe asked for, or one that suits the images, with a batch that suits their number."""
    if "recipe" in seen.flags:
        return seen.flags["recipe"], find_tokenizer(seen.flags["recipe"])
    size = parted.train.typical_size()
    name = choose_tokenizer(size)
    console.print(
        f"recipe {name}, for images of about {size.height} x {size.width} pixels; --recipe takes another: "
        f"{', '.join(other for other in TOKENIZERS if other != name)}"
    )
    recipe = TOKENIZERS[name].recipe
    fitting = fitting_batch(recipe.batch_size, len(parted.train))
    if fitting < recipe.batch_size and "batch-size" not in seen.flags:
        console.print(
            f"batch cut from {recipe.batch_size:,} to {fitting:,}, since there are {len(parted.train):,} images "
            "(the learning rate goes with it); --batch-size sets it"
        )
        recipe = replace(recipe, batch_size=fitting)
    return name, recipe


def _refuse_changes(args: Arguments, old: Arguments) -> None:
    if args.data is not None:
        raise SettingsError("--resume finds the images by itself: leave out DATA")
    kept = ("recipe_name", "out", "data_kind", "channels", "no_data", "recipe", "seed")
    refuse_changes(args, old, kept, "unmask tokenizer DATA")


def _say_images(parted: Parted) -> None:
    train = parted.train
    bands = bands_in_words(train.channels)
    console.print(
        f"images    {len(train):,} {bands} to learn from in {train.where}, {len(parted.test):,} to judge by "
        f"({parted.split})"
    )
    say_left_out(train)


def _say_plan(
    run: TokenizerRun, tokenizer: PatchTokenizer, cost: Cost, step_seconds: float
) -> None:
    recipe, hardware = run.recipe, run.hardware
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
