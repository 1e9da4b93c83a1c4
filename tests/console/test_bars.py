"""Bars: at 80 columns they show the share, the loss and the time left, and nothing is cut."""

import io
import re
from collections.abc import Iterator

import pytest
from rich.console import Console

from unmask.bar import Bar, clock
from unmask.console import bars
from unmask.console.bars import progress_on
from unmask.console.screen import Screen
from unmask.progress import counted


def terminal(width: int) -> tuple[Screen, io.StringIO]:
    """A screen that writes to memory as to a terminal of this width."""
    screen, memory = Screen(), io.StringIO()
    screen.rich = Console(file=memory, width=width, force_terminal=True, color_system=None)
    return screen, memory


def last_line(memory: io.StringIO) -> str:
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", memory.getvalue()).replace("\r", "\n").split("\n")
    return [line for line in lines if line.strip()][-1]


@pytest.mark.parametrize("width", [50, 80, 120])
def test_all_fits(width: int) -> None:
    screen, memory = terminal(width)
    with Bar(screen.rich, "mae-ti16", None, transient=False) as bar:
        bar.advance_to(10, 100, "loss 0.7650", "27 img/s", "11 GFLOP/s (48% of peak)", "1.2 GiB")
        bar.advance_to(38, 100, "loss 0.7650", "27 img/s", "11 GFLOP/s (48% of peak)", "1.2 GiB")
    line = last_line(memory)
    assert len(line.rstrip()) <= width
    assert "…" not in line
    assert line.startswith("mae-ti16 ━")
    assert re.search(r" 38% loss 0\.7650  ETA \d+:\d\d", line)
    assert ("27 img/s" in line) == (width >= 80)
    assert ("48% of peak" in line) == (width >= 120)


def test_a_new_total_keeps_the_time_left() -> None:
    screen, memory = terminal(80)
    with Bar(screen.rich, "by-time", None, transient=False) as bar:
        for done, total in [(10, 100), (38, 100), (39, 90)]:
            bar.advance_to(done, total, "loss 0.7650")
    assert re.search(r" 43% loss 0\.7650  ETA \d+:\d\d", last_line(memory))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-:--"),
        (5.2, "0:05"),
        (165, "2:45"),
        (3 * 3600 + 60, "3:01:00"),
        (9 * 86400, "9.0 days"),
    ],
)
def test_times_left(seconds: float | None, words: str) -> None:
    assert clock(seconds) == words


def test_a_loop_shows_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "_BAR_AFTER", 0.0)
    monkeypatch.setattr(bars, "_REFRESH", 0.0)
    screen, memory = terminal(80)
    with progress_on(screen):
        assert list(counted("abc", 6, "reading", size=lambda _: 2)) == ["a", "b", "c"]
    assert "reading" in memory.getvalue()
    assert "6 of 6" in memory.getvalue()


def test_a_short_loop_and_an_inner_one_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, memory = terminal(80)
    with progress_on(screen):
        list(counted("abc", 3, "reading"))
    assert memory.getvalue() == ""
    monkeypatch.setattr(bars, "_BAR_AFTER", 0.0)

    def outer() -> Iterator[str]:
        yield from counted("abc", 3, "inner")

    with progress_on(screen):
        list(counted(outer(), 3, "outer"))
    assert "inner" not in memory.getvalue()


def test_a_line_now_and_then_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bars, "PLAIN_SECONDS", 0.0)
    with progress_on(Screen()):
        list(counted("ab", 2, "reading"))
    assert capsys.readouterr().out == "reading: 1 of 2\nreading: 2 of 2\n"


def test_nobody_listens_to_python() -> None:
    items = [1, 2]
    assert list(counted(items, 2, "reading")) == items


@pytest.mark.parametrize("has_widgets", [False, True])
def test_a_notebook_without_widgets_gets_lines(
    has_widgets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rich would warn at every bar, and show none."""
    shell = type("ZMQInteractiveShell", (), {"__module__": "ipykernel.zmqshell"})()
    monkeypatch.setattr("builtins.get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr("rich.console.get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr("unmask.bar.find_spec", lambda name: has_widgets or None)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks do
    assert Console().is_jupyter
    assert Screen().rich.is_jupyter == has_widgets
    assert Screen().is_terminal == has_widgets
