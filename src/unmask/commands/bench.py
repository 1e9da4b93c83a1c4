"""`unmask bench`: measure how fast this machine trains, and find the bottleneck."""

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import tyro

from unmask.console.arguments import parse, peek
from unmask.console.hardware import MachineFlags, check_decode, hardware_of
from unmask.console.output import console, flops, gib, notes, other_recipes
from unmask.contracts import ImageSource, Size
from unmask.data.annotated import pictures_alone
from unmask.data.kinds import find_source
from unmask.errors import SettingsError, number_of
from unmask.recipes import RECIPES, Recipe, choose_recipe, find_recipe
from unmask.runs.bench import bench
from unmask.runs.bottleneck import Bench, StepSpeed
from unmask.training.hardware import find_device


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask bench`."""

    recipe_name: Annotated[str | None, tyro.conf.arg(name="recipe")] = None
    """A recipe's name, or FILE.py:NAME, which runs that file; chosen from the images or the device if not given."""

    data: str | None = None
    """Images, as for pretraining; with them the loader is measured too."""

    data_kind: str | None = None
    """Format of the images (folder, shards, parquet, tiff, digits, maps, instance-maps, coco, yolo, voc); detected if not given."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print all figures as JSON, and nothing else."""

    decode: Literal["cpu", "gpu"] = "cpu"
    """Where JPEGs are decoded and cropped: in the loading processes (cpu) or on the GPU (nvJPEG)."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    """Settings of the recipe."""

    machine: Annotated[MachineFlags, tyro.conf.arg(name="")] = MachineFlags()
    """How to compute. Several micro-batches are measured if --micro-batch is not given."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    words, flags, is_help = peek(arguments)
    if is_help:
        _parse(arguments, find_recipe(flags.get("recipe", "mae-b16")))
    if words:
        raise SettingsError(f"unexpected argument {words[0]!r}; give images as --data {words[0]}")
    if "recipe" in flags:
        find_recipe(flags["recipe"])  # report a misspelt name before scanning the images
    source = None
    if "data" in flags:
        source = pictures_alone(find_source(flags["data"], flags.get("data-kind")))
    name, default = _recipe(flags, source)
    args = _parse(arguments, default)
    micro_batch = args.machine.micro_batch
    recipe = args.recipe
    hardware = hardware_of(
        args.machine,
        in_memory=source is None or source.in_memory,
        batch_size=recipe.batch_size,
        decode=args.decode,
    )
    if source is not None:
        check_decode(hardware, source, recipe.views)
    notes.print(f"measuring {name} on {hardware.device}, about a minute ...")
    result = bench(name, recipe, hardware, source, micro_batch)
    if args.json:
        print(json.dumps(asdict(result), indent=1))
    else:
        _say(result, source)
    return 0


def _parse(arguments: list[str], recipe: Recipe) -> Arguments:
    return parse(
        Arguments,
        arguments,
        "bench",
        Arguments(recipe=recipe),
    )


def _recipe(flags: dict[str, str], source: ImageSource | None) -> tuple[str, Recipe]:
    """The requested recipe; else the one that `unmask pretrain` would choose, or one that suits the device."""
    if "recipe" in flags:
        return flags["recipe"], find_recipe(flags["recipe"])
    if source is not None:
        wanted = flags.get("image-size")
        size = Size.parse(wanted) if wanted else source.typical_size()
        name, reason = choose_recipe(size, len(source))
    else:
        on_cpu = find_device(flags.get("device", "auto")).type == "cpu"
        name, reason = ("mae-ti4", "a CPU") if on_cpu else ("mae-b16", "a GPU")
        reason = f"it suits {reason}"
    notes.print(f"recipe    {name}, because {reason}; {other_recipes()}")
    return name, RECIPES[name].recipe


def _say(result: Bench, source: ImageSource | None) -> None:
    machine = result.machine
    console.result(
        f"machine   {machine.device}, {machine.precision}, {machine.threads} of {machine.cores} "
        f"cores, torch {machine.torch}\n"
        f"ceiling   {flops(machine.matrix_flops_per_second)} in matrix products, "
        f"{machine.copy_bytes_per_second / 1e9:,.0f} GB/s in copies\n"
        f"recipe    {result.recipe}, {result.image_size} pixels: "
        f"{result.flops_per_image / 1e9:,.3g} GFLOP an image, forward and backward\n\n"
        f"a training step on {'the first images' if source else 'noise'}\n"
        f"  {'images':>6}  {'median (quartiles)':>24}  {'images/s':>8}  {'speed':>11}  {'of ceiling':>10}  memory"
    )
    for step in result.steps:
        console.result(_row(step))
    if result.stopped:
        console.result(f"  ({result.stopped})")
    console.result("")
    if result.loader and result.together and source:
        console.result(
            f"loading   {result.loader.images_per_second:,.0f} images/s by itself, with "
            f"{number_of(result.loader.workers, 'loading process', 'es')}, from {source.where}\n"
            f"together  {result.together.images_per_second:,.0f} images/s; "
            f"{result.together.waiting:.1%} of the time is spent waiting for images"
        )
    console.result(f"bottleneck: {result.bottleneck}\nwhat would help:")
    for advice in result.advice:
        console.result(f"  - {advice}")


def _row(step: StepSpeed) -> str:
    seconds = (step.median_seconds, *step.quartiles_seconds)
    scale, unit = (1, "s") if step.median_seconds >= 1 else (1000, "ms")
    median, low, high = (f"{scale * one:.3g}" for one in seconds)
    spread = f"{median} ({low} to {high}) {unit}"
    return (
        f"  {step.images:6,}  {spread:>24}  {step.images_per_second:8,.0f}  "
        f"{flops(step.flops_per_second):>11}  {step.mfu:10.0%}  {gib(step.peak_memory)}"
    )
