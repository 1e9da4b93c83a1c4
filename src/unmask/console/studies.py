"""How `unmask study` and `unmask compare` carry out a study: costs, budget, runs, results."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from unmask.channels import ChannelStatistics
from unmask.console.hardware import MachineFlags, hardware_of
from unmask.console.output import console, duration
from unmask.console.signals import signals
from unmask.data.kinds import find_source
from unmask.data.labelled import Labelled, draw_share, open_labelled
from unmask.data.statistics import measure
from unmask.data.subset import Subset
from unmask.errors import ResourceError, SettingsError
from unmask.recipes import Recipe, Tokenizing
from unmask.study.budget import expected_seconds, fitting_factor, tuning_cost
from unmask.study.claims import claimed
from unmask.study.cost import StepCost, costs
from unmask.study.plan import Setting, jobs
from unmask.study.report import collected, write
from unmask.study.study import Study, Trial
from unmask.study.worker import work
from unmask.training.hardware import Hardware

_PIXELS = 64 * 32 * 32  # of all images of a measured pass
_FEWEST = 4
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def make_folder(out: str) -> Path:
    """The folder of tables and runs."""
    root = Path(out)
    try:
        (root / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{root} cannot be written ({error.strerror}); choose another folder with --out"
        ) from None
    return root


def checked_seeds(seeds: int) -> range:
    """The seeds of every variation."""
    if seeds < 1:
        raise SettingsError(f"--seeds must be at least 1, got {seeds}")
    return range(seeds)


class Budget(NamedTuple):
    """What all trainings together may take."""

    share: float | None
    """Of their epochs, if that was asked for."""
    seconds: float


def checked_budget(budget: str | None) -> Budget | None:
    """What --budget says."""
    if budget is None:
        return None
    share = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", budget.strip())
    if share is not None:
        if not 0 < float(share[1]) <= 100:
            raise SettingsError(
                f"--budget is at most 100% of the epochs, and above 0%; got {budget!r}"
            )
        return Budget(float(share[1]) / 100, 0.0)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", budget.strip())
    if found is None or float(found[1]) == 0:
        raise SettingsError(
            f"--budget is a time such as 90min or 2h, or a share such as 50%; got {budget!r}"
        )
    return Budget(None, float(found[1]) * _UNITS[found[2]])


def setting_of(
    data: str, data_kind: str | None, images: int | None, flags: MachineFlags, batch_size: int
) -> Setting:
    """Images and machine of a study that trains; with a number of images, so many to learn from."""
    source = find_source(data, data_kind)
    labelled = _few(open_labelled(source, 0), images)
    console.print(
        f"images    {len(labelled.train):,} to learn from and {len(labelled.test):,} to test on, "
        f"{len(labelled.train.annotations.names)} classes ({labelled.split})"
    )
    hardware = hardware_of(flags, in_memory=labelled.train.in_memory, batch_size=batch_size)
    return Setting(
        data=source, labelled=labelled, statistics=measure(labelled.train), hardware=hardware
    )


def _few(labelled: Labelled, images: int | None) -> Labelled:
    """So many images to learn from, alike of every class."""
    train = labelled.train
    if images is None or images >= len(train):
        return labelled
    rows = draw_share(train.labels(), images / len(train), 0)
    return labelled._replace(train=Subset(train, np.flatnonzero(rows)))


def measured_costs(
    name: str,
    recipes: Mapping[str, Recipe | Tokenizing],
    statistics: ChannelStatistics,
    hardware: Hardware,
    root: Path,
    *,
    rounds: int,
) -> dict[str, StepCost]:
    """What steps cost; measured by one of the processes that share the folder, while the others wait."""
    console.print("measuring what steps cost ...")
    torch.set_num_threads(hardware.threads)
    size = next(iter(recipes.values())).image_size
    folder = root / "runs" / f"costs-{name}"
    while True:
        with claimed(folder) as mine:
            if mine:
                return costs(
                    recipes,
                    statistics,
                    hardware,
                    batch=max(_FEWEST, min(64, _PIXELS // (size.height * size.width))),
                    rounds=rounds,
                    kept=folder / "costs.json",
                    tell=console.print,
                )
        time.sleep(1.0)


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """A study about to be carried out."""

    study: Study
    """The question."""

    name: str
    """Of its files."""

    trials: dict[str, Trial]
    """The variations."""

    costs: Mapping[str, StepCost]
    """What a step of each costs."""

    seeds: Sequence[int]
    """Of the runs of each variation."""

    root: Path
    """The folder of tables and runs."""

    words: tuple[str, ...]
    """What is studied on what, for the page."""


def conduct(asked: Conduct, setting: Setting | None, budget: Budget | None) -> int:
    """Make all runs that are left, if any are to be made, and write and print the results; the exit status."""
    stopped = 0
    if setting is not None:
        asked = _fitted(asked, setting, budget)
        stopped = _make(asked, setting)
    written = _write(asked, setting)
    if stopped:
        console.print("stopped; give the same command again to go on")
        return stopped
    console.print(written[0].read_text())
    for path in written:
        console.print(f"written: {path}")
    return 0


def _fitted(asked: Conduct, setting: Setting, budget: Budget | None) -> Conduct:
    """The trials cut to fit a budget, and what will be done said."""
    study, base = asked.study, asked.trials[asked.study.base]
    every = jobs(study, asked.trials, asked.seeds, setting, asked.root)
    tuning = tuning_cost(base.transfer, setting)  # what it costs the base; noise in it costs less
    training, rest = expected_seconds(every, asked.costs, tuning, setting)
    factor = 1.0
    if budget is not None:
        kept = asked.root / "runs" / f"budget-{asked.name}.json"
        factor = budget.share or fitting_factor(budget.seconds, training, rest, kept)
    words = asked.words
    if factor < 1.0:
        trials = {name: trial.shortened(factor) for name, trial in asked.trials.items()}
        base = trials[study.base]
        every = jobs(study, trials, asked.seeds, setting, asked.root)
        training, rest = expected_seconds(every, asked.costs, tuning, setting)
        words += (
            f"To fit the budget all trainings are cut to {factor:g} of their epochs: {base.recipe.epochs:.3g} of "
            f"pretraining and {base.transfer.epochs:.3g} of fine-tuning.",
        )
        console.print(words[-1])
    else:
        trials = asked.trials
    console.print(
        f"runs      {sum(bool(job.left()) for job in every)} of {len(every)} left, about "
        f"{duration(training + rest)} one after another; give the same command elsewhere to share them"
    )
    count = len(asked.seeds)
    words += (
        f"{len(setting.labelled.train):,} images to learn from, {len(setting.labelled.test):,} to test on, "
        f"{count} {'seed' if count == 1 else 'seeds'}; mean ± standard deviation.",
    )
    return replace(asked, trials=trials, words=words)


def _make(asked: Conduct, setting: Setting) -> int:
    """Make the runs, writing results after each; 0, or the status of a signal."""
    every = jobs(asked.study, asked.trials, asked.seeds, setting, asked.root)
    with signals() as stop:
        for step in work(every, setting, stop.event):
            console.print(
                f"{time.strftime('%H:%M:%S')}  seed {step.job.seed}, {step.job.name}: {step.doing} {step.words}"
            )
            if step.doing == "done":
                _write(asked, setting)
    return 128 + stop.signal if stop.event.is_set() else 0


def _write(asked: Conduct, setting: Setting | None) -> list[Path]:
    shown = asked.costs if asked.study.timed else {}
    about = (asked.trials, asked.seeds, setting, shown, asked.root, asked.words)
    return write(collected(asked.study, *about), asked.name, asked.root)
