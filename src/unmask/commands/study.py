"""`unmask study NAME DATA`: one of the paper's ablations, on the user's images and at the user's scale."""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro

from unmask.commands.arguments import parse
from unmask.commands.console import console, duration
from unmask.commands.machine import MachineFlags, hardware_of
from unmask.commands.signals import signals
from unmask.contracts import IMAGENET, ChannelStatistics, Size
from unmask.data.kinds import find_source
from unmask.data.statistics import measure
from unmask.errors import ResourceError, SettingsError
from unmask.runs.labelled import Labelled, Part, draw_share, open_labelled
from unmask.study.ablations import STUDIES, find_study
from unmask.study.budget import expected_seconds, fitting_factor
from unmask.study.claims import claimed
from unmask.study.cost import StepCost, costs
from unmask.study.report import collected, write
from unmask.study.scales import SCALES
from unmask.study.study import Scale, Study, Trial
from unmask.study.work import Setting, jobs, work
from unmask.training.hardware import Hardware

_ROUNDS = 5
_PIXELS = 64 * 32 * 32  # of all images of a measured pass
_FEWEST = 4
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


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
    if args.seeds < 1:
        raise SettingsError(f"--seeds must be at least 1, got {args.seeds}")
    study, name = find_study(args.name), args.name.rpartition(":")[2]
    if args.only:
        study = study.only([word.strip() for word in args.only.split(",")])
    scale = study.scale or SCALES[args.scale]
    base = (
        scale.base if args.image_size is None else scale.base.at_size(Size.parse(args.image_size))
    )
    trials = study.trials(base)
    root = Path(args.out)
    _make_folder(root)
    setting = _setting(args, scale) if study.scores else None
    return _run(args, study, name, scale, trials, setting, root)


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


def _make_folder(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{root} cannot be written ({error.strerror}); choose another folder with --out"
        ) from None


def _setting(args: Arguments, scale: Scale) -> Setting:
    """Images and machine, for a study that trains."""
    if args.data is None:
        raise SettingsError(
            f"which images? `unmask study {args.name} FOLDER`, with a folder of images for each class"
        )
    data = find_source(args.data, args.data_kind)
    labelled = _few(open_labelled(data, 0), scale.images)
    console.print(
        f"images    {len(labelled.train):,} to learn from and {len(labelled.test):,} to test on, "
        f"{len(labelled.train.class_names)} classes ({labelled.split})"
    )
    batch = scale.base.recipe.batch_size
    hardware = hardware_of(args.machine, in_memory=labelled.train.in_memory, batch_size=batch)
    return Setting(
        data=data, labelled=labelled, statistics=measure(labelled.train), hardware=hardware
    )


def _few(labelled: Labelled, images: int | None) -> Labelled:
    """As many images to learn from as the scale has, alike of every class."""
    train = labelled.train
    if images is None or images >= len(train):
        return labelled
    rows = draw_share(np.array(train.labels()), images / len(train), 0)
    return labelled._replace(train=Part(train, np.flatnonzero(rows)))


def _run(
    args: Arguments,
    study: Study,
    name: str,
    scale: Scale,
    trials: dict[str, Trial],
    setting: Setting | None,
    root: Path,
) -> int:
    """Measure costs, make the runs, write the results."""
    first = next(iter(trials.values())).recipe
    hardware = (
        setting.hardware
        if setting
        else hardware_of(args.machine, in_memory=True, batch_size=first.batch_size)
    )
    torch.set_num_threads(hardware.threads)
    statistics = setting.statistics if setting else IMAGENET
    measured = _costs(study, name, trials, statistics, hardware, root)
    seeds = range(args.seeds)
    words = [f"Scale {args.scale if study.scale is None else name}: {scale.about}."]
    stopped = 0
    if setting is not None:
        every = jobs(study, trials, seeds, setting, root)
        training, rest = expected_seconds(every, measured, trials[study.base], setting)
        factor = 1.0
        if args.budget is not None:
            kept = root / "runs" / f"budget-{name}.json"
            factor = _share(args.budget) or fitting_factor(
                _seconds(args.budget), training, rest, kept
            )
        if factor < 1.0:
            trials = {key: trial.shortened(factor) for key, trial in trials.items()}
            every = jobs(study, trials, seeds, setting, root)
            words.append(_cut(factor, trials[study.base]))
            console.print(words[-1])
        console.print(
            f"runs      {sum(bool(job.left()) for job in every)} of {len(every)} left, about "
            f"{duration(factor * training + rest)} one after another; give the same command elsewhere to share them"
        )
        words.append(
            f"{len(setting.labelled.train):,} images to learn from, {len(setting.labelled.test):,} to test on, "
            f"{args.seeds} {'seed' if args.seeds == 1 else 'seeds'}; mean ± standard deviation."
        )
        with signals() as stop:
            for step in work(every, setting, stop.event):
                console.print(
                    f"{time.strftime('%H:%M:%S')}  seed {step.job.seed}, {step.job.name}: {step.doing} {step.words}"
                )
                if step.doing == "done":
                    write(
                        collected(study, trials, seeds, setting, _of(study, measured), root, words),
                        name,
                        root,
                    )
        stopped = 128 + stop.signal if stop.event.is_set() else 0
    shown = _of(study, measured)
    written = write(collected(study, trials, seeds, setting, shown, root, words), name, root)
    if stopped:
        console.print("stopped; give the same command again to go on")
        return stopped
    console.print(written[0].read_text())
    for path in written:
        console.print(f"written: {path}")
    return 0


def _of(study: Study, measured: dict[str, StepCost]) -> dict[str, StepCost]:
    """The costs that the table shows."""
    return measured if study.timed else {}


def _costs(
    study: Study,
    name: str,
    trials: dict[str, Trial],
    statistics: ChannelStatistics,
    hardware: Hardware,
    root: Path,
) -> dict[str, StepCost]:
    """Measured by one of the processes that share the folder, while the others wait."""
    console.print("measuring what steps cost ...")
    size = next(iter(trials.values())).recipe.image_size
    while True:
        with claimed(root / "runs" / f"costs-{name}") as mine:
            if mine:
                return costs(
                    {key: trial.recipe for key, trial in trials.items()},
                    statistics,
                    hardware,
                    batch=max(_FEWEST, min(64, _PIXELS // (size.height * size.width))),
                    rounds=_ROUNDS if study.timed else 1,
                    kept=root / "runs" / f"costs-{name}" / "costs.json",
                )
        time.sleep(1.0)


def _cut(factor: float, base: Trial) -> str:
    return (
        f"To fit the budget all trainings are cut to {factor:g} of their epochs: {base.recipe.epochs:.3g} of "
        f"pretraining and {base.transfer.epochs:.3g} of fine-tuning."
    )


def _share(budget: str) -> float | None:
    """A share of the epochs, if it is one."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", budget.strip())
    if found is None:
        return None
    if not 0 < float(found[1]) <= 100:
        raise SettingsError(f"--budget is at most 100% of the epochs, and above 0%; got {budget!r}")
    return float(found[1]) / 100


def _seconds(budget: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", budget.strip())
    if found is None or float(found[1]) == 0:
        raise SettingsError(
            f"--budget is a time such as 90min or 2h, or a share such as 50%; got {budget!r}"
        )
    return float(found[1]) * _UNITS[found[2]]
