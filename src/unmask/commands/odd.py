"""`unmask odd ENCODER NORMAL TEST`: where images differ from normal ones, and which of them do."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from unmask.asked import place_of
from unmask.console.arguments import parse
from unmask.console.bars import progress_on
from unmask.console.hardware import Threads, use_threads
from unmask.console.locating import check_folder
from unmask.console.odd_files import (
    as_json,
    draw_sheet,
    say_findings,
    say_measures,
    say_threshold,
    write_findings,
    write_maps,
)
from unmask.console.output import console, loaded, matched, notes, say_left_out, writing
from unmask.contracts import ImageSource, Size
from unmask.data.annotated import pictures_alone
from unmask.data.in_order import Unreadable
from unmask.data.kinds import find_source
from unmask.errors import SettingsError, typed
from unmask.evaluation import odd_file
from unmask.evaluation.frozen import PRETRAINED
from unmask.evaluation.odd import Memory, OddRule
from unmask.evaluation.odd_run import Controls, Finding, Look, arms, find, learn, measured
from unmask.evaluation.odd_truth import Truth
from unmask.evaluation.patches import PatchVectors
from unmask.patches import patch_grid
from unmask.pictures.drawing import drawn
from unmask.runs.folder import RunFolder
from unmask.runs.model import Model
from unmask.spec import within

_STRETCH, _LARGER = (
    1.1,
    1.5,
)  # ratios of shapes and of sizes from which on normal and test images differ


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask odd`."""

    encoder: tyro.conf.Positional[str]
    """A run, or weights of unmask, a published MAE, timm or transformers; or the folder of an earlier `unmask odd`, whose
    memory of normal images is used again."""

    images: tyro.conf.Positional[tuple[str, ...]]
    """NORMAL and TEST: folders or other data with normal images, and with images to look at; with the folder of an
    earlier call TEST alone; of data with train and test folders one word for both."""

    out: str | None = None
    """Folder for the memory, scores, and pictures; odd-TEST in the run's folder, or here, if not given."""

    rule: Annotated[OddRule, tyro.conf.arg(name="")] = OddRule()
    """How odd places are found."""

    image_size: str | None = None
    """Size at which images are looked at, such as 448 or 256x512; the encoder's training size if not given. Small
    defects want large sizes."""

    good: str | None = None
    """The class of normal images among those of TEST; good, normal or ok if not given."""

    control: Controls = "auto"
    """Whether random weights and raw pixels are scored too, where it is known what is odd: auto or none."""

    maps: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Draw the heat of every image, in OUT/maps."""

    data_kind: str | None = None
    """Format of TEST (folder, shards, parquet, tiff, digits, maps, instance-maps, coco, yolo, voc); detected if not given."""

    seed: int = 0
    """Seed of the draw of held-out normal images, and of random weights."""

    device: str = "auto"
    """cpu, cuda (or gpu), cuda:1, mps, or auto."""

    threads: Threads = None
    """CPU threads of torch."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print scores as JSON."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "threads")


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "odd")
    use_threads(args.threads)
    args.rule.check()
    earlier = Path(args.encoder) / odd_file.FILE
    kept = odd_file.load(earlier) if earlier.is_file() else None
    normal_data, test_data = _words(args, again=kept is not None)
    out = Path(args.out) if args.out else _folder(args.encoder, test_data)
    if kept is None or out.resolve() != earlier.parent.resolve():
        check_folder(out, odd_file.SCORES)

    with progress_on(notes):
        encoder = place_of(args.encoder) if kept is None else kept.encoder
        model = loaded(args.encoder if kept is None else encoder, args.device)
        look = _look(args, model, kept)
        test = _opened(test_data, args.data_kind, model, last=True)
        truth = Truth(test, args.good)
        notes.print(f"test      {len(test):,} images in {test.where}; {truth.words}")
        if kept is None:
            kind = args.data_kind if normal_data == test_data else None
            normal = _opened(normal_data, kind, model, last=False)
            notes.print(f"normal    {len(normal):,} images in {normal.where}")
            _warn_of_shapes(normal.typical_size(), test.typical_size(), look.size)
            found = list(_every_arm(args, look, normal, test, truth))
        else:
            normal = None
            kept.check(look.encoder, encoder)
            found = [_found(PRETRAINED, kept.memory, look, look.vectors(), test, truth)]
    memory, findings = found[0].memory, found[0].findings
    measures = {one.arm: measured(one.findings, one.memory, look.size) for one in found}

    # scores are printed first, in case they cannot be written
    facts = {"command": typed("odd", *arguments), "encoder": encoder, "size": list(look.size)}
    if args.json:
        print(json.dumps(as_json(findings, memory, measures, facts)))
    else:
        say_threshold(memory)
        say_findings(findings, memory)
        say_measures(measures, look.size)
    if unreadable := found[0].unreadable:
        name, reason = unreadable[0]
        notes.warn(f"{len(unreadable)} unreadable images skipped; the first is {name}: {reason}")

    written = write_findings(out, findings, memory, measures, facts)
    with writing(out):
        if normal is not None:
            looked_at = find_source(test_data, args.data_kind, like=model.bands)
            odd_file.save(out / odd_file.FILE, memory, look, encoder, normal, looked_at)
            written.append(out / odd_file.FILE)
        if args.maps:
            write_maps(out, findings, test, memory, look)
            written.append(out / "maps")
    sheet = out / "sheet.png"
    if note := drawn(sheet, lambda path: draw_sheet(path, findings, test, memory, look)):
        notes.note(note)
    else:
        written.append(sheet)
    if not args.json:
        for path in written:
            console.print(f"written: {path}")
        place = str(out) if kept is None else args.encoder
        console.print(f"for other images: {typed('odd', place)} IMAGES")
    return 0


def _warn_of_shapes(normal: Size, test: Size, size: Size) -> None:
    """Warn if normal and test images are squashed differently, so that the same things look different."""
    (rows, columns), (height, width) = normal, test
    if max(rows * width / (columns * height), columns * height / (rows * width)) > _STRETCH:
        notes.warn(
            f"normal images are about {columns} x {rows} pixels, those to look at {width} x {height}; both are squashed to "
            f"{size.width} x {size.height}, so the same things look different and count as odd. Cut them to one shape"
        )
    elif max(rows / height, height / rows) > _LARGER:
        notes.warn(
            f"normal images are about {columns} x {rows} pixels, those to look at {width} x {height}: if they show things at "
            "other scales, these count as odd"
        )


class _Arm(NamedTuple):
    """What one kind of vectors found."""

    arm: str
    memory: Memory
    findings: list[Finding]
    unreadable: Unreadable


def _every_arm(
    args: Arguments, look: Look, normal: ImageSource, test: ImageSource, truth: Truth
) -> Iterator[_Arm]:
    """The encoder, and where it is known what is odd, its controls."""
    controls = args.control if truth.known else "none"
    for arm, vectors in arms(look, controls):
        memory, unreadable = learn(normal, look, vectors)
        found = _found(arm, memory, look, vectors, test, truth)
        yield found._replace(unreadable=[*unreadable, *found.unreadable])


def _found(
    arm: str, memory: Memory, look: Look, vectors: PatchVectors, test: ImageSource, truth: Truth
) -> _Arm:
    unreadable: Unreadable = []
    return _Arm(arm, memory, find(memory, test, look, vectors, truth, unreadable), unreadable)


def _words(args: Arguments, *, again: bool) -> tuple[str, str]:
    """NORMAL and TEST; with an earlier folder TEST is both.

    Raises:
        SettingsError: if words are missing, or there are too many.
    """
    words = args.images
    if again and len(words) == 1:
        return words[0], words[0]
    if again or not 1 <= len(words) <= 2:
        usage = "unmask odd FOLDER TEST" if again else "unmask odd ENCODER NORMAL TEST"
        which = "one folder of images" if again else "normal images, and images to look at"
        raise SettingsError(f"which images? `{usage}`: {which}; got {len(words)} words")
    if len(words) == 1 and "test" not in find_source(words[0], args.data_kind).splits():
        raise SettingsError(
            f"{words[0]} has no train and test folders, so name the images to look at too: "
            f"`{typed('odd', args.encoder, words[0])} TEST`"
        )
    return words[0], words[-1]


def _folder(encoder: str, test: str) -> Path:
    """The folder of the results: in the run's, or in that of the memory, else here."""
    name = f"odd-{Path(test).resolve().stem}"
    place = Path(encoder)
    is_ours = RunFolder(place).spec.exists() or (place / odd_file.FILE).exists()
    return place / name if is_ours and os.access(place, os.W_OK | os.X_OK) else Path(name)


def _look(args: Arguments, model: Model, kept: odd_file.Kept | None) -> Look:
    """How images are looked at.

    Raises:
        SettingsError: if the patches do not divide the size, the encoder has too few blocks, or a memory has other settings.
    """
    if kept is not None and (args.image_size is not None or args.rule != OddRule()):
        raise SettingsError(
            f"{args.encoder} holds a memory, which was made with its own settings and size; to change them, run "
            f"`unmask odd {kept.encoder} NORMAL TEST` with these flags"
        )
    size = model.spec.image_size if args.image_size is None else Size.parse(args.image_size)
    size = size if kept is None else kept.size
    patch_grid(size, model.spec.encoder.patch_size)
    rule = args.rule if kept is None else kept.memory.rule
    depth = model.spec.encoder.depth
    if rule.block is not None and rule.block > depth:
        raise SettingsError(f"--block {rule.block} is none of the encoder's {depth} blocks")
    return Look(
        encoder=model.encoder,
        spec=model.spec,
        size=size,
        rule=rule,
        seed=args.seed,
        device=model.device,
    )


def _opened(data: str, kind: str | None, model: Model, *, last: bool) -> ImageSource:
    """Images to look at, with annotations, or normal images: pictures alone."""
    notes.print(f"reading   {data} ...")
    source = find_source(data, kind, like=model.bands)
    images = source.open(source.splits()[-1]) if last else pictures_alone(source)
    say_left_out(images, notes)
    return matched(images, model.spec.channels, "the encoder was trained on")
