"""What is printed of a fine-tuning run, which recipe it takes, and what is written when it is done."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from unmask.annotations import annotated_words, is_dense
from unmask.console.arguments import Peek
from unmask.console.classes import (
    ClassFiles,
    draw_confusion,
    draw_examples,
    draw_mistakes,
    say_table,
    write_table,
)
from unmask.console.output import console, other_recipes, say_left_out
from unmask.console.plan import say_plan, with_smaller_batch
from unmask.console.typed import data_words
from unmask.contracts import ImageSource, Size
from unmask.data import Held
from unmask.data.annotated import found_in
from unmask.data.noise import WHOLE
from unmask.errors import SettingsError, number_of, typed
from unmask.formats.model import ModelSpec
from unmask.recipes import (
    TRANSFERS,
    Transfer,
    choose_dense,
    choose_scratch,
    choose_transfer,
    find_transfer,
    published_dense,
)
from unmask.runs.finetune import Finetune, for_annotations, method_for
from unmask.runs.folder import RunFolder
from unmask.runs.job import Images, Outcome
from unmask.runs.plan import seconds_of_step
from unmask.runs.run import Run, parameter_count
from unmask.runs.weights import Found, shape_of, with_patches_of
from unmask.training.distributed import here
from unmask.training.step_cost import Cost
from unmask.traits import Tabular

EXAMPLES = "predictions.png"
"""The file of test images beside annotations and predictions."""


def recipe_of(
    command_line: Peek, wanted: str | None, weights: Found | None, source: ImageSource
) -> tuple[str, Transfer]:
    """The requested recipe, or one that suits the encoder or the images; adapted to annotations and batch."""
    if wanted is not None:
        name, recipe = wanted, find_transfer(wanted)
        if weights and not recipe.encoder.fits(
            with_patches_of(weights, recipe).weights.spec.encoder
        ):
            raise SettingsError(
                f"the encoder has {shape_of(weights.weights.spec.encoder)}, and recipe {name} is for "
                f"{shape_of(recipe.encoder)}; leave out --recipe to get one that fits the weights"
            )
    else:
        name, recipe = _chosen(weights.weights.spec if weights else None, source)
    recipe = for_annotations(recipe, source.annotations)
    return name, with_smaller_batch(recipe, len(source), command_line)


def _chosen(spec: ModelSpec | None, source: ImageSource) -> tuple[str, Transfer]:
    """A recipe for the weights, if there are any, and for the images."""
    kind, encoder = source.annotations, spec.encoder if spec else None
    size = source.typical_size()
    if is_dense(kind):
        name = choose_dense(encoder, kind, len(source))
    else:
        name = choose_transfer(encoder) if encoder else choose_scratch(size)
    recipe = TRANSFERS[name].recipe
    if spec is None:
        console.print(
            f"recipe    {name}, for images of about {size.height} x {size.width} pixels; {other_recipes()}"
        )
        return name, recipe
    shape = "" if recipe.encoder.fits(spec.encoder) else f" ({shape_of(spec.encoder)})"
    console.print(
        f"recipe    {name}, with the encoder of the weights{shape}; --recipe chooses another"
    )
    if not is_dense(kind):
        return name, replace(recipe, encoder=spec.encoder, image_size=spec.image_size)
    if published_dense(encoder, kind, len(source)):
        return name, recipe
    return name, with_encoder(recipe, spec)


def with_encoder(recipe: Transfer, spec: ModelSpec) -> Transfer:
    """A recipe for class maps or objects with the encoder of weights, at the nearest size that its patches divide."""
    patch = spec.encoder.patch_size
    size = Size(*(max(1, round(side / patch)) * patch for side in recipe.image_size))
    return replace(recipe, encoder=spec.encoder, image_size=size)


def say_found(images: Images) -> None:
    """Print which images were found, and what dense annotations hold."""
    train, test = images.train, images.test
    assert test is not None
    held_out = f"{len(images.held_out):,} for choosing thresholds, " if images.held_out else ""
    console.print(
        f"images    {number_of(len(train), 'image')} {annotated_words(train.annotations)} for training, {held_out}"
        f"{len(test):,} for testing ({images.split}), in {train.where}"
    )
    if (found := found_in(train)) is not None:
        for line in found.lines():
            console.print(f"          {line}")
    say_left_out(train)


def say_finetuning(
    run: Run, recipe: Transfer, module: nn.Module, images: Images, cost: Cost
) -> None:
    """Print the plan of a run."""
    encoder, keep = recipe.encoder, recipe.noise.patch_keep
    patches = "" if keep == WHOLE else f"patches   {keep} shown; the expected time assumes all\n"
    learning = sum(p.numel() for p in module.parameters() if p.requires_grad)
    size = sum(parameter_count(part) for name, part in module.named_children() if name == "encoder")
    say_plan(
        run,
        f"model     {number_of(encoder.depth, 'block')} of {encoder.embed_dim}, patches of {encoder.patch_size}, "
        f"{recipe.image_size} pixels; trained: {recipe.task.trained_blocks} "
        f"({learning / 1e6:.2f} M parameters with the head; the encoder has {size / 1e6:.2f} M)",
        cost,
        seconds_of_step(run, images.train, cost),
        after_steps=patches,
    )


def say_done(run: Run, folder: RunFolder, images: Images, outcome: Outcome | None) -> None:
    """Print the scores, which files were written, and what to type next."""
    assert outcome is not None
    files = _files(folder)
    score = outcome.score
    if isinstance(outcome.score, Tabular):
        say_table(outcome.score, files.table)
    rate = outcome.result["images_per_second"]
    console.result(f"test      {score.line()}, {rate:,.0f} images/s")
    for path in files:
        if path is not None and path.exists():
            console.print(f"written: {path}")
    use = typed("predict", folder.root, *data_words(run.data))
    if isinstance(run.data, Held):
        method = method_for(images.train.annotations, locates=bool(outcome.examples))
        use = f"unmask.load({str(folder.root)!r}).{method}(images)"
    console.print(f"done: {folder.root}\nuse it:  {use}")


def longer(run: Run, root: Path, epochs: str) -> str:
    """How to fine-tune the encoder of a fine-tuned run again; its head is not kept."""
    if isinstance(run.data, Held):
        return ""
    words = typed("finetune", root, *data_words(run.data), "--epochs", epochs)
    return f"fine-tune its encoder again, with a new head: {words}"


def _files(folder: RunFolder) -> ClassFiles:
    root = folder.root
    return ClassFiles(
        root / "classes.csv",
        root / "confusion.png",
        root / "mistakes.png",
        root / EXAMPLES,
    )


def draw_scores(folder: RunFolder, outcome: Outcome) -> None:
    """Write the scores of each class, and draw the confusion matrix and the surest mistakes, or examples of predictions."""
    files, score = _files(folder), outcome.score
    if not here().first:
        return
    job = Run.read(folder, Finetune.command).job
    assert isinstance(job, Finetune)
    if isinstance(outcome.score, Tabular):
        write_table(outcome.score, files.table)
    draw_examples(outcome.examples, job.annotations, folder.root / EXAMPLES)
    if outcome.confusion is not None:
        title = f"{folder.root.name}: {score.measure} {score.value:.1%} on {score.images:,} images"
        draw_confusion(outcome.confusion, job.annotations.names, title, files.confusion)
        draw_mistakes(outcome.pictures, files.mistakes)
