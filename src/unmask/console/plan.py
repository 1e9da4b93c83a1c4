"""Before the first step of a training command: its recipe is fitted to the images, and its plan is printed."""

from collections import Counter
from dataclasses import replace
from typing import TypeVar

from unmask.annotations import annotated_words, is_dense
from unmask.channels import ChannelStatistics
from unmask.console.arguments import Peek
from unmask.console.output import console, duration, gib, images_in_words, say_left_out
from unmask.console.screen import say_waiting
from unmask.contracts import ImageSource, Size
from unmask.data.multi_views import sizes_of
from unmask.errors import SettingsError, number_of
from unmask.recipes import Recipe, Tokenizing, Transfer
from unmask.recipes.by_time import batch_for, with_more_steps
from unmask.runs.plan import Plan, shared_memory_needed
from unmask.runs.run import Run
from unmask.training.hardware import Hardware, shared_memory_free
from unmask.training.schedules import epochs_in_words, steps_of
from unmask.training.step_cost import Cost
from unmask.traits import Explained, Hiding

_DAY = 86400.0  # seconds; longer runs are warned about

R = TypeVar("R", Recipe, Transfer, Tokenizing)


def with_shorter_warmup(recipe: R, command_line: Peek) -> R:
    """Shorten the warm-up of a recipe that runs for far fewer epochs than it was made for."""
    longest = recipe.epochs / 10
    if recipe.schedule.warmup_epochs <= longest or "schedule.warmup-epochs" in command_line.flags:
        if recipe.schedule.warmup_epochs >= recipe.epochs:
            raise SettingsError(
                f"a warm-up of {recipe.schedule.warmup_epochs:g} epochs fills the whole run of "
                f"{recipe.epochs:g}; shorten it with --schedule.warmup-epochs"
            )
        return recipe
    console.print(
        f"warm-up   cut from {recipe.schedule.warmup_epochs:g} to {longest:g} epochs, a tenth of "
        f"{recipe.epochs:g}; --schedule.warmup-epochs sets it"
    )
    return replace(recipe, schedule=replace(recipe.schedule, warmup_epochs=longest))


def with_smaller_batch(recipe: R, images: int, command_line: Peek) -> R:
    """Cut the batch of a recipe when there are few images, unless a flag sets it."""
    batch_size = batch_for(recipe, images)
    if batch_size == recipe.batch_size or "batch-size" in command_line.flags:
        return recipe
    console.print(
        f"batch     cut from {recipe.batch_size:,} to {batch_size:,} because there are {images:,} images "
        "(the learning rate scales with it); --batch-size sets it"
    )
    return replace(recipe, batch_size=batch_size)


def with_smaller_parts(recipe: Recipe, images: int, command_line: Peek) -> Recipe:
    """Cut the batch of a recipe that would take few steps, unless a flag sets it; a flag for the rate stays too."""
    if {"batch-size", "schedule.base-lr"} & set(command_line.flags):
        return recipe
    smaller = with_more_steps(recipe, images)
    if smaller != recipe:
        steps = steps_of(recipe.epochs, images, recipe.batch_size)
        old, new = (f"{one.schedule.peak(one.batch_size):.3g}" for one in (recipe, smaller))
        rate = "" if old == new else f", and the highest learning rate from {old} to {new}"
        console.print(
            f"batch     cut from {recipe.batch_size:,} to {smaller.batch_size:,}{rate}, because "
            f"{epochs_in_words(recipe.epochs)} of {number_of(images, 'image')} would be {number_of(steps, 'step')}; --batch-size sets it"
        )
    return smaller


def warn_of_batch(recipe: Recipe | Transfer | Tokenizing, images: int) -> None:
    """Warn if a batch holds every image several times."""
    each = recipe.batch_size / images
    if each > 1:
        console.warn(
            f"a batch of {recipe.batch_size:,} is {each:.1f} times your {images:,} images, so every step sees each image "
            f"several times; --batch-size {batch_for(recipe, images)} would suit them"
        )


def say_images(splits: tuple[str, ...], source: ImageSource, size: Size) -> None:
    """Print which images were found, and which files were skipped."""
    known = source.annotations
    words = annotated_words(known) if is_dense(known) else f"in {len(known.names)} classes"
    classes = f" {words} (labels are not used for training)" if known.names else ""
    typical = source.typical_size()
    console.print(
        f"images    {images_in_words(source)}{classes} in {source.where}, "
        f"about {typical.height} x {typical.width} pixels"
    )
    if len(splits) > 1:
        console.print(
            "          (only the train folder is used; the test folder is kept for evaluation)"
        )
    say_left_out(source)
    if source.smallest_side < min(size):
        console.print(
            f"          some are smaller than the crop ({source.smallest_side} < {min(size)} pixels) "
            "and will be enlarged"
        )


def say_statistics(statistics: ChannelStatistics) -> None:
    """Print mean and deviation of each channel, and where they come from."""

    def listed(numbers: tuple[float, ...]) -> str:
        return " ".join(f"{number:.4g}" for number in numbers)

    console.print(
        f"channels  mean {listed(statistics.mean)}; deviation {listed(statistics.std)} "
        f"({statistics.source})"
    )
    if statistics.values == "float32":
        ends = (f"{a:.4g} to {b:.4g}" for a, b in zip(statistics.low, statistics.high, strict=True))
        console.print(f"          96 % of values lie within {', '.join(ends)}")


def visible_words(recipe: Recipe, plan: Plan) -> str:
    """What the encoder sees of an image, in words."""
    objective = recipe.objective
    if isinstance(objective, Explained):
        heading, words = objective.in_words(plan.kept, plan.patches, recipe.image_size)
        return f"{heading:<9} {words}"
    if isinstance(objective, Hiding):
        return f"masking   {plan.kept} of {plan.patches} patches of {recipe.image_size} pixels are visible"
    views = Counter(sizes_of(recipe.views, recipe.image_size)).items()
    return f"views     {' and '.join(f'{count} of {size} pixels' for size, count in views)}"


def say_plan(
    run: Run,
    model: str,
    cost: Cost,
    step_seconds: float,
    *,
    after_steps: str = "",
    at_most: str = "",
) -> None:
    """Print the plan of a run: `model`, batch, steps and machine, and the expected time and memory."""
    say_waiting()
    recipe, hardware = run.recipe, run.hardware
    console.print(
        f"{model}\n"
        f"batch     {_batch(recipe.batch_size, hardware)}, learning rate up to "
        f"{recipe.schedule.peak(recipe.batch_size):.3g}\n"
        f"steps     {run.steps:,} ({epochs_in_words(recipe.epochs)})\n"
        f"{after_steps}"
        f"machine   {_machine(hardware)}\n"
        f"expected  {at_most}{_expected(cost, step_seconds * run.steps, step_seconds, hardware)}"
    )
    if not hardware.shard and step_seconds * run.steps > _DAY:
        console.warn(
            f"this run takes about {duration(step_seconds * run.steps)} here; it can be stopped with Ctrl-C and continued "
            "with --resume; fewer --epochs, a smaller recipe or a GPU make it shorter"
        )


def say_shared_memory(run: Run, source: ImageSource) -> None:
    """Warn if the loading processes may need more shared memory than there is, as in a container of docker."""
    free = shared_memory_free()
    if free is None or (needed := shared_memory_needed(run, source)) <= free:
        return
    console.warn(
        f"{number_of(run.hardware.workers, 'loading process', 'es')} {'holds' if run.hardware.workers == 1 else 'hold'} about {gib(needed)} in /dev/shm, which has {gib(free)} free; "
        "enlarge it (docker run --shm-size=8g), or use fewer --workers, or --workers 0"
    )


def _batch(batch_size: int, hardware: Hardware) -> str:
    part = batch_size // hardware.processes
    pieces = -(-part // hardware.micro_batch)
    words = f"{batch_size}"
    if hardware.processes > 1:
        words += f", {part} on each of {hardware.processes} processes"
    return words + (f" in {pieces} micro-batches of {hardware.micro_batch}" if pieces > 1 else "")


def _machine(hardware: Hardware) -> str:
    sharing = " sharing one model" if hardware.shard else ""
    each = f"{hardware.processes} processes{sharing}, each " if hardware.processes > 1 else ""
    scaled = " with a scaled loss" if hardware.precision == "float16" else ""
    return (
        f"{each}{hardware.device}, {hardware.precision}{scaled}, {number_of(hardware.threads, 'thread')}, "
        f"{number_of(hardware.workers, 'loading process', 'es')}{', JPEGs decoded on the GPU' if hardware.decode == 'gpu' else ''}"
    )


def _expected(cost: Cost, seconds: float, step_seconds: float, hardware: Hardware) -> str:
    if hardware.shard:
        return "not measured; if memory runs out, set a smaller --micro-batch"
    memory = cost.memory(hardware.micro_batch) + cost.bytes_process
    return f"{duration(seconds)} ({step_seconds:.2f} s a step), {gib(memory)} of memory"
