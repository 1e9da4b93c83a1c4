"""The completion scripts in the shells themselves; each test is skipped where its shell is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import unmask
from unmask.console.completion import SCRIPTS

LINES = {
    "unmask pre": ["predict", "pretrain"],
    "unmask pretrain photos --mask": ["--mask-ratio", "--masking"],
    "unmask pretrain photos --recipe mae-t": ["mae-ti16", "mae-ti4"],
    "unmask pretrain photos objective.masking:bl": ["block"],
    "unmask pretrain ph": ["photos/"],
    "unmask evaluate run animals --protocol l": ["ladder", "linear", "logistic"],
}
"""What is typed before Tab, and what is offered."""

BASH = """
COMP_LINE="$1" COMP_POINT=${#1}
_unmask
if [ ${#COMPREPLY[@]} -gt 0 ]; then printf '%s\\n' "${COMPREPLY[@]}"; else compgen -d -S / "${1##* }"; fi
"""
ZSH = """
words=("${(@s: :)1}"); CURRENT=${#words}
compadd() { print -rl -- "${@:2}" }
_files() { print -rl -- ${words[CURRENT]}*(/e:'REPLY+=/':) }
_unmask
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos, and `unmask` where shells find it."""
    (tmp_path / "photos").mkdir()
    program = tmp_path / "bin" / "unmask"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m unmask "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(unmask.__file__).parents[1]))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def offered(shell: str, there: Path, line: str) -> list[str]:
    """What a shell offers for a line."""
    script = there / f"completion.{shell}"
    script.write_text(SCRIPTS[shell])
    if shell == "fish":
        words = ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"]
    elif shell == "zsh":
        words = ["zsh", "-f", "-c", f"compdef() {{ }}; source {script}{ZSH}", "zsh", line]
    else:
        words = ["bash", "-c", f"source {script}{BASH}", "bash", line]
    done = subprocess.run(words, cwd=there, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    # bash completes only what follows a colon
    return sorted(word.rpartition(":")[2] for word in done.stdout.split())


@pytest.mark.parametrize("shell", SCRIPTS)
def test_a_shell_offers_what_fits(shell: str, there: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert {line: offered(shell, there, line) for line in LINES} == LINES
