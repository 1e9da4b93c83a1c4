"""What commands print: lines of words, warnings, and how much of it."""

import io
import os
import signal
import subprocess
import sys
import threading

import pytest
from rich.console import Console

from unmask.console.processes import signals
from unmask.console.screen import Screen, console, notes, say_loading
from unmask.console.verbosity import VERBOSITY, take_verbosity
from unmask.console.wrapping import wrapped


def test_lines_break_between_words_and_go_on_below_their_text() -> None:
    text = (
        "images    1,400 colour in 7 classes in photos/a-long-folder-name, about 400 x 400 pixels"
    )
    assert wrapped(text, 50) == (
        "images    1,400 colour in 7 classes in\n"
        "          photos/a-long-folder-name, about 400 x\n"
        "          400 pixels"
    )


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("warning: half of --schedule.base-lr is better", "         "),
        ("note: half of --schedule.base-lr is better", "      "),
        ("expected  half of --schedule.base-lr is better", "          "),
        ("  - half of --schedule.base-lr is better", "    "),
        ("I am sure that half of --schedule.base-lr is better", ""),
    ],
)
def test_what_follows_a_heading_is_indented(text: str, second: str) -> None:
    first, *rest = wrapped(text, 32).split("\n")
    assert len(first) <= 32
    assert rest
    assert all(line.startswith(second) and line[len(second)] != " " for line in rest)
    assert "--schedule.base-lr" in wrapped(text, 32)


def test_commands_and_paths_stay_whole() -> None:
    command = "use it:  unmask predict runs/" + 80 * "x" + " photos"
    assert wrapped(command, 40) == command
    path = "/folder/" + 80 * "x"
    assert path in wrapped(f"done: a run in {path} of today", 40).split("\n")


def test_a_table_in_a_pipe_is_not_squeezed() -> None:
    assert console.rich.width >= 80


@pytest.mark.parametrize(
    ("words", "rest", "value"),
    [
        (["digits", "--quiet"], ["digits"], "quiet"),
        (["-v", "digits"], ["digits"], "verbose"),
        (["-q", "pretrain", "--quiet"], ["pretrain"], "quiet"),
        (["digits"], ["digits"], "normal"),
        (["--", "-v"], ["--", "-v"], "normal"),
    ],
)
def test_the_flags_for_more_and_less(
    words: list[str], rest: list[str], value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VERBOSITY, "normal")
    assert take_verbosity(words) == rest
    assert os.environ[VERBOSITY] == value


def test_quiet_prints_results_and_warnings_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VERBOSITY, "quiet")
    console.print("plan")
    console.result("score")
    notes.note("recipe")
    notes.warn("collapsed")
    out, err = capsys.readouterr()
    assert (out, err) == ("score\n", "warning: collapsed\n")


def test_a_command_can_speak_before_torch_is_imported() -> None:
    code = "import sys, unmask.console.screen; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_loading_is_said_to_people_only(capsys: pytest.CaptureFixture[str]) -> None:
    say_loading()
    assert capsys.readouterr().err == ""


def test_ctrl_c_is_answered_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and thread.daemon:
                thread.join(5)
        assert stop.event.is_set()
        assert "finishing this step; Ctrl-C again to stop now" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_note_for_later_waits_for_the_first_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VERBOSITY, "normal")
    notes.note_later("two cores are busy")
    console.print("reading")
    assert capsys.readouterr() == ("reading\n", "")
    console.result("score")
    console.result("again")
    assert capsys.readouterr() == ("score\nagain\n", "note: two cores are busy\n")


def test_words_stand_above_a_bar_of_the_other_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Console(force_terminal=True, file=io.StringIO(), width=60)
    screen = Screen(stderr=True)
    screen.rich = Console(force_terminal=True, file=io.StringIO(), width=60)
    monkeypatch.setattr("unmask.console.screen.live", [drawn])
    screen.result("finishing this step")
    assert "finishing this step" in drawn.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert screen.rich.file.getvalue() == ""  # pyright: ignore[reportAttributeAccessIssue]
