"""`unmask study NAME DATA`: one of the paper's ablations, on the user's images and at the user's scale."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from unmask.channels import IMAGENET
from unmask.console.arguments import parse
from unmask.console.hardware import MachineFlags, hardware_of
from unmask.console.output import console
from unmask.console.studies import (
    Conduct,
    checked_budget,
    checked_seeds,
    conduct,
    make_folder,
    measured_costs,
    setting_of,
)
from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.study.ablations import STUDIES, find_study
from unmask.study.scales import SCALES
from unmask.study.study import trainings

_ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask study`."""

    name: tyro.conf.Positional[str | None] = None
    """A study of the list, or FILE.py:NAME."""

    data: tyro.conf.Positional[str | None] = None
    """Labelled images: a folder of class folders (train/ and test/ are used if they are there), or digits."""

    list: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """List the studies and scales."""

    out: str = "runs/studies"
    """Folder of tables and runs; studies of one folder share the runs that they have in common."""

    scale: Literal["tiny", "small", "paper"] = "tiny"
    """How large the base is, and on how many images."""

    seeds: int = 3
    """Runs of each variation; with one, results are shown and nothing is concluded."""

    budget: str | None = None
    """Time for all runs that are left, such as 90min or 2h, or a share of the epochs, such as 50%; all epochs
    are cut evenly to fit. Studies share runs only at one share."""

    only: str | None = None
    """Some of the variations, A,B,C; what they are compared with comes along."""

    image_size: str | None = None
    """Pixels of a crop; the scale's if not given."""

    data_kind: str | None = None
    """What DATA is (folder, shards, parquet, tiff, digits); seen from what is there if not given."""

    machine: Annotated[MachineFlags, tyro.conf.arg(name="")] = MachineFlags()
    """How to compute."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(
        Arguments,
        arguments,
        "study",
        "One of the paper's ablations on your images, beside the paper's table.",
    )
    if args.list or args.name is None:
        _say_list()
        return 0
    seeds, budget = checked_seeds(args.seeds), checked_budget(args.budget)
    study, name = find_study(args.name), args.name.rpartition(":")[2]
    if args.only:
        study = study.only([word.strip() for word in args.only.split(",")])
    scale = study.scale or SCALES[args.scale]
    base = (
        scale.base if args.image_size is None else scale.base.at_size(Size.parse(args.image_size))
    )
    trials = study.trials(base)
    root = make_folder(args.out)
    setting, batch_size = None, base.recipe.batch_size
    if study.scores:
        if args.data is None:
            raise SettingsError(
                f"which images? `unmask study {args.name} FOLDER`, with a folder of images for each class"
            )
        setting = setting_of(args.data, args.data_kind, scale.images, args.machine, batch_size)
        hardware, statistics = setting.hardware, setting.statistics
    else:
        hardware = hardware_of(args.machine, in_memory=True, batch_size=batch_size)
        statistics = IMAGENET
    recipes = trainings(trials)
    rounds = _ROUNDS if study.timed else 1
    asked = Conduct(
        study=study,
        name=name,
        trials=trials,
        costs=measured_costs(name, recipes, statistics, hardware, root, rounds=rounds),
        seeds=seeds,
        root=root,
        words=(f"Scale {name if study.scale else args.scale}: {scale.about}.",),
    )
    return conduct(asked, setting, budget)


def _say_list() -> None:
    width = max(map(len, STUDIES))
    console.print("studies (unmask study NAME DATA):")
    for name, study in STUDIES.items():
        console.print(f"  {name:{width}}  {study.title} ({study.source})")
        names = ", ".join(variation.name for variation in study.variations)
        console.print(f"  {'':{width}}  {names}")
    console.print("scales (--scale):")
    for name, scale in SCALES.items():
        console.print(f"  {name:{width}}  {scale.about}")
