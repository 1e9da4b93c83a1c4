"""Where a run with a time ends: decided again and again, logged, and repeated when it goes on."""

import itertools
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from runs import tiny

from unmask.runs import course, training
from unmask.runs.course import ELAPSED, ENDS, Course
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.training.logbook import read_log

RECIPE = replace(tiny.RECIPE, epochs=100.0, schedule=replace(tiny.RECIPE.schedule, cooldown=0.3))
"""Twelve images and batches of four: 300 steps, with a decision after every sixth."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("course") / "images")


class Clock:
    """A clock that goes on by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(course, "time", clock)
    return clock


def run_of(images: Path, minutes: float | None) -> Run:
    return replace(tiny.make_run(images, recipe=RECIPE), minutes=minutes)


def taken(run: Run, log: Path, clock: Clock, seconds: object) -> Course:
    """A course after its whole run, in which step i takes seconds(i)."""
    found, step = Course(run, read_log(log), 0, clock.now), 0
    while step < found.steps:
        clock.now += seconds(step)  # type: ignore[operator]
        step += 1
        if found.due(step):
            found.decide(step)
    return found


def test_without_a_time_nothing_is_decided(images: Path, tmp_path: Path, clock: Clock) -> None:
    run = run_of(images, None)
    found = taken(run, tmp_path / "log", clock, lambda _: 1.0)
    assert found.steps == 300
    assert [found.rate(step) for step in (0, 7, 299)] == [run.rate(step) for step in (0, 7, 299)]
    assert found.done(75) == 0.25


@pytest.mark.parametrize(
    "seconds",
    [
        lambda step: 0.2,  # as estimated
        lambda step: 0.1,  # twice as fast
        lambda step: 0.5,  # slower
        lambda step: 0.2 if step < 100 else 0.4,  # another process begins
        lambda step: 0.4 if step < 100 else 0.2,  # another process ends
        lambda step: 0.2 if step < 270 else 0.4,  # another process begins near the end
        lambda step: 6.0 if step == 0 else 0.2,  # the first step compiles
        lambda step: 4.0 if step in (100, 200) else 0.2,  # two pauses
    ],
)
def test_ends_in_time_at_any_speed(
    images: Path, tmp_path: Path, clock: Clock, seconds: object
) -> None:
    began = clock.now
    found = taken(run_of(images, 1.0), tmp_path / "log", clock, seconds)
    assert clock.now - began == pytest.approx(59.0, rel=0.03)  # a second is for the end
    assert found.done(found.steps) == pytest.approx(1.0)


def test_the_share_that_is_done_goes_on_from_where_it_is(
    images: Path, tmp_path: Path, clock: Clock
) -> None:
    run = run_of(images, 1.0)
    found = taken(run, tmp_path / "log", clock, lambda step: 0.2 if step < 100 else 0.4)
    done = [found.done(step) for step in range(found.steps + 1)]
    assert all(before < after for before, after in itertools.pairwise(done))
    assert max(after - before for before, after in itertools.pairwise(done)) < 0.02
    rates = [found.rate(step) for step in range(found.steps)]
    jumps = [abs(after - before) for before, after in itertools.pairwise(rates)]
    assert max(jumps[20:]) < 0.05 * max(rates)
    assert rates[-1] < 0.05 * max(rates)


@pytest.mark.parametrize("pause", [3, 10, 50])
def test_a_pause_moves_the_end_by_no_more_than_its_own_time(
    images: Path, tmp_path: Path, clock: Clock, pause: int
) -> None:
    found, ends = Course(run_of(images, 1.0), [], 0, clock.now), list[int]()
    for step in range(1, 101):
        clock.now += 4.0 if step == pause else 0.2
        if found.due(step):
            ends.append(int(found.decide(step)[ENDS]))
    assert ends[0] == 300
    assert max(ends) <= 300
    assert min(ends) == pytest.approx(295 - 3.8 / 0.2, abs=5)


def test_when_time_is_over_one_step_is_left(images: Path, tmp_path: Path, clock: Clock) -> None:
    found = Course(run_of(images, 1.0), [], 0, clock.now)
    found.decide(1)
    clock.now += 100
    assert found.decide(6)[ENDS] == 7


class Running(Clock):
    """A clock that goes on by a twentieth of a second whenever it is read."""

    def monotonic(self) -> float:
        self.now += 0.05
        return self.now


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Running:
    """A clock for whole runs: it is read at every decision."""
    clock = Running()
    monkeypatch.setattr(course, "time", clock)
    monkeypatch.setattr(training, "entered", lambda: clock.now)
    return clock


@pytest.fixture
def stopped(images: Path, tmp_path: Path, running: Running) -> RunFolder:
    """A run of three seconds, two of them for its steps, stopped after 41 of them."""
    folder, stop = RunFolder(tmp_path / "run"), Event()
    folder.create(run_of(images, 0.05))
    for progress in tiny.go_on(folder, stop=stop):
        if progress.step == 40:
            stop.set()
    return folder


def test_a_resumed_run_repeats_the_decisions_and_does_not_count_the_pause(
    stopped: RunFolder, running: Running
) -> None:
    lines = read_log(stopped.log)
    decided = [line for line in lines if ENDS in line]
    assert [int(line["step"]) for line in decided] == [1, 6, 12, 18, 24, 30, 36]
    assert decided[0][ENDS] == 300
    assert decided[-1][ENDS] != 300
    running.now += 1000
    again = Course(Run.read(stopped, "pretrain"), lines, 41, running.now)
    assert again.steps == decided[-1][ENDS]
    after = sum(4 / line["images_per_second"] for line in lines if line["step"] > 36)
    assert running.now - again._began == pytest.approx(decided[-1][ELAPSED] + after)
    assert [again.rate(step) for step in range(41)] == [line["learning_rate"] for line in lines]


def test_a_resumed_run_ends_in_its_time_too(stopped: RunFolder, running: Running) -> None:
    *_, last = tiny.go_on(stopped)
    assert last.step == last.steps == tiny.newest(stopped).info.step
    lines = read_log(stopped.log)
    assert max(line.get(ELAPSED, 0.0) for line in lines) == pytest.approx(2.0, abs=0.2)
    assert 41 < last.step < 300
    assert Course(Run.read(stopped, "pretrain"), lines, last.step, 0.0).steps == last.step
