"""The log: one line a step, cut at resume, and no number that is none."""

import json
import math
from pathlib import Path

import pytest
import torch

from unmask.contracts import Size, StepReport
from unmask.errors import DivergedError
from unmask.training.logbook import TIMES, Logbook, read_log
from unmask.training.step_cost import Meter

METER = Meter(torch.device("cpu"), flops_per_image={Size(8, 8): 100}, ceiling=4096.0)


def report(step: int, loss: float = 0.5, **parts: float) -> StepReport:
    return StepReport(
        step=step,
        loss=torch.tensor(loss, dtype=torch.float64),
        parts={name: torch.tensor(value, dtype=torch.float64) for name, value in parts.items()},
        learning_rate=1e-3 * step,
        images=32,
        size=Size(8, 8),
        waiting_seconds=0.5,
    )


def write(path: Path, first: int, last: int) -> None:
    book = Logbook(path, first - 1, METER)
    for step in range(first, last + 1):
        book.add(report(step, 1 / step), 2.0)
    book.write()


def exact(path: Path) -> list[dict[str, float]]:
    """The lines without their times, which depend on how busy the machine is."""
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_log(path)]


def steps(path: Path) -> list[float]:
    return [line["step"] for line in read_log(path)]


def test_lines(tmp_path: Path) -> None:
    book = Logbook(tmp_path / "log.jsonl", 0, METER)
    book.add(report(1, 0.25, rest=0.125), 2000.0)
    returned = book.write()
    assert read_log(tmp_path / "log.jsonl") == returned
    line = returned[0]
    peak = line.pop("peak_memory")
    assert 2**20 < peak < 2**40
    assert {name: line.pop(name) for name in TIMES if name != "peak_memory"} == {
        "images_per_second": 0.02,  # 32 images in 2000 s; reading them adds nothing that counts
        "waiting": 0.0002,  # half a second
        "flops_per_second": 2,
        "mfu": 0.0004,
    }
    assert line == {"step": 1, "loss": 0.25, "rest": 0.125, "learning_rate": 1e-3}
    assert book.write() == []


def test_a_line_may_have_more_fields(tmp_path: Path) -> None:
    book = Logbook(tmp_path / "log.jsonl", 0, METER)
    for step in (1, 2, 3):
        book.add(report(step), 1.0)
    book.note(2, {"seen": 0.125})
    assert [line.get("seen") for line in book.write()] == [None, 0.125, None]
    book.add(report(4), 1.0)
    book.write()
    assert [line.get("seen") for line in read_log(book.path)] == [None, 0.125, None, None]


def test_steps_written_together_share_their_time(tmp_path: Path) -> None:
    """A GPU works behind the program's back: the first of two seems to take no time."""
    book = Logbook(tmp_path / "log.jsonl", 0, METER)
    book.add(report(1), 0.0)
    book.add(report(2), 4000.0)
    first, second = book.write()
    assert first["images_per_second"] == second["images_per_second"] == 0.02
    assert first["waiting"] == second["waiting"] == 0.0002  # two halves of a second
    assert steps(tmp_path / "log.jsonl") == [1, 2]


def test_numbers_return_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    book = Logbook(path, 0, METER)
    losses = torch.rand(50, generator=torch.Generator().manual_seed(0))
    for step, loss in enumerate(losses, start=1):
        book.add(report(step)._replace(loss=loss), 1.0)
    book.write()
    assert [line["loss"] for line in read_log(path)] == losses.tolist()


def test_nothing_reaches_the_file_before_it_is_written(tmp_path: Path) -> None:
    book = Logbook(tmp_path / "log.jsonl", 0, METER)
    book.add(report(1), 1.0)
    assert (tmp_path / "log.jsonl").read_text() == ""


def test_lines_past_the_checkpoint_are_cut_at_resume(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write(path, 1, 9)
    whole = exact(path)
    write(path, 5, 9)
    assert exact(path) == whole


@pytest.mark.parametrize(
    "torn", ['{"step": 4, "lo', "{", '{"step": 4, "loss": 0.25, "learning_rate": 0.0']
)
def test_torn_last_line(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "log.jsonl"
    write(path, 1, 3)
    path.write_text(path.read_text() + torn)
    assert steps(path) == [1, 2, 3]
    write(path, 4, 5)
    assert steps(path) == [1, 2, 3, 4, 5]
    for line in path.read_text().splitlines():
        json.loads(line)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_and_names_its_step(tmp_path: Path, loss: float) -> None:
    path = tmp_path / "log.jsonl"
    book = Logbook(path, 0, METER)
    for step, value in ((1, 0.5), (2, loss), (3, loss)):
        book.add(report(step, value), 1.0)
    with pytest.raises(
        DivergedError,
        match=rf"loss of step 2 is {loss} at a learning rate of 0.002, so training "
        r"stopped.*half of --schedule.base-lr.*--precision float32",
    ):
        book.write()
    assert steps(path) == [1, 2]


def test_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_log(tmp_path / "none.jsonl") == []
