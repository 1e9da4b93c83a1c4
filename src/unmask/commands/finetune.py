"""`unmask finetune ENCODER DATA`: a classifier from an encoder, or from nothing."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from unmask.channels import ChannelStatistics
from unmask.console.arguments import Peek, as_typed, parse, peek
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
from unmask.console.output import console, say_refused, shown
from unmask.console.ranks import Job, begun_before, check_same, held, prepared, together
from unmask.console.resuming import folder_to_resume, going_on, newest_of, refuse_changes
from unmask.console.signals import signals
from unmask.contracts import ImageSource
from unmask.data import AnySource, Tiff
from unmask.data.kinds import find_source
from unmask.data.labelled import Labelled, open_labelled
from unmask.data.noise import WHOLE, PatchKeep
from unmask.data.statistics import measure
from unmask.errors import RunError, SettingsError
from unmask.formats.model import ModelSpec
from unmask.recipes import (
    TRANSFERS,
    Transfer,
    choose_scratch,
    choose_transfer,
    find_transfer,
)
from unmask.runs.finetune import Accuracy, accuracy_of, finetune, whole_of, write_accuracy
from unmask.runs.folder import RunFolder
from unmask.runs.init import adapted, shape_of, statistics_for
from unmask.runs.plan import seconds_of_step
from unmask.runs.run import parameter_count
from unmask.runs.transfer import TransferRun, new_transfer
from unmask.runs.weights import Found, find_weights
from unmask.tasks.classify import Classifier
from unmask.training.checkpoint import Checkpoint
from unmask.training.distributed import check_batch, here
from unmask.training.schedules import epochs_in_words, fitting_batch
from unmask.training.step_cost import Cost

Tuning = Job[TransferRun, Labelled, Classifier]

SCRATCH = "scratch"
"""What stands for ENCODER where there is none."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask finetune`."""

    encoder: tyro.conf.Positional[str | None] = None
    """A run, weights of unmask, a published MAE, timm or transformers; or the word scratch."""

    data: tyro.conf.Positional[str | None] = None
    """Labelled images: a folder of class folders (train/ and test/ or val/ are used), or digits."""

    recipe_name: Annotated[str | None, tyro.conf.arg(name="recipe")] = None
    """A recipe's name, or FILE.py:NAME; chosen from the encoder if not given."""

    trained_blocks: str | None = None
    """How much of the encoder learns: all, the last N blocks, half (the last one's MLP), or 0; the
    recipe's if not given."""

    patch_keep: str | None = None
    """Share of patches to show in training, such as 0.5, or a first and a last one, such as 0.25:1, which
    ends on whole images; fewer are faster."""

    out: str | None = None
    """Folder of the run; runs/RECIPE-DATA if not given."""

    resume: str | None = None
    """Continue this run exactly where it stopped."""

    data_kind: str | None = None
    """What DATA is (folder, shards, parquet, tiff, digits); seen from what is there if not given."""

    recipe: Annotated[Transfer, tyro.conf.arg(name="")]
    """Everything that changes the result."""

    seed: int = 0
    """Seed of the head, weights from scratch, order, crops, mixing, and the split where there is none."""

    running: Annotated[RunFlags, tyro.conf.arg(name="")] = RunFlags()
    """What must not change the result."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    seen = peek(arguments)
    prepare = _resume if "resume" in seen.flags and not seen.help else _begin
    with together() as waiting:
        job = prepared(partial(prepare, arguments, seen), _join, waiting)
        return 0 if job is None else _train(job)


def _begin(arguments: list[str], seen: Peek) -> Tuning | None:
    name = seen.flags.get("recipe", "finetune-b16")
    if seen.help:
        _parse(arguments, Arguments(recipe=find_transfer(name)))
    if len(seen.words) < 2:
        raise SettingsError(
            "which encoder, and which images? `unmask finetune runs/NAME FOLDER`, or `unmask finetune "
            "scratch FOLDER`; FOLDER holds a folder for each class"
        )
    if "recipe" in seen.flags:
        find_transfer(name)  # a misspelt name should not wait for a scan of the images
    found = _weights(seen.words[0])
    spec = _source(seen, found)
    seed = seen.flags.get("seed", "0")
    labelled = open_labelled(spec, int(seed) if seed.isdecimal() else 0)
    name, default = _recipe(seen, found, labelled.train)
    args = _parse(arguments, Arguments(recipe=default))
    recipe = args.recipe
    if args.trained_blocks is not None:
        recipe = replace(recipe, task=replace(recipe.task, trained_blocks=args.trained_blocks))
    if args.patch_keep is not None:
        keep = PatchKeep.parse(args.patch_keep)
        recipe = replace(recipe, noise=replace(recipe.noise, patch_keep=keep))
    if recipe != default or recipe.epochs < recipe.schedule.warmup_epochs:
        recipe = fitting_warmup(recipe, seen)
    if (before := begun_before(args.out, name, seen.words[1])) is not None:
        old = before.read_transfer()
        if (old.recipe, old.data, old.seed) == (recipe, spec, args.seed):
            return _resume(again := ["--resume", str(before.root)], peek(again))
    folder = RunFolder(args.out or free_folder(name, seen.words[1]))
    folder.check_free()
    _say_images(labelled)
    check_batch(recipe.batch_size, paired=recipe.pairs)
    statistics = _statistics(found, labelled.train)
    init = None
    if found is not None:
        init = _words(found, recipe, statistics)
        console.print(f"weights   {init}")
    hardware = hardware_of(
        args.running.machine,
        in_memory=labelled.train.in_memory,
        batch_size=recipe.batch_size,
        shard=args.running.shard,
        decode=args.running.decode,
    )
    check_decode(hardware, labelled.train, recipe.views)
    run = new_transfer(
        name,
        recipe,
        spec,
        labelled,
        statistics,
        hardware,
        init=init,
        seed=args.seed,
        save_every_minutes=args.running.save_every_minutes,
        max_set_aside=args.running.max_set_aside,
    )
    weights = found.weights if found else None
    cost = measured(run.build(weights), recipe, labelled.train, hardware)
    fitting = fitting_part(cost, recipe.batch_size, args.running.machine.micro_batch, hardware)
    run = replace(run, hardware=fitting)
    classifier = run.build(weights)
    _say_plan(run, classifier, cost, seconds_of_step(run, labelled.train, cost))
    folder.create(run)
    first = None
    if found is not None:  # so that going on needs nothing but the folder
        folder.save(run, 0, classifier, run.recipe.optimizer.build(classifier))
        first, _ = folder.newest()
    return Job(run, folder, labelled, classifier, first)


def _resume(arguments: list[str], seen: Peek) -> Tuning | None:
    folder = folder_to_resume(seen)
    run = folder.read_transfer()
    old = _as_begun(run, folder)
    args = _parse(arguments, old)
    _refuse_changes(args, old)
    check_batch(run.recipe.batch_size, paired=run.recipe.pairs)
    changed = going_on(run, args.running)
    found = newest_of(folder, run)
    step = found.info.step if found else 0
    if step >= run.steps and folder.results.exists():
        console.print(f"{folder.root} is finished: {run.steps:,} of {run.steps:,} steps are done")
        return None
    labelled = open_labelled(run.data, run.seed)
    if (
        labelled.train.fingerprint != run.fingerprint
        or labelled.train.annotations.names != run.classes
    ):
        raise RunError(
            f"the images of this run have changed ({run.images:,} of {len(run.classes)} classes then, "
            f"{len(labelled.train):,} of {len(labelled.train.annotations.names)} now, or other names or sizes), so "
            "it cannot go on exactly; put them back, or begin anew"
        )
    check_decode(changed.hardware, labelled.train, run.recipe.views)
    say_what_differs(changed.hardware, run.hardware, run.torch_version)
    console.print(f"continuing {folder.root} from step {step:,} of {run.steps:,}")
    return Job(changed, folder, labelled, run.build(), found)


def _join(folder: RunFolder, run: Any, start: Checkpoint | None) -> Tuning:
    """The job that another process has prepared, if this one sees the same images."""
    run = TransferRun.read(run)
    labelled = open_labelled(run.data, run.seed)
    check_same(labelled.train, run.fingerprint)
    return Job(run, folder, labelled, run.build(), start)


def _train(job: Tuning) -> int:
    """Train until the end or a signal, then test, and say how to go on."""
    run, folder, labelled = job.run, job.folder, job.data
    torch.set_num_threads(run.hardware.threads)
    with held(folder), signals() as stop:
        reports = finetune(run, folder, labelled.train, job.module, stop.event, job.start)
        for _ in shown(reports, run.recipe_name):
            pass
        if stop.event.is_set():
            console.print(
                f"stopped and saved; continue with:\nunmask finetune --resume {folder.root}"
            )
            return 128 + stop.signal
        classifier = whole_of(job.module, run, folder)
        score, unreadable = accuracy_of(classifier, labelled.test, run, run.hardware)
        if here().first:
            write_accuracy(folder, score)
    if folder.set_aside.exists():
        console.print(f"images that could not be used are listed in {folder.set_aside}")
    if unreadable:
        name, reason = unreadable[0]
        console.print(f"{len(unreadable)} test images left out, the first {name}: {reason}")
    console.print(said(score, len(run.classes)))
    console.print(
        f"done: {folder.root}\nuse it:  unmask predict {folder.root} {as_typed(run.data)}"
    )
    return 0


def said(score: Accuracy, classes: int) -> str:
    """A score in a line."""
    top5 = f", top-5 {score.top5:.2%}" if classes > 5 else ""
    return (
        f"test      top-1 {score.top1:.2%}{top5} on {score.images:,} images (chance "
        f"{score.chance:.2%}), {score.images_per_second:,.0f} images/s"
    )


def _parse(arguments: list[str], default: Arguments) -> Arguments:
    return parse(
        Arguments,
        arguments,
        "finetune",
        "Train a classifier from an encoder, wholly or in part, or from scratch. Recipes: "
        f"{', '.join(TRANSFERS)}.",
        default,
    )


def _as_begun(run: TransferRun, folder: RunFolder) -> Arguments:
    return Arguments(
        recipe=run.recipe,
        recipe_name=run.recipe_name,
        resume=str(folder.root),
        seed=run.seed,
        running=flags_of(run),
    )


def _refuse_changes(args: Arguments, old: Arguments) -> None:
    if args.encoder is not None:
        raise SettingsError("--resume finds weights and images by itself: leave out both")
    kept = ("recipe_name", "trained_blocks", "patch_keep", "out", "data_kind", "recipe", "seed")
    refuse_changes(args, old, kept, "unmask finetune ENCODER DATA")


def _weights(encoder: str) -> Found | None:
    if encoder == SCRATCH and not Path(encoder).exists():
        return None
    found = find_weights(encoder)
    for line in (*found.damaged, *found.weights.notes):
        console.print(f"{encoder}: {line}")
    return found


def _source(seen: Peek, found: Found | None) -> AnySource:
    """DATA, with the channels of multi-band images that the encoder was pretrained on."""
    data = found.run.data if found and found.run else None
    taken = data if isinstance(data, Tiff) else Tiff(path="")
    return find_source(seen.words[1], seen.flags.get("data-kind"), taken.channels, taken.no_data)


def _recipe(seen: Peek, found: Found | None, source: ImageSource) -> tuple[str, Transfer]:
    """The recipe asked for, or one that suits the encoder or the images, with a batch that suits their number."""
    spec = found.weights.spec if found else None
    if "recipe" in seen.flags:
        name = seen.flags["recipe"]
        recipe = find_transfer(name)
        _check_encoder(spec, recipe, name)
    elif spec is not None:
        name = choose_transfer(spec.encoder)
        recipe = TRANSFERS[name].recipe
        kept = "" if recipe.encoder == spec.encoder else f" ({shape_of(spec.encoder)})"
        recipe = replace(recipe, encoder=spec.encoder, image_size=spec.image_size)
        console.print(
            f"recipe {name}, with the encoder of the weights{kept}; --recipe takes another"
        )
    else:
        size = source.typical_size()
        name = choose_scratch(size)
        recipe = TRANSFERS[name].recipe
        console.print(
            f"recipe {name}, for images of about {size.height} x {size.width} pixels; --recipe takes another: "
            f"{', '.join(other for other in TRANSFERS if other != name)}"
        )
    fitting = fitting_batch(recipe.batch_size, len(source))
    if fitting < recipe.batch_size and "batch-size" not in seen.flags:
        console.print(
            f"batch cut from {recipe.batch_size:,} to {fitting:,}, since there are {len(source):,} images "
            "(the learning rate goes with it); --batch-size sets it"
        )
        recipe = replace(recipe, batch_size=fitting)
    return name, recipe


def _check_encoder(spec: ModelSpec | None, recipe: Transfer, name: str) -> None:
    if spec is not None and spec.encoder != recipe.encoder:
        raise SettingsError(
            f"the encoder has {shape_of(spec.encoder)}, and recipe {name} is for "
            f"{shape_of(recipe.encoder)}; leave out --recipe to take one that fits the weights"
        )


def _statistics(found: Found | None, source: ImageSource) -> ChannelStatistics:
    """The encoder's own, where the images have such channels; else measured."""
    its = statistics_for(found.weights.spec, source) if found else None
    return its or measure(source)


def _words(found: Found, recipe: Transfer, statistics: ChannelStatistics) -> str:
    spec = found.weights.spec
    step = "" if found.step is None else f", step {found.step:,}"
    return "; ".join([f"{spec.origin}{step}", *adapted(spec, recipe, statistics)])


def _say_images(labelled: Labelled) -> None:
    train = labelled.train
    console.print(
        f"images    {len(train):,} of {len(train.annotations.names)} classes to learn from, "
        f"{len(labelled.test):,} to test on ({labelled.split}), in {train.where}"
    )
    say_refused(train)


def _say_plan(run: TransferRun, classifier: Classifier, cost: Cost, step_seconds: float) -> None:
    recipe, hardware = run.recipe, run.hardware
    encoder, task = recipe.encoder, recipe.task
    learning = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    keep = recipe.noise.patch_keep
    hidden = "" if keep == WHOLE else f"patches   {keep} shown; the time is for all of them\n"
    console.print(
        f"model     {encoder.depth} blocks of {encoder.embed_dim}, patches of {encoder.patch_size}, "
        f"{recipe.image_size} pixels; trained: {task.trained_blocks} "
        f"({learning / 1e6:.2f} M parameters with the head; the encoder has "
        f"{parameter_count(classifier.encoder) / 1e6:.2f} M)\n"
        f"batch     {batch_words(recipe.batch_size, hardware)}, learning rate up to "
        f"{recipe.schedule.peak(recipe.batch_size):.3g}\n"
        f"steps     {run.steps:,} ({epochs_in_words(recipe.epochs)})\n"
        f"{hidden}"
        f"machine   {machine_words(hardware)}\n"
        f"expected  {expected_words(cost, step_seconds, run.steps, hardware)}"
    )
