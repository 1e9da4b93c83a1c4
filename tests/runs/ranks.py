"""Processes that train together, forked from one that has imported everything once: `python ranks.py PLAN.json`.

A plan is a list of jobs, done one after the other: how many processes, which function of this file each
calls, its arguments, and where what they gave back is written; and a folder to copy before, if any. A process that
is killed gives nothing back.
"""

import json
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import patch

import torch
from runs import tiny, tiny_dense

from unmask.clock import enter
from unmask.data.folder import Folder
from unmask.report.trackers import TRACKERS
from unmask.runs.finetune import Tuned
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.runs.training import training
from unmask.spec import to_json
from unmask.training import loss_scale
from unmask.training.distributed import everyones, here, joined, spread


def trained(
    root: str, told_at: int = 0, killed_at: int = 0, first_scale: float = 0.0, **hardware: Any
) -> list[int]:
    """Go on with pretraining; the steps taken. The last process is told to stop, or is killed, after a step."""
    if first_scale:
        loss_scale._FIRST = first_scale
    enter()
    folder, stop = RunFolder(root), Event()
    run = Run.read(folder, "pretrain")
    run = replace(run, hardware=replace(run.hardware, **hardware, processes=here().count))
    source, (start, _) = run.data.open("train"), folder.newest()
    steps: list[int] = []
    for progress in training(run, folder, source, run.build(), stop, start):
        steps.append(progress.step)
        if here().rank == here().count - 1:
            if progress.step == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if progress.step == told_at:
                stop.set()
    return steps


def tuned(root: str, **hardware: Any) -> dict[str, Any]:
    """Fine-tune to the end, and test."""
    folder = RunFolder(root)
    run = Run.read(folder, "finetune")
    run = replace(run, hardware=replace(run.hardware, **hardware, processes=here().count))
    images, classifier = run.job.open(run.data, run.seed), run.build()
    start, _ = folder.newest()
    for _ in training(run, folder, images.train, classifier, Event(), start):
        pass
    if run.hardware.shard:
        classifier = run.build()
        classifier.load_state_dict(folder.newest_whole()[0].read("model"))
    tuned = Tuned(classifier, run.job, run.statistics)
    with patch("unmask.runs.finetune._BATCH", 2):
        outcome = tuned.score(images.test, run.hardware)
    state = {name: tensor.double().sum().item() for name, tensor in classifier.state_dict().items()}
    return {**outcome.result, "unreadable": outcome.unreadable, "sums": state}


def segmented() -> dict[str, list[float]]:
    """One step of segmentation with batch normalisation, on this process's images: see `tiny_dense.stepped`."""
    module = tiny_dense.build()
    rows = list(range(here().rank, tiny_dense.IMAGES, here().count))
    return tiny_dense.stepped(spread(module, torch.device("cpu"), shard=False), module, rows)


def detected() -> dict[str, Any]:
    """One step of detection on this process's images, and the merged score of detections of all processes."""
    module, ranks = tiny_dense.detector(), here()
    rows = list(range(ranks.rank, tiny_dense.DETECTED, ranks.count))
    sums = tiny_dense.detected(spread(module, torch.device("cpu"), shard=False), module, rows)
    scoring = tiny_dense.scored(rows)
    return {"sums": sums, "score": to_json(scoring.merged(everyones(scoring)).result())}


def said(
    arguments: list[str], lacking: bool = False, killed: bool = False, watched: bool = False
) -> dict[str, Any]:
    """What the command line says and returns.

    The second process may lack an image, or the first be killed after a step; or any but the first may not open the report or
    a tracker.
    """
    from unmask import cli
    from unmask.console import observers, train

    if watched and os.environ["RANK"] != "0":
        observers.LiveReport = _refused
        TRACKERS["tensorboard"] = TRACKERS["tensorboard"]._replace(open=_refused)

    if killed and os.environ["RANK"] == "0":
        train.shown = lambda reports, _: _killed(reports)

    sys.argv = ["unmask", *arguments]
    if lacking and os.environ["RANK"] == "1":
        listed = Folder._listed
        Folder._listed = lambda folder, _: listed(folder, Path("fewer"))  # type: ignore[method-assign]
    output = Path(f"said-{os.environ['RANK']}.txt")
    with output.open("w") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
        status: Any = 0
        try:
            cli.main()
        except SystemExit as error:
            status = error.code
        sys.stdout.flush(), sys.stderr.flush()
    return {"status": status, "said": output.read_text()}


def _refused(*_: Any) -> Any:
    os._exit(9)


def _killed(reports: Iterator[Any]) -> Iterator[Any]:
    yield next(reports)
    os.kill(os.getpid(), signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("", 0))
        return server.getsockname()[1]


@contextmanager
def alone() -> Iterator[None]:
    yield


def worker(job: dict[str, Any], rank: int, port: int, writing: int) -> None:
    """What a forked process does: join the others, work, hand over what came of it."""
    count = job["processes"]
    os.environ |= {"MASTER_ADDR": socket.gethostname(), "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
    torch.set_num_threads(1)
    try:
        with alone() if job["work"] == "said" else joined():
            found = globals()[job["work"]](**job["arguments"])
    except Exception:
        found = {"error": traceback.format_exc()}
    os.write(writing, json.dumps(found).encode())


def done(job: dict[str, Any]) -> list[Any]:
    """What each process gave back; None for one that was killed."""
    port, pipes = free_port(), []
    for rank in range(job["processes"]):
        reading, writing = os.pipe()
        if os.fork() == 0:
            try:
                worker(job, rank, port, writing)
            finally:
                os._exit(0)
        os.close(writing)
        pipes.append(reading)
    texts = [b"".join(iter(lambda pipe=pipe: os.read(pipe, 65536), b"")) for pipe in pipes]
    for _ in pipes:
        os.wait()
    return [json.loads(text) if text else None for text in texts]


def main(plan: Path) -> None:
    """Do all jobs of a plan."""
    torch.set_num_threads(1)
    for job in json.loads(plan.read_text()):
        if job["copied"]:
            shutil.copytree(job["copied"], job["arguments"]["root"])
        Path(job["report"]).write_text(json.dumps(done(job)))


if __name__ == "__main__":
    assert tiny  # imported once, for all forks
    main(Path(sys.argv[1]))
