"""Existing weights: find them by their path, and start a run from them (`--init`)."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import nn

from unmask.annotations import DENSE
from unmask.asked import check_weights, hub_name
from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource
from unmask.data import AnySource
from unmask.data.band_files import BandReading
from unmask.encoders.vit import PlainBlocks, ViT
from unmask.errors import RunError, SettingsError, number_of
from unmask.formats import Hints, read_named
from unmask.formats.adapt import adapt
from unmask.formats.describe import check_fit
from unmask.formats.hub import pull
from unmask.formats.model import ModelSpec, Weights, split
from unmask.formats.repatch import repatched
from unmask.patches import patch_grid
from unmask.recipes import RECIPES, Recipe, Transfer
from unmask.runs.folder import RunFolder
from unmask.runs.pretrain import Pretrain
from unmask.runs.run import Run
from unmask.runs.saving import Saver
from unmask.targets import NormalizedPixels, Pixels
from unmask.training.checkpoint import Checkpoint
from unmask.traits import Decoding, Masked

_SMALL_PATCH = 4  # pixels; weights with such patches get the settings of mae-ti4
_NO_HINTS = Hints()


class Found(NamedTuple):
    """Weights and their origin."""

    weights: Weights
    about: str
    """A short description of the weights."""
    layout: str
    """The name of the layout; that of a run is unmask."""
    run: Run | None = None
    """The pretraining run that made them, if there is one."""
    step: int | None = None
    """The step after which a run saved them."""
    damaged: tuple[str, ...] = ()
    """A line for each damaged checkpoint that was skipped."""
    bands: BandReading | None = None
    """How multi-band images were read in the run that made them; None if it was not on such images."""
    learned_from: tuple[AnySource, ...] = ()
    """The images of the run that made them, and of those it started from."""


def find_weights(path: Path | str, hints: Hints = _NO_HINTS) -> Found:
    """The newest complete checkpoint of a run, or the weights of a file or folder, or of hf:OWNER/NAME on the Hub.

    Raises:
        RunError: if there is nothing at the path, or a run without a checkpoint.
        DataError: if the file cannot be used, or the Hub has no such weights.
        ResourceError: if the Hub cannot be reached.
    """
    folder = RunFolder(path)
    if folder.spec.exists():
        return _of_run(folder)
    check_weights(str(path))
    repo = hub_name(str(path))
    layout, weights = read_named(path if repo is None else pull(repo), hints)
    return Found(weights, f"{path}", layout)


def _of_run(folder: RunFolder) -> Found:
    """Weights of a run; of a fine-tuned run only the encoder (the average, if weights are averaged)."""
    run = Run.read(folder, "pretrain", "finetune")
    checkpoint, damaged = folder.newest_whole()
    if isinstance(run.job, Pretrain) and isinstance(run.job.recipe.objective, Masked):
        weights = Weights(run.model, *split(checkpoint.read("model")))
    else:  # the rest of the model is useless without its teacher or its task
        weights = Weights(run.model.without_decoder(), checkpoint.read("encoder"), {})
    check_fit(weights, checkpoint.folder)
    step = checkpoint.info.step
    about = f"{run.recipe_name}, step {step:,}"
    pretraining = run if isinstance(run.job, Pretrain) else None
    return Found(
        weights,
        about,
        "unmask",
        pretraining,
        step,
        damaged,
        run.band_reading,
        run.learned_from,
    )


class Start(NamedTuple):
    """Weights adapted to a recipe and its images."""

    weights: Weights
    words: str
    """Their origin, and how they were adapted."""


def recipe_for(spec: ModelSpec) -> tuple[str, Recipe, str]:
    """The recipe for weights: its name, the recipe, and the reason.

    The first recipe with their encoder; else MAE's settings for such patches. Decoder and image size are those of
    the weights.
    """
    same = [name for name, named in RECIPES.items() if named.recipe.encoder.fits(spec.encoder)]
    usual = "mae-ti4" if spec.encoder.patch_size <= _SMALL_PATCH else "mae-b16"
    name = same[0] if same else usual
    recipe = RECIPES[name].recipe
    objective = recipe.objective
    if isinstance(objective, Decoding):
        objective = objective.with_decoder_of(spec.objective)
    recipe = replace(recipe, encoder=spec.encoder, objective=objective, image_size=spec.image_size)
    if same:
        return name, recipe, "its encoder is that of the weights"
    shape = shape_of(spec.encoder)
    return name, recipe, f"no recipe has the encoder of the weights ({shape}), which is kept"


def with_patches_of(found: Found, recipe: Transfer) -> Found:
    """The weights with patches of the recipe's size, if it is for class maps or objects and nothing else differs.

    So ViT-H/14 becomes the ViT-H/16 of `detect-h16`. All other weights are given back as they are.
    """
    fits = recipe.encoder.fits(found.weights.spec.encoder, any_patches=True)
    if not issubclass(recipe.task.needs, DENSE) or not fits:
        return found
    return found._replace(weights=repatched(found.weights, recipe.encoder.patch_size))


def start_from(found: Found, recipe: Recipe, statistics: ChannelStatistics) -> Start:
    """Adapt weights to the image size of a recipe and the channels of the statistics.

    The decoder is used only if the recipe has the same decoder and target.

    Raises:
        SettingsError: if the recipe has another encoder; names both shapes.
    """
    spec = found.weights.spec
    if not recipe.encoder.fits(spec.encoder):
        raise SettingsError(
            f"--init {found.about} has {shape_of(spec.encoder)}, but the recipe wants "
            f"{shape_of(recipe.encoder)}; leave out --recipe to get one that fits the weights"
        )
    weights = found.weights
    same_channels = spec.channels == len(statistics.mean)
    if spec.objective and not _decoder_fits(spec.objective, recipe.objective, same_channels):
        weights = weights._replace(spec=spec.without_decoder(), decoder={})
    used = "an encoder without a decoder"
    if weights.decoder:
        used = "encoder and decoder"
    elif found.weights.decoder:
        used = "only the encoder, because the recipe has another decoder"
    step = "" if found.step is None else f", step {found.step:,}"
    words = [f"{spec.origin}{step}", used]
    words += adapted(spec, recipe, statistics)
    return Start(adapt(weights, recipe.encoder, recipe.image_size, statistics), "; ".join(words))


def save_start(folder: RunFolder, run: Run, source: ImageSource, module: nn.Module) -> Checkpoint:
    """Fit the target and save the weights as step 0, so that resuming needs only the folder."""
    run.job.fit(run, source, module)
    Saver(run, folder, module, run.recipe.optimizer.build(module)).save_first()
    return folder.newest_whole()[0]


def check_start(run: Run, folder: RunFolder, saved: Checkpoint | None) -> None:
    """Refuse to resume with random weights if the run started from existing ones.

    Raises:
        RunError: if the folder has no checkpoint.
    """
    if run.init is not None and saved is None:
        flag = " with --init" if isinstance(run.job, Pretrain) else ""
        raise RunError(
            f"{folder.root} was stopped before its initial weights were saved ({run.init}); "
            f"remove the folder and start again{flag}"
        )


def statistics_for(spec: ModelSpec, source: ImageSource) -> ChannelStatistics | None:
    """The statistics of the weights, if the images have the same number and type of channels."""
    same = (source.channels, source.values) == (spec.channels, spec.statistics.values)
    return spec.statistics if same else None


def _decoder_fits(old: object, new: object, same_channels: bool) -> bool:
    """Whether a decoder can be reused: same decoder and same target (normalised or plain pixels count as the same)."""
    if not (isinstance(old, Decoding) and isinstance(new, Decoding) and new.has_decoder_of(old)):
        return False
    pixels = (Pixels, NormalizedPixels)
    if isinstance(old.target, pixels) and isinstance(new.target, pixels):
        return True
    return old.target == new.target and same_channels


def adapted(spec: ModelSpec, recipe: Recipe | Transfer, statistics: ChannelStatistics) -> list[str]:
    """How weights must be adapted to a recipe and its images, in words."""
    old = patch_grid(spec.image_size, spec.encoder.patch_size)
    new, channels = recipe.encoder_grid(), len(statistics.mean)
    changes: list[str] = []
    if old != new:
        smooth = recipe.encoder.position_resampling == "antialiased"
        changes.append(
            f"positions resampled from {old.height} x {old.width} to {new.height} x {new.width}"
            f"{' with antialiasing' if smooth else ''}"
        )
    if channels != spec.channels:
        changes.append(f"patch projection adapted from {spec.channels} to {channels} channels")
    return changes


def shape_of(encoder: ViT) -> str:
    """The shape of an encoder in words."""
    several = f", {encoder.class_tokens} class tokens" if encoder.class_tokens > 1 else ""
    blocks = encoder.blocks
    kind = "" if isinstance(blocks, PlainBlocks) else f"BEiT's ({blocks.layer_scale:g}) "
    return (
        f"{number_of(encoder.depth, f'{kind}block')} of {encoder.embed_dim} with {number_of(encoder.num_heads, 'head')}, MLPs of "
        f"{int(encoder.embed_dim * encoder.mlp_ratio)}{several} and patches of {encoder.patch_size}"
    )
