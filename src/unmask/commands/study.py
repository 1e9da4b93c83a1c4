"""`unmask study NAME DATA`: repeat one of the paper's ablations on your images, at your scale."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from unmask.channels import IMAGENET
from unmask.console.arguments import parse
from unmask.console.hardware import MachineFlags, hardware_of
from unmask.console.labels import labelled_source
from unmask.console.studies import (
    checked_budget,
    conduct,
    make_folder,
    measured_costs,
    setting_of,
    with_kept_threads,
)
from unmask.contracts import Size
from unmask.data.kinds import ignoring
from unmask.errors import SettingsError, typed
from unmask.spec import within
from unmask.study.ablations import find_study
from unmask.study.dense import base_for, check_built, study_for
from unmask.study.plan import Plan
from unmask.study.study import SCALES, trainings

_ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask study`."""

    name: tyro.conf.Positional[str | None] = None
    """A study (see --list), or FILE.py:NAME, which runs that file."""

    data: tyro.conf.Positional[str | None] = None
    """Labelled images: a folder of class folders (train/ and test/ are used if present), pictures with class maps or boxes
    (then the measure is mIoU, box AP or mask AP), or digits."""

    list: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """List the studies and scales."""

    out: str = "runs/studies"
    """Folder of tables and runs; studies in one folder share their common runs."""

    scale: Literal["tiny", "small", "paper"] = "tiny"
    """Size of the base model, and the number of images."""

    seeds: int = 3
    """Runs of each variation; with one, results are shown without conclusions."""

    budget: str | None = None
    """Time for all remaining runs, such as 90min or 2h, or a share of the epochs, such as 50%. The epochs of all
    runs are cut by the same factor. Studies share only runs with the same factor."""

    only: str | None = None
    """Only these variations, A,B,C, and the ones that they are compared with."""

    image_size: str | None = None
    """Size of a crop in pixels; set by the scale if not given."""

    data_kind: str | None = None
    """Format of DATA (folder, shards, parquet, tiff, digits, maps, instance-maps, coco, yolo, voc); detected if not given."""

    ignore: str | None = None
    """Values of class maps that are neither learned nor scored, such as 0,255; 255 if not given."""

    labels_file: str | None = None
    """A CSV, Parquet or JSON lines file with a column file_name and the class of each image, in place of class
    folders; as in finetune if not given."""

    machine: Annotated[MachineFlags, tyro.conf.arg(name="")] = MachineFlags()
    """How to compute."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "seeds")


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "study")
    assert (
        args.name is not None
    )  # without a name, or with --list, they were listed before torch was imported
    seeds, budget = range(args.seeds), checked_budget(args.budget)
    study, name = find_study(args.name), args.name.rpartition(":")[2]
    if args.only:
        study = study.only([word.strip() for word in args.only.split(",")])
    scale = study.scale or SCALES[args.scale]
    base = (
        scale.base if args.image_size is None else scale.base.at_size(Size.parse(args.image_size))
    )
    trials = study.trials(base)
    root = make_folder(args.out)
    machine = with_kept_threads(args.machine, root)
    setting, batch_size = None, base.recipe.batch_size
    if study.scores:
        if args.data is None:
            raise SettingsError(
                f"which images? `unmask study {args.name} FOLDER`; FOLDER holds one folder of images per class"
            )
        source = labelled_source(args.data, args.data_kind, args.labels_file)
        source = ignoring(source, args.ignore)
        setting = setting_of(source, scale.images, machine, batch_size)
        train = setting.labelled.train
        study = study_for(study, train.annotations)
        trials = study.trials(base_for(base, train.annotations, len(train)))
        check_built(trials, setting)
        hardware, statistics = setting.hardware, setting.statistics
    else:
        hardware = hardware_of(machine, in_memory=True, batch_size=batch_size)
        statistics = IMAGENET
    recipes = trainings(trials)
    rounds = _ROUNDS if study.timed else 1
    plan = Plan(
        study=study,
        name=name,
        trials=trials,
        costs=measured_costs(name, recipes, statistics, hardware, root, rounds=rounds),
        seeds=seeds,
        root=root,
        words=(f"Scale {name if study.scale else args.scale}: {scale.about}.",),
    )
    return conduct(plan, setting, budget, typed("study", *arguments))
