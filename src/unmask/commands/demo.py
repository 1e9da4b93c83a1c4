"""`unmask demo`: pretrain on handwritten digits, and show the benefit with few labels."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from threading import Event

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
from unmask.evaluation.few_labels import BATCH, STEPS, Images, Result, compare, draw_trial
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
_LABELS = (2, 10)
_SEEDS = 3
_VALIDATION = 200
_SHOWN = 6
_PROCESSES = (
    2  # at most, unless --threads asks for more: each needs as much memory as the demo itself
)


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
    console.result(_table(results))
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
    encoders = {"random": model.spec.build_encoder().eval(), "pretrained": model.encoder}
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


def _table(results: list[Result]) -> Table:
    table = Table(
        "method",
        "on",
        title=f"test accuracy, mean ± deviation over {_seeds(results)} draws of labels",
    )
    for labels in _LABELS:
        table.add_column(f"{labels} per class", justify="right")
    for arm in _arms(results):
        cells = [_cell(_accuracies(results, arm, labels)) for labels in _LABELS]
        table.add_row(*arm, *cells)
    return table


def _seeds(results: list[Result]) -> int:
    return len({result.seed for result in results})


def _cell(accuracies: np.ndarray) -> str:
    return f"{accuracies.mean():.1%} ± {accuracies.std():.1%}"


def _verdict(results: list[Result]) -> str:
    """Compare linear classifiers on the pretrained encoder, on a random one and on raw pixels, in words.

    Fine-tuning is left out, because its random start has not converged.
    """
    lines: list[str] = []
    for labels in _LABELS:
        ours = _accuracies(results, ("linear classifier", "pretrained"), labels)
        for other, name in (("random", "random weights"), ("raw pixels", "raw pixels")):
            gain = ours - _accuracies(results, ("linear classifier", other), labels)
            word = "wins" if gain.min() > 0 else "loses" if gain.max() < 0 else "is within noise"
            lines.append(
                f"linear classifier, {labels} per class: pretraining {word} against {name} "
                f"({100 * gain.mean():+.1f} points)"
            )
    lines.append(
        f"the fine-tuning rows are no fair comparison: {STEPS} steps of {BATCH} images are too few for random weights "
        "(studies/LOG.md)"
    )
    return "\n".join(lines)


def _write(out: Path, folder: RunFolder, results: list[Result], verdict: str) -> dict[Path, str]:
    files = {
        out / "table.md": "the table above",
        out / "results.json": "every single accuracy",
        out / "loss.png": "the loss of pretraining",
        out / "sheet.png": "digits, partly hidden and rebuilt",
        folder.root: "the run, as `unmask pretrain` writes it",
    }
    lines = verdict.replace("\n", "  \n")
    write_text(out / "table.md", f"{_markdown(results)}\n{lines}\n")
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


def _markdown(results: list[Result]) -> str:
    heads = [f"{labels} per class" for labels in _LABELS]
    lines = [
        f"Test accuracy, mean ± deviation over {_seeds(results)} draws of the labels.\n",
        "| method | on | " + " | ".join(heads) + " |",
        "|---|---|" + "---|" * len(heads),
    ]
    for arm in _arms(results):
        cells = [_cell(_accuracies(results, arm, labels)) for labels in _LABELS]
        lines.append("| " + " | ".join([*arm, *cells]) + " |")
    return "\n".join(lines) + "\n"


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
