"""Carry out a study for `unmask study` and `unmask compare`: costs, budget, runs, results."""

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from unmask.annotations import DENSE, ClassLabels, annotated_words, is_dense
from unmask.channels import ChannelStatistics
from unmask.console.bars import progress_on
from unmask.console.hardware import MachineFlags, hardware_of, use_threads
from unmask.console.output import duration
from unmask.console.pages import say_page
from unmask.console.processes import signals
from unmask.console.screen import console, notes
from unmask.console.typed import as_typed
from unmask.data import AnySource
from unmask.data.draws import draw_share
from unmask.data.labelled import Labelled, Subset, open_labelled
from unmask.data.statistics import measure
from unmask.errors import DataError, ResourceError, SettingsError, number_of
from unmask.files import clear_unfinished, read_json, write_text
from unmask.recipes import Recipe, Tokenizing
from unmask.runs.folder import check_empty
from unmask.study.claims import claimed
from unmask.study.cost import StepCost, costs
from unmask.study.plan import (
    Job,
    Plan,
    Setting,
    expected_seconds,
    fitting_factor,
    jobs,
    tuning_cost,
)
from unmask.study.report import collected, write
from unmask.study.worker import work
from unmask.training.hardware import Hardware, cores

_PIXELS = 64 * 32 * 32  # of all images in one measured pass
_FEWEST = 4
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def make_folder(out: str) -> Path:
    """Create the folder of tables and runs.

    Raises:
        RunError: if it holds other things.
        ResourceError: if it cannot be written.
    """
    root = Path(out)
    if not (root / "runs").is_dir():
        check_empty(root)
    try:
        (root / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{root} cannot be written ({error.strerror}); choose another folder with --out"
        ) from None
    clear_unfinished(root)
    return root


def with_kept_threads(flags: MachineFlags, root: Path) -> MachineFlags:
    """The flags with the number of threads that the first command in this folder used, if --threads is not given.

    So processes that share the folder measure equal costs of steps, from which the epochs of a comparison follow, no
    matter how busy the machine is when each starts. A folder of an earlier version, which has costs and no such file,
    goes on with all cores, as it began. A smaller machine uses all that it has.

    Raises:
        DataError: if the folder's file does not hold a number.
    """
    if flags.threads is not None:
        return flags
    kept, every = root / "runs" / "threads.json", cores()
    if not kept.exists():
        begun = any((root / "runs").glob("costs-*/costs.json"))
        threads = use_threads(every if begun else None)
        write_text(kept, f"{threads}\n")
        return replace(flags, threads=threads)
    threads = read_json(kept)
    if not isinstance(threads, int) or threads < 1:
        raise DataError(f"{kept} must hold a number of threads, got {threads!r}; delete it")
    if threads < every:
        notes.note_later(
            f"torch uses {threads} of {every} cores, as the first command in {root} did; --threads {every} uses "
            "all, and measures the cost of steps again"
        )
    return replace(flags, threads=min(threads, every))


class Budget(NamedTuple):
    """A limit for all training runs together."""

    share: float | None
    """Share of the epochs; None for a limit in seconds."""
    seconds: float


def checked_budget(budget: str | None) -> Budget | None:
    """The value of --budget."""
    if budget is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|s|m|min|h|d)", budget.strip())
    if match is not None and match[2] == "%":
        if not 0 < float(match[1]) <= 100:
            raise SettingsError(
                f"--budget must be above 0% and at most 100% of the epochs, got {budget!r}"
            )
        return Budget(float(match[1]) / 100, 0.0)
    if match is None or float(match[1]) == 0:
        raise SettingsError(
            f"--budget must be a time such as 90min or 2h, or a share such as 50%, got {budget!r}"
        )
    return Budget(None, float(match[1]) * _UNITS[match[2]])


def setting_of(
    source: AnySource, images: int | None, flags: MachineFlags, batch_size: int
) -> Setting:
    """Images and hardware of a study; `images` limits the number of training images."""
    console.print(f"reading   {as_typed(source)} ...")
    with progress_on(console):
        labelled = _few(open_labelled(source, 0, (ClassLabels, *DENSE)), images)
        statistics = measure(labelled.train)
    console.print(
        f"images    {len(labelled.train):,} for training and {len(labelled.test):,} for testing, "
        f"{annotated_words(labelled.train.annotations)} ({labelled.split})"
    )
    hardware = hardware_of(flags, in_memory=labelled.train.in_memory, batch_size=batch_size)
    return Setting(data=source, labelled=labelled, statistics=statistics, hardware=hardware)


def _few(labelled: Labelled, images: int | None) -> Labelled:
    """Limit the training images to this number, the same share of every class."""
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
    """The costs of steps; one of the processes that share the folder measures, the others wait."""
    console.print("measuring the cost of steps ...")
    torch.set_num_threads(hardware.threads)
    size = next(iter(recipes.values())).image_size
    folder = root / "runs" / f"costs-{name}"
    while True:
        with claimed(folder) as is_ours, progress_on(console):
            if is_ours:
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


def conduct(plan: Plan, setting: Setting | None, budget: Budget | None, again: str) -> int:
    """Make the remaining runs, write and print the results; returns the exit status. `again` is the command line."""
    stopped = 0
    plan = replace(plan, words=(*plan.words, f"Made by `{again}`."))
    if setting is not None:
        plan = _fitted(plan, setting, budget)
        stopped = _make(plan, setting)
    written = write(collected(plan, setting), plan.name, plan.root, notes.note)
    if stopped:
        console.result(f"stopped; continue with:\n{again}")
        return stopped
    say_page(written[0].read_text(encoding="utf-8"), console)
    for path in written:
        console.print(f"written: {path}")
    return 0


def _fitted(plan: Plan, setting: Setting, budget: Budget | None) -> Plan:
    """The study with its trials cut to fit the budget; prints the plan."""
    base = plan.trials[plan.study.base]
    every = jobs(plan, setting)
    tuning = tuning_cost(base.transfer, setting)  # variations with noise cost less than the base
    training, rest = expected_seconds(every, plan.costs, tuning, setting)
    factor = 1.0
    if budget is not None:
        kept = plan.root / "runs" / f"budget-{plan.name}.json"
        factor = budget.share or fitting_factor(budget.seconds, training, rest, kept)
    words = plan.words
    if factor < 1.0:
        trials = {name: trial.shortened(factor) for name, trial in plan.trials.items()}
        plan, base = replace(plan, trials=trials), trials[plan.study.base]
        every = jobs(plan, setting)
        training, rest = expected_seconds(every, plan.costs, tuning, setting)
        words += (
            f"To fit the budget, all training is cut to {factor:g} of its epochs: {base.recipe.epochs:.3g} of "
            f"pretraining and {base.transfer.epochs:.3g} of fine-tuning.",
        )
        console.print(words[-1])
    console.print(
        f"runs      {_left(every)} of {len(every)} left, about "
        f"{duration(training + rest)} one after another; run the same command in another terminal to share them"
    )
    test = len(setting.labelled.test)
    words += (
        f"{len(setting.labelled.train):,} training images, {test:,} test images, "
        f"{number_of(len(plan.seeds), 'seed')}; mean ± standard deviation.",
    )
    if not is_dense(setting.labelled.train.annotations):
        words += (
            f"All seeds are scored on the same {test:,} test images: the 95 % interval of a difference in accuracy over such "
            f"images is at most about ±{100 * chance_difference(test):.2g} points, if the methods err independently.",
        )
    return replace(plan, words=words)


def chance_difference(images: int) -> float:
    """Half the 95 % interval of the difference of two accuracies on so many images, of methods that err independently.

    At accuracies of 50 %, where it is widest; at most 1.
    """
    return min(1.0, 1.96 * math.sqrt(2 * 0.25 / images))


def _make(plan: Plan, setting: Setting) -> int:
    """Make the runs and write results after each; returns 0, or the status of a signal."""
    every = jobs(plan, setting)
    before, started = _left(every), time.perf_counter()
    with signals() as stop, progress_on(console):
        for step in work(every, setting, stop.event):
            is_done = step.doing == "done"
            so_far = ""
            if is_done and (left := _left(every)) < before:
                seconds = (time.perf_counter() - started) / (before - left) * left
                so_far = f" ({left} of {len(every)} runs left, about {duration(seconds)})"
            console.print(
                f"{time.strftime('%H:%M:%S')}  seed {step.job.seed}, {step.job.name}: {step.doing} {step.words}{so_far}"
            )
            if is_done:
                write(collected(plan, setting), plan.name, plan.root, notes.note)
    return 128 + stop.signal if stop.event.is_set() else 0


def _left(every: Sequence[Job]) -> int:
    """The number of runs that are not finished."""
    return sum(bool(job.left()) for job in every)
