"""`unmask doctor RUN` or `unmask doctor DATA`: is this as it should be?"""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.table import Table
from rich.text import Text

from unmask.console.arguments import parse
from unmask.console.hardware import Threads, use_threads
from unmask.console.output import console, notes
from unmask.contracts import ImageSource
from unmask.data.annotated import pictures_alone
from unmask.data.kinds import find_source
from unmask.data.statistics import measure
from unmask.doctor.examine import examine_images, examine_run
from unmask.doctor.finding import Finding, Severity
from unmask.errors import SettingsError, UnmaskError, number_of
from unmask.recipes import choose_recipe, find_recipe
from unmask.recipes.by_time import with_more_steps
from unmask.runs.folder import RunFolder
from unmask.runs.images_of_run import as_begun, place_of
from unmask.runs.run import Run
from unmask.spec import within

_COLOURS: dict[Severity, str] = {
    "fault": "bold red",
    "warning": "yellow",
    "note": "cyan",
    "fine": "green",
}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask doctor`."""

    what: tyro.conf.Positional[str | None] = None
    """The folder of a run, or images as for pretraining."""

    recipe: str | None = None
    """The recipe that the images are meant for; chosen from them if not given. Not for runs."""

    data_kind: str | None = None
    """Format of the images (folder, shards, parquet, tiff, digits, maps, instance-maps, coco, yolo, voc); detected if not given."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the findings as JSON, and nothing else."""

    threads: Threads = None
    """CPU threads of torch."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "threads")


def main(arguments: list[str]) -> int:
    """Run the command; its status is 0 whenever it could look, whatever it found."""
    args = parse(Arguments, arguments, "doctor")
    if args.what is None:
        raise SettingsError(
            "doctor looks at a run or at images: `unmask doctor runs/NAME`, or `unmask doctor FOLDER`"
        )
    use_threads(args.threads)
    findings = _of_run(args) if RunFolder(args.what).spec.exists() else _of_images(args)
    if args.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        _say(findings)
    return 0


def _of_run(args: Arguments) -> list[Finding]:
    assert args.what is not None
    if args.recipe is not None:
        raise SettingsError(f"{args.what} is a run, which has its recipe; leave out --recipe")
    folder = RunFolder(args.what)
    run = Run.read(folder)
    notes.print(f"looking at {args.what}, a run of {run.recipe_name} ...")
    return examine_run(run, folder, _images_of(run, folder))


def _images_of(run: Run, folder: RunFolder) -> ImageSource | None:
    """The training images of a run; None, with a note, if they are not there any more."""
    try:
        images = as_begun(run, place_of(run, folder, None, None))
    except UnmaskError as error:
        notes.note(f"its images are not looked at: {error}")
        return None
    if images is None:
        notes.note("its images are not looked at, because they have changed since it began")
        return None
    return images.train


def _of_images(args: Arguments) -> list[Finding]:
    assert args.what is not None
    if args.recipe is not None:
        find_recipe(args.recipe)
    source = pictures_alone(find_source(args.what, args.data_kind))
    name = args.recipe or choose_recipe(source.typical_size(), len(source))[0]
    notes.print(f"looking at {len(source):,} images for the recipe {name} ...")
    recipe = find_recipe(name)
    if args.recipe is None:  # as `unmask pretrain` does
        recipe = with_more_steps(recipe, len(source))
    return examine_images(source, recipe, measure(source))


def _say(findings: list[Finding]) -> None:
    """Print the findings, and how many are not fine."""
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        sure = "" if finding.sure == "certain" else f" ({finding.sure})"
        lines = [f"{finding.about}{sure}: {finding.seen}"]
        lines += [
            f"{lead}: {text}"
            for lead, text in (("why", finding.why), ("change", finding.change))
            if text
        ]
        table.add_row(Text(finding.severity, _COLOURS[finding.severity]), Text("\n".join(lines)))
    console.result(table)
    counts = Counter(finding.severity for finding in findings)
    found = [number_of(counts[what], what) for what in ("fault", "warning", "note") if counts[what]]
    console.result(f"{len(findings)} checks: {', '.join(found) or 'all fine'}")
