"""`unmask finetune ENCODER DATA`: fine-tune an encoder, or train one from scratch, on annotated images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from unmask.console.arguments import Peek, peek
from unmask.console.finetuning import (
    draw_scores,
    longer,
    recipe_of,
    say_done,
)
from unmask.console.finetuning_request import finetuning_request
from unmask.console.from_python import HeldOrNamed, refuse_loader, refuse_settings
from unmask.console.hardware import RunFlags
from unmask.console.labels import labelled_source
from unmask.console.output import console
from unmask.console.plan import with_shorter_warmup
from unmask.console.series import carry_out, series_folder
from unmask.console.series_asked import (
    Asked,
    Wanted,
    again,
    amounts_of,
    check_seeds,
    is_series,
    members_of,
)
from unmask.console.train import finished_folder, resumed_folder
from unmask.console.train import main as train_main
from unmask.console.training_command import Command, Common, Request
from unmask.console.wrong_calls import explained
from unmask.data import AnySource
from unmask.data.annotated import kind_for
from unmask.data.kinds import as_source, ignoring
from unmask.data.noise import PatchKeep
from unmask.errors import SettingsError
from unmask.recipes import Transfer, find_transfer
from unmask.runs.finetune import for_annotations, images_for, open_annotated
from unmask.runs.weights import (
    Found,
    find_weights,
)
from unmask.spec import within


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask finetune`."""

    encoder: tyro.conf.Positional[str | None] = None
    """A run, or weights of unmask, a published MAE, timm or transformers; or the word scratch."""

    data: tyro.conf.Positional[str | None] = None
    """Labelled images: a folder of class folders (train/ and test/ or val/ are used if present), tar shards,
    Parquet, or digits; any images with --labels-file; pictures with class maps; or COCO, YOLO or Pascal VOC."""

    recipe_name: Annotated[str | None, tyro.conf.arg(name="recipe")] = None
    """A recipe's name, or FILE.py:NAME, which runs that file; chosen from the encoder if not given."""

    trained_blocks: str | None = None
    """Which part of the encoder to train: all, the last N blocks, half (the MLP of the last block), or 0;
    set by the recipe if not given."""

    patch_keep: str | None = None
    """Share of patches to show in training, such as 0.5, or a first and a last share, such as 0.25:1, which
    ends with whole images. A smaller share is faster."""

    out: str | None = None
    """Folder of the run; runs/RECIPE-DATA if not given."""

    resume: str | None = None
    """Continue this run exactly where it stopped; DATA, if given, is where its images are now."""

    data_kind: str | None = None
    """Format of DATA (folder, shards, parquet, tiff, digits, maps, instance-maps, coco, yolo, voc); detected if not given."""

    task: str | None = None
    """classify, segment or detect; if not given, DATA say it: class folders, class maps beside the pictures, or boxes."""

    labels: str | None = None
    """A series of runs with these amounts of labels, as numbers or percentages of each class (of pictures, if they have class
    maps or boxes), each beside training from scratch: 1%,10%,all."""

    seeds: int | None = None
    """Runs of each amount of --labels, with other draws of labels and weights; 3 if not given."""

    ignore: str | None = None
    """Values of class maps that are neither learned nor scored, such as 0,255; 255 if not given."""

    labels_file: str | None = None
    """A CSV, Parquet or JSON lines file with labels, in place of class folders: a column file_name and the
    classes of each image (a name, a number, a;b, or a column of 0 and 1 for each class). If not given:
    labels.csv, metadata.csv or metadata.jsonl beside images without class folders; none ignores these."""

    recipe: Annotated[Transfer, tyro.conf.arg(name="")]
    """Settings that change the result."""

    seed: int = 0
    """Seed of new weights, order of images, crops, mixing, and of the split if DATA has none."""

    running: Annotated[RunFlags, tyro.conf.arg(name="")] = RunFlags()
    """Settings that must not change the result."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "seeds")


def main(arguments: list[str]) -> int:
    """Run the command."""
    command_line = peek(arguments)
    of_series = again(arguments, command_line)
    if of_series is None and not is_series(command_line):
        return train_main(COMMAND, arguments)
    return carry_out(COMMAND, of_series or arguments, _asked)


@explained("unmask.finetune('runs/photos', 'animals')")
def finetune(
    encoder: str | Path | None,
    data: HeldOrNamed,
    *,
    recipe: str | Transfer | None = None,
    labels: str | int | Sequence[str | int] | None = None,
    seeds: int | None = None,
    labels_file: str | Path | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    running: RunFlags | None = None,
    resume: str | Path | None = None,
) -> Path:
    """Train an encoder on annotated images and score it on test images, as `unmask finetune` does.

    Args:
        encoder: a run or weights; None to train from scratch.
        data: images in class folders, "digits", the spec of a source, a list of (image, label) pairs, arrays (images,
            labels), or a map-style torch Dataset of such pairs without random transforms.
        recipe: a recipe, its name, or FILE.py:NAME, which runs that file; chosen from the encoder if not given.
        labels: a series of runs with these amounts of labels, such as ["1%", "10%", "all"] or 5, as numbers or percentages of
            each class (of pictures, if they have class maps or boxes), each beside training from scratch.
        seeds: runs of each amount, with other draws of labels and weights; 3 for a series, if not given.
        labels_file: a CSV, Parquet or JSON lines file with the classes of each image, in place of class folders.
        out: the folder of the run, or of the series; runs/RECIPE-DATA (-labels) if not given. A series that is there goes on.
        seed: of the head, order, crops and mixing, and of the split where the data have none.
        running: settings that must not change the result: device, workers, precision and so on.
        resume: the folder of a run on these images, to continue it exactly; then `encoder` is not read, and only `running`
            may be given too.

    Returns:
        The folder of the run, which holds `results.json`, for `predict` and `load`; or that of the series, which holds
        `scores.csv` and a folder for each run.

    Raises:
        SettingsError: if arguments do not fit together, or a DataLoader is given.
        DataError: if the images or the weights cannot be used.
        RunError: if the images are not those of the run to resume, or `out` holds another series.
    """
    refuse_loader(data, "finetune")
    if resume is not None:
        refuse_settings(recipe=recipe, labels=labels, seeds=seeds, labels_file=labels_file, out=out)
        return resumed_folder(COMMAND, resume, as_source(data, labels=True), running)
    amounts = None if labels is None else amounts_of(labels)
    if seeds is not None:
        check_seeds(seeds)
    weights = None if encoder is None else _weights(str(encoder))
    named = None if labels_file is None else str(labels_file)
    spec = _source(data, None, named, weights)
    no_flags = Peek([], {}, False)
    labelled = open_annotated(spec, seed)
    if isinstance(recipe, Transfer):
        name, chosen = "own", for_annotations(recipe, labelled.train.annotations)
    else:
        name, chosen = recipe_of(no_flags, recipe, weights, labelled.train)
    asked = Asked(spec, labelled, name, chosen, weights, out, seed, running or RunFlags())
    if amounts is None and seeds is None:
        return finished_folder(COMMAND, _request_of(asked))
    members = partial(members_of, amounts, seeds, seed, only_scratch=encoder is None)
    return series_folder(COMMAND, Wanted(members, lambda: asked, seed))


def _request(arguments: list[str], command_line: Peek) -> Request:
    """The new run that a command line asks for."""
    return _request_of(_asked(arguments, command_line))


def _request_of(asked: Asked) -> Request:
    """The request for a single run."""
    images = images_for(asked.recipe, asked.labelled, asked.seed)
    common = Common(asked.recipe_name, asked.data, images, asked.out, asked.seed, asked.running)
    return finetuning_request(common, asked.recipe, asked.weights)


def _asked(arguments: list[str], command_line: Peek) -> Asked:
    """What a command line asks for."""
    wanted = command_line.flags.get("recipe")
    if command_line.help:
        COMMAND.parse(arguments, Arguments(recipe=find_transfer(wanted or "finetune-b16")))
    if len(command_line.words) < 2:
        raise SettingsError(
            "which encoder, and which images? `unmask finetune runs/NAME FOLDER`, or `unmask finetune "
            "scratch FOLDER`; FOLDER holds a folder for each class"
        )
    if wanted is not None:
        find_transfer(wanted)  # report a misspelt name before scanning the images
    encoder = command_line.words[0]
    is_scratch = encoder == "scratch" and not Path(encoder).exists()
    weights = None if is_scratch else _weights(encoder)
    spec = _source(
        command_line.words[1],
        _kind(command_line),
        command_line.flags.get("labels-file"),
        weights,
    )
    spec = ignoring(spec, command_line.flags.get("ignore"))
    console.print(f"reading   {command_line.words[1]} ...")
    labelled = open_annotated(spec, command_line.seed)
    name, default = recipe_of(command_line, wanted, weights, labelled.train)
    args = COMMAND.parse(arguments, Arguments(recipe=default))
    recipe = args.recipe
    if args.trained_blocks is not None:
        recipe = replace(recipe, task=replace(recipe.task, trained_blocks=args.trained_blocks))
    if args.patch_keep is not None:
        keep = PatchKeep.parse(args.patch_keep)
        recipe = replace(recipe, noise=replace(recipe.noise, patch_keep=keep))
    if recipe != default or recipe.epochs < recipe.schedule.warmup_epochs:
        recipe = with_shorter_warmup(recipe, command_line)
    return Asked(spec, labelled, name, recipe, weights, args.out, args.seed, args.running)


def _kind(command_line: Peek) -> str | None:
    """The format of DATA, if flags say it."""
    flags = command_line.flags
    if "task" not in flags:
        return flags.get("data-kind")
    if "data-kind" in flags:
        raise SettingsError("give --task or --data-kind, not both: each says how DATA are read")
    return kind_for(flags["task"], Path(command_line.words[1]).expanduser())


def _weights(encoder: str) -> Found:
    weights = find_weights(encoder)
    for line in (*weights.damaged, *weights.weights.notes):
        console.print(f"{encoder}: {line}")
    return weights


def _source(
    data: HeldOrNamed, kind: str | None, labels_file: str | None, weights: Found | None
) -> AnySource:
    """The source of DATA; multi-band images get the channels that the encoder was trained on."""
    return labelled_source(data, kind, labels_file, weights.bands if weights else None)


COMMAND = Command(
    name="finetune",
    arguments=Arguments,
    request=_request,
    fixed=(
        "recipe_name",
        "trained_blocks",
        "patch_keep",
        "out",
        "data_kind",
        "task",
        "ignore",
        "labels",
        "seeds",
        "recipe",
        "seed",
    ),
    again="unmask finetune ENCODER DATA",
    say_done=say_done,
    longer=longer,
    draw=draw_scores,
)
