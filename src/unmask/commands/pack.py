"""`unmask pack DATA SHARDS`: pack images into tar shards that are fast to read in random order."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from unmask.console.arguments import DataFlags, parse
from unmask.console.bars import State, progress_on, watched
from unmask.console.output import console, duration, gib, images_in_words, notes, say_left_out
from unmask.console.processes import signals
from unmask.contracts import ImageSource
from unmask.data.annotated import pictures_alone
from unmask.data.kinds import find_source
from unmask.data.labelled import read_as_train
from unmask.data.pack import Packer, Progress
from unmask.data.pack_bytes import as_arrays
from unmask.data.pack_manifest import Packing, read_pack
from unmask.errors import SettingsError, number_of, typed
from unmask.runs.run import USUAL_SET_ASIDE
from unmask.spec import within
from unmask.training.hardware import cores


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask pack`."""

    data: tyro.conf.Positional[str]
    """A folder of images, tar shards, Parquet, multi-band images, or digits."""

    shards: tyro.conf.Positional[str]
    """A new folder for the shards, or an unfinished one to continue."""

    short_side: int = 256
    """Larger images are resized so that their shorter side has this many pixels."""

    quality: int = 90
    """JPEG quality of images that are encoded again."""

    shard_mib: int = 256
    """Approximate size of a shard in MiB."""

    pictures_alone: bool = False
    """Pack pictures without the class maps or boxes that come with them, for pretraining."""

    about_data: Annotated[DataFlags, tyro.conf.arg(name="")] = DataFlags()
    """How to read DATA."""

    workers: int | None = None
    """Worker processes; one per core if not given, 0 to use this process only."""

    max_set_aside: float = USUAL_SET_ASIDE
    """Share of images that may be unusable before packing stops with an error."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "short_side", "shard_mib")
        within(self, "[1, 100]", "quality")
        within(self, "[0, inf)", "workers")
        within(self, "[0, 1]", "max_set_aside", usual="0.05 is 5 %")


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "pack")
    how = args.about_data.reading()
    packing = Packing(
        short_side=args.short_side,
        quality=args.quality,
        shard_mib=args.shard_mib,
        channels=how.channels,
        no_data=how.no_data,
        frames=how.frames,
        bands=how.bands,
    )
    _check(args)
    root = Path(args.shards).expanduser()
    console.print(f"reading   {args.data} ...")
    with progress_on(console):
        spec = find_source(
            args.data, args.about_data.data_kind, how, ground=args.about_data.ground()
        )
        opened = pictures_alone if args.pictures_alone else lambda data, split: data.open(split)
        sources = {split: opened(spec, split) for split in spec.splits()}
    if "test" in sources:
        sources["test"] = read_as_train(sources["test"], sources["train"])
    packer = Packer(
        root,
        packing,
        sources,
        workers=cores() if args.workers is None else args.workers,
        max_set_aside=args.max_set_aside,
    )
    packer.check()
    _say_images(sources, packing)
    before = read_pack(root)
    if before is not None:
        state = "packed already; every shard is checked" if before.finished else "unfinished"
        console.print(f"folder    {root} is {state}; complete shards are kept")
    started = time.perf_counter()
    with signals("shard") as stop:
        for _ in watched(console, packer.run(stop.event), "packing", _state):
            pass
    if packer.note:
        notes.note(f"{packer.note}")
    if stop.event.is_set():
        console.result(
            f"stopped; complete shards are kept ({len(packer.shards)}); continue with:\n{typed('pack', *arguments)}"
        )
        return 128 + stop.signal
    _say_end(packer, time.perf_counter() - started)
    return 0


def _check(args: Arguments) -> None:
    data, shards = Path(args.data).expanduser().resolve(), Path(args.shards).expanduser().resolve()
    if data.is_dir() and shards.is_relative_to(data):
        raise SettingsError(
            f"{args.shards} is inside {args.data}, so its shards would be read as input; choose a folder outside of it"
        )


def _say_images(sources: dict[str, ImageSource], packing: Packing) -> None:
    """Print which images were found, and how they will be stored."""
    for split, source in sources.items():
        name = f"{split}, " if len(sources) > 1 else ""
        classes = f" in {len(names)} classes" if (names := source.annotations.names) else ""
        typical = source.typical_size()
        console.print(
            f"images    {name}{images_in_words(source)}{classes} in {source.where}, about {typical.height} x "
            f"{typical.width} pixels"
        )
        say_left_out(source)
    console.print(f"packing   {_choice(next(iter(sources.values())), packing)}")


def _choice(source: ImageSource, packing: Packing) -> str:
    side = packing.short_side
    if as_arrays(source):
        return (
            "as arrays (.npy), because JPEG cannot store them; larger ones are\n"
            f"          resized to {side} pixels on the shorter side"
        )
    return (
        f"larger images are resized to {side} pixels on the shorter side, as JPEG\n"
        f"          of quality {packing.quality}; the others keep their size, and upright JPEGs and\n"
        "          PNGs of them are copied bit for bit"
    )


def _state(report: Progress) -> State:
    where = f"{report.done:,} of {report.images:,} images"
    return State(report.done, report.images, where)


def _say_end(packer: Packer, seconds: float) -> None:
    shards = packer.shards.values()
    images, copied = sum(s.images for s in shards), sum(s.copied for s in shards)
    files = number_of(len(shards), "shard")
    console.result(
        f"packed    {number_of(images, 'image')} in {files}, {gib(sum(s.bytes for s in shards))}, in {duration(seconds)}; "
        f"{copied:,} copied bit for bit"
    )
    if packer.set_aside.exists():
        console.warn(f"skipped {packer.left_out:,}, listed with reasons in {packer.set_aside}")
    console.print(f"train on it:  {typed('pretrain', packer.root)}")
