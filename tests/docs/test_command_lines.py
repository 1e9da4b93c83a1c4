"""Every command in README and docs is understood: where its files are missing, that is all that it complains about."""

import re
from pathlib import Path

import pytest
from docs.pages import ROOT, command_lines, commands_in_tables, run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINES = sorted(
    {line for page in PAGES for line in (*command_lines(page), *commands_in_tables(page))}
)

NOTHING_THERE = re.compile(
    r"does not exist|there is no file or folder|there is no run|\d+ of the \d+ files of .* are missing|no such file"
)
OWN = ("masked-folder", "salient", "jepa", "task:coverage")
"""Additions of docs/add-your-own.md, whose commands its own test runs."""

NEED_NO_FILES = ("unmask demo", "unmask study --list", "unmask words", "unmask bench --recipe")
"""Commands that would begin to work."""


@pytest.mark.parametrize("line", LINES)
def test_is_understood(
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if any(word in line for word in OWN) or "[--" in line:
        pytest.skip("an addition of the reader's, or a list of flags")
    if line.startswith(NEED_NO_FILES):
        pytest.skip("needs no files, and would begin to work")
    monkeypatch.chdir(tmp_path)
    assert run(line, monkeypatch) != 0
    assert NOTHING_THERE.search(capsys.readouterr().err)
    # and flags are read before files are looked for
    assert run(line, monkeypatch, ["--no-such-flag", "1"]) != 0
    assert "--no-such-flag is not a flag" in capsys.readouterr().err


def test_there_are_many() -> None:
    assert len(LINES) > 100
