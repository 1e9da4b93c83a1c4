"""Files are read and written the same way everywhere: JSON by one function, text as UTF-8, POSIX calls guarded."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rules.test_layers import FILES, name_of, parsed

JSON_OF_OUR_OWN = {"files.py", "console/train.py", "tensors.py"}
"""The reader itself, a run that the first process sends to the others, and a header that was written just before."""

POSIX_MODULES = {
    "fcntl": {"locks.py", "files.py"},
    "resource": {"training/hardware.py", "training/step_cost.py"},
    "pwd": set(),
    "grp": set(),
    "termios": set(),
}
"""Modules that Windows lacks, and the only files that import them, each with another way beside it."""

POSIX_CALLS = {
    "os.sched_getaffinity": {"training/hardware.py"},
    "os.sysconf": {"training/hardware.py"},
    "os.getuid": {"data/cache.py"},
    "os.pread": set(),
    "os.fork": set(),
    "os.killpg": set(),
    "os.kill": {"study/claims.py"},  # on Windows it ends the process that it asks about
    "signal.SIGKILL": set(),
    "signal.SIGHUP": set(),
}


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_one_function_reads_json() -> None:
    """It bounds size and depth and names the file."""
    readers = {
        name_of(file)
        for file in FILES
        for call in calls(parsed(file))
        if ast.unparse(call.func) in ("json.loads", "json.load")
    }
    assert readers <= JSON_OF_OUR_OWN


def text_without_encoding(tree: ast.AST) -> list[int]:
    """The lines that read or write text in the encoding of the locale."""
    found: list[int] = []
    for call in calls(tree):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
        words = [
            word.value
            for word in [*call.args, *(k.value for k in call.keywords)]
            if isinstance(word, ast.Constant)
        ]
        modes = [
            word for word in words if isinstance(word, str) and word and set(word) <= set("rwxabt+")
        ]
        is_text = name in ("read_text", "write_text") or (
            name in ("open", "fdopen") and any("b" not in mode for mode in modes)
        )
        ours = isinstance(call.func, ast.Name)  # `write_text` of unmask.files
        keywords = {keyword.arg for keyword in call.keywords}
        if is_text and "encoding" not in keywords and not (ours and name != "open"):
            found.append(call.lineno)
    return found


def test_text_is_utf_8() -> None:
    found = {name_of(file): text_without_encoding(parsed(file)) for file in FILES}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "code",
    [
        "p.read_text(errors='strict')",
        "p.write_text(t)",
        "p.open('w')",
        "open(p, 'a+')",
        "p.open(mode='x')",
    ],
)
def test_the_search_for_encodings_finds(code: str) -> None:
    assert text_without_encoding(ast.parse(code)) == [1]
    assert text_without_encoding(ast.parse(code[:-1] + ", encoding='utf-8')")) == []


def test_what_windows_lacks_has_its_place() -> None:
    places = POSIX_MODULES | POSIX_CALLS
    found = {(name, name_of(file)) for file in FILES for name in named(parsed(file))}
    assert {
        (name, file) for name, file in found if name in places and file not in places[name]
    } == set()


def named(tree: ast.AST) -> Iterator[str]:
    """Imported modules, and attributes such as `os.fork`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


_WITHOUT = """
import sys
import torch, torch.utils.data, sklearn, pyarrow, timm, tyro, PIL  # what other libraries do is theirs
sys.modules["fcntl"] = sys.modules["resource"] = None
from unmask import cli
for command in cli.COMMANDS:
    sys.argv = ["unmask", command, "--help"]
    try:
        cli.main()
    except SystemExit as ended:
        assert not ended.code, command
from pathlib import Path
from unmask.locks import locked
with locked(Path(sys.argv[0]).with_name("lock")) as note:
    print(note, file=sys.stderr)
"""


@pytest.mark.slow
def test_every_command_starts_without_fcntl(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _WITHOUT],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=tmp_path,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "is on a file system without locks" in ended.stderr
