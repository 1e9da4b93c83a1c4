"""`unmask demo`: pretrain on handwritten digits, and show the benefit with few labels."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from threading import Event
from typing import NamedTuple

import numpy as np
import torch
from rich.table import Table

from unmask.console.arguments import parse
from unmask.console.hardware import Threads, use_threads
from unmask.console.output import console, duration, notes, shown
from unmask.console.processes import locked
from unmask.data import Digits
from unmask.data.in_memory import MemoryImages
from unmask.data.loader import end_with_parent
from unmask.data.statistics import measure
from unmask.errors import RunError
from unmask.evaluation.few_labels import LINEAR, RAW, TUNED, Images, Result, compare, draw_trial
from unmask.files import write_text
from unmask.pictures.drawing import drawn
from unmask.pictures.figure import loss_curve
from unmask.pictures.sheet import Inked, Row, save_sheet, sheet
from unmask.recipes import RECIPES
from unmask.runs.folder import RunFolder, check_empty
from unmask.runs.model import load
from unmask.runs.pretrain import Pretrain
from unmask.runs.reconstruct import HEADINGS, standing_in_words
from unmask.runs.run import Run, new_run
from unmask.runs.training import training
from unmask.spec import within
from unmask.training.hardware import Hardware
from unmask.training.logbook import read_log

_RECIPE = "mae-digits"
_PRETRAINED, _RANDOM = "pretrained", "random weights"
_LABELS = (2, 10)
_SEEDS = 3
_VALIDATION = 200
_SHOWN = 6
_CONVERGED = 0.98  # share of the labelled images that fine-tuning must fit
# at most, unless --threads asks for more: each needs as much memory as the demo itself
_PROCESSES = 2


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask demo`."""

    out: str = "unmask-demo"
    """Folder of the results."""

    epochs: float = RECIPES[_RECIPE].recipe.epochs
    """Epochs of pretraining."""

    seeds: int = _SEEDS
    """Number of random draws of the labelled images."""

    threads: Threads = None
    """One for each process that learns from few labels; pretraining uses a single one."""

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "epochs")
        within(self, "[1, inf)", "seeds", "threads")


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "demo")
    started = time.perf_counter()
    folder = RunFolder(Path(args.out) / "run")
    if folder.spec.exists():
        raise RunError(f"{args.out} holds a demo already; choose another folder with --out")
    check_empty(Path(args.out))
    folder.check_free()
    source, test = Digits().open("train"), Digits().open("test")
    run = _run(source, args.epochs)
    console.print(
        f"pretraining {run.recipe_name} on {len(source):,} handwritten digits without labels; "
        f"{len(test)} others are kept for testing"
    )
    threads = use_threads(args.threads)
    processes = args.threads or min(_PROCESSES, threads)
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=end_with_parent)
    with pool:
        pool.submit(_ready)  # imports take seconds; the pool does them during pretraining
        folder.create(run)
        with locked(folder):
            for _ in shown(training(run, folder, source, run.build(), Event()), "pretraining"):
                pass
        results = _compare(pool, folder.root, args.seeds)
    for table in _tables(results):
        console.result(table.drawn())
    verdict = _verdict(results)
    console.result(verdict)
    files = _write(Path(args.out), folder, results, verdict)
    console.result(f"\nwritten in {duration(time.perf_counter() - started)}:")
    for file, what in files.items():
        console.result(f"  {file}  {what}")
    console.result("\nnext, use your own images:\n  unmask pretrain FOLDER_OF_IMAGES --minutes 20")
    return 0


def _run(source: MemoryImages, epochs: float) -> Run:
    recipe = RECIPES[_RECIPE].recipe
    warmup = min(recipe.schedule.warmup_epochs, epochs / 10)
    recipe = replace(recipe, epochs=epochs, schedule=replace(recipe.schedule, warmup_epochs=warmup))
    torch.set_num_threads(1)
    hardware = Hardware(
        device="cpu",
        precision="float32",
        workers=0,
        threads=1,  # steps are so small that a second thread gives no gain
        micro_batch=recipe.batch_size,
    )
    return new_run(_RECIPE, Pretrain(recipe=recipe), Digits(), source, measure(source), hardware)


def _compare(pool: ProcessPoolExecutor, root: Path, seeds: int) -> list[Result]:
    """Train every arm with every number of labels and every seed, several at a time, and show progress."""
    wanted = [(labels, seed) for labels in _LABELS for seed in range(seeds)]
    trials = [pool.submit(_learn_from_few, root, *trial) for trial in wanted]
    results: list[Result] = []
    with console.rich.status("learning from few labels") as status:
        for number, trial in enumerate(trials):
            status.update(f"learning from few labels: draw {number + 1} of {len(trials)}")
            results += trial.result()
    return results


def _ready() -> None:
    """Do nothing; a process that calls this has imported everything that a trial needs."""


def _learn_from_few(root: Path, labels: int, seed: int) -> list[Result]:
    """One trial of both encoders, in its own process."""
    torch.set_num_threads(1)
    model, source, test = load(root), Digits().open("train"), Digits().open("test")
    encoders = {_RANDOM: model.spec.build_encoder().eval(), _PRETRAINED: model.encoder}
    trial = draw_trial(_in_memory(source), _in_memory(test), labels, _VALIDATION, seed)
    return list(compare(encoders, trial, labels, seed))


def _in_memory(source: MemoryImages) -> Images:
    return Images(source.pixels, torch.from_numpy(source.labels()))


def _arms(results: list[Result]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((result.method, result.encoder) for result in results))


def _accuracies(results: list[Result], arm: tuple[str, str], labels: int) -> np.ndarray:
    return np.array(
        [r.accuracy for r in results if (r.method, r.encoder, r.labels_per_class) == (*arm, labels)]
    )


class _Table(NamedTuple):
    """A table for the console and for Markdown; the columns after two of words are the counts of labels."""

    title: str
    second: str
    """Head of the second column; the first is the method."""
    rows: list[list[str]]

    def drawn(self) -> Table:
        """For the console; what pretraining gives is bold."""
        table = Table("method", self.second, title=self.title)
        for labels in _LABELS:
            table.add_column(f"{labels} per class", justify="right")
        for row in self.rows:
            last = row[1] == _PRETRAINED  # of a method
            table.add_row(*row, style="bold" if last else None, end_section=last)
        return table

    def markdown(self) -> str:
        """For table.md."""
        heads = ["method", self.second, *(f"{labels} per class" for labels in _LABELS)]
        lines = [heads, ["---"] * len(heads), *self.rows]
        return f"{self.title}:\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _tables(results: list[Result]) -> list[_Table]:
    """The accuracies, and what pretraining gains."""
    accuracies = [
        [*arm, *(_cell(_accuracies(results, arm, labels)) for labels in _LABELS)]
        for arm in _arms(results)
    ]
    gains = [
        [method, other, *(_gain(results, method, other, labels) for labels in _LABELS)]
        for method, other in ((LINEAR, RAW), (LINEAR, _RANDOM), (TUNED, _RANDOM))
    ]
    draws = f"{_seeds(results)} draws of labels"
    return [
        _Table(f"test accuracy, mean ± deviation over {draws}", "encoder", accuracies),
        _Table("gain of pretraining in points", "against", gains),
    ]


def _seeds(results: list[Result]) -> int:
    return len({result.seed for result in results})


def _cell(accuracies: np.ndarray) -> str:
    return f"{accuracies.mean():.1%} ± {accuracies.std():.1%}"


def _verdict(results: list[Result]) -> str:
    """What the words of the gains mean, and whether fine-tuning had enough steps."""
    lowest = min(one.training_accuracy for one in results if one.method == TUNED)
    fit = (
        f"every fine-tuned encoder fits its labelled images (lowest {lowest:.0%}), so none lacks steps"
        if lowest > _CONVERGED
        else f"a fine-tuned encoder fits only {lowest:.0%} of its labelled images, so it lacks steps"
    )
    return f"wins: higher in each of the {_seeds(results)} draws\n{fit}"


def _gain(results: list[Result], method: str, other: str, labels: int) -> str:
    """The points of accuracy that pretraining gains over another start, and whether it does so in every draw."""
    ours, theirs = (
        _accuracies(results, (method, encoder), labels) for encoder in (_PRETRAINED, other)
    )
    gain = ours - theirs
    word = "wins" if gain.min() > 0 else "loses" if gain.max() < 0 else "within noise"
    return f"{100 * gain.mean():+.1f} ({word})"


def _write(out: Path, folder: RunFolder, results: list[Result], verdict: str) -> dict[Path, str]:
    files = {
        out / "table.md": "the tables above",
        out / "results.json": "every single accuracy",
        out / "loss.png": "the loss of pretraining",
        out / "sheet.png": "digits, partly hidden and rebuilt",
        folder.root: "the run, as `unmask pretrain` writes it",
    }
    lines = verdict.replace("\n", "  \n")
    tables = "\n".join(table.markdown() for table in _tables(results))
    write_text(out / "table.md", f"{tables}\n{lines}\n")
    rows = [result._asdict() for result in results]
    write_text(out / "results.json", json.dumps(rows, indent=1))
    draws: dict[Path, Callable[[Path], object]] = {
        out / "loss.png": lambda path: loss_curve(
            read_log(folder.log), path, "pretraining on digits"
        ),
        out / "sheet.png": lambda path: _sheet(folder, path),
    }
    for path, draw in draws.items():
        if note := drawn(path, draw):
            notes.note(note)
            del files[path]
    return files


def _sheet(folder: RunFolder, path: Path) -> None:
    """Draw test digits, partly hidden and rebuilt."""
    model, test = load(folder.root), Digits().open("test")
    positions = np.linspace(0, len(test) - 1, _SHOWN).astype(int).tolist()
    results = [model.reconstruct(test.pixels[one], seed=one) for one in positions]
    rows = [
        Row(result.versions(), [Inked(f"{test.name(one)}: "), *result.caption()])
        for one, result in zip(positions, results, strict=True)
    ]
    notes = [
        standing_in_words(results),
        "test digits; error: root mean square on hidden pixels, in levels of 255",
    ]
    save_sheet(sheet(HEADINGS, rows, notes), path)
