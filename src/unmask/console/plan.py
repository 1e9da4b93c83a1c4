"""What `unmask pretrain` prints before the first step: the images found, and the plan of the run."""

from collections import Counter

from unmask.annotations import annotated_words, is_dense
from unmask.channels import ChannelStatistics
from unmask.console.hardware import batch_words, expected_words, machine_words
from unmask.console.output import bands_in_words, console, say_left_out
from unmask.contracts import ImageSource, Size
from unmask.data.multi_views import sizes_of
from unmask.recipes import Recipe
from unmask.runs.plan import Plan
from unmask.runs.run import Run
from unmask.training.schedules import epochs_in_words
from unmask.training.step_cost import Cost
from unmask.traits import Explained, Hiding, Masked


def say_images(splits: tuple[str, ...], source: ImageSource, size: Size) -> None:
    """Print which images were found, and which files were skipped."""
    known = source.annotations
    words = annotated_words(known) if is_dense(known) else f"in {len(known.names)} classes"
    classes = f" {words} (labels are not used for training)" if known.names else ""
    bands = bands_in_words(source.channels)
    typical = source.typical_size()
    console.print(
        f"images    {len(source):,} {bands}{classes} in {source.where}, "
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


def say_plan(run: Run, recipe: Recipe, plan: Plan, cost: Cost) -> None:
    """Print model, batch, steps and machine, and the expected time and memory."""
    hardware, encoder = run.hardware, recipe.encoder
    each = recipe.batch_size / run.images
    several = f" ({each:.1f} times the number of images)" if each > 1 else ""
    *smaller, _ = sizes = recipe.every_size()
    rising = (
        f"sizes     {', '.join(map(str, sizes))} pixels, {epochs_in_words(recipe.epochs / len(sizes))} each\n"
        if smaller
        else ""
    )
    at_most = f"at most; measured at {recipe.image_size} pixels: " if smaller else ""
    rebuilds = isinstance(recipe.objective, Masked)
    rest = "in the decoder" if rebuilds else "used only in training"
    console.print(
        f"model     {encoder.depth} blocks of {encoder.embed_dim}, patches of {encoder.patch_size}: "
        f"{plan.encoder_parameters / 1e6:.2f} M parameters, and {plan.decoder_parameters / 1e6:.2f} M "
        f"{rest}\n"
        f"{visible_words(recipe, plan)}\n"
        f"batch     {batch_words(recipe.batch_size, hardware)}{several}, learning rate up to "
        f"{recipe.schedule.peak(recipe.batch_size):.3g}\n"
        f"steps     {run.steps:,} ({epochs_in_words(recipe.epochs)})\n"
        f"{rising}"
        f"machine   {machine_words(hardware)}\n"
        f"expected  {at_most}{expected_words(cost, plan.step_seconds, run.steps, hardware)}"
    )
