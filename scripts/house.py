"""How large the code is, where, and whether it keeps to the marks that this project sets itself.

    python scripts/house.py [ROOT]           # of a working tree; this one if not given
    python scripts/house.py [ROOT] --path    # also the files that one training step passes through

Counted are the Python files below src/unmask:

code line        holds something that is no comment, docstring or blank
docstring line   a line of a bare string statement, blank ones apart; attributes have docstrings too
comment line     holds a comment and nothing else
shared line      stands in a block of at least six equal lines that another trainer has as well; blank
                 lines, imports and indentation do not count. Trainers are the commands that train and the
                 files that describe their runs. Beside it: lines of twelve characters and more that
                 another trainer has, wherever they stand

Always ends with status 0: the marks are aims.
"""

import argparse
import ast
import io
import os
import re
import subprocess
import sys
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

MOST_FILES, MOST_LINES = 192, 25_500
LONGEST_FUNCTION_CODE, LONGEST_FUNCTION = 60, 80
LONG_FILE, LONGEST_FILE = 400, 420
PATH_FILES, PATH_LINES = 14, 2_600

SHARED_BLOCK = 6
TRAINERS = re.compile(
    r"(commands|runs)/(pretrain|finetune|tokenizer?|transfer|train|runs?|jobs?)\.py"
)
"""The commands that train and the files that describe their runs, by the names that they had or may have."""

TELLING = 12
"""Characters of a line that says something; shorter ones, such as brackets, are alike by chance."""


class Shared(NamedTuple):
    """How much of a trainer another one has too."""

    in_blocks: int
    """Lines in blocks of equal lines."""

    alone: int
    """Lines of some length that stand in another one, wherever."""

    lines: int
    """Lines that are compared."""


class File(NamedTuple):
    """A source file and the numbers of its lines of each kind."""

    name: str
    text: list[str]
    tree: ast.Module
    code: set[int]
    docstrings: set[int]
    comments: set[int]

    @property
    def lines(self) -> int:
        """All of them."""
        return len(self.text)

    @property
    def folder(self) -> str:
        """The first folder below the package."""
        return self.name.partition("/")[0] if "/" in self.name else "(top)"


class Function(NamedTuple):
    """A function and its size; inner functions are part of it."""

    name: str
    code: int
    lines: int


def main() -> None:
    """Print the marks, the folders, and the path of a batch if asked."""
    args = _arguments()
    package = args.root.resolve() / "src" / "unmask"
    files = [read(path, package) for path in sorted(package.rglob("*.py"))]
    say_marks(files)
    say_long(files)
    say_shared(files)
    say_folders(files)
    if args.path:
        say_path(args.root.resolve(), {file.name: file.lines for file in files})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parent.parent)
    parser.add_argument("--path", action="store_true", help="trace a training step")
    args = parser.parse_args()
    if not (args.root / "src" / "unmask").is_dir():
        parser.error(f"{args.root} has no src/unmask; give the root of a working tree")
    return args


# Counting


def read(path: Path, package: Path) -> File:
    """A file, its lines sorted into kinds."""
    source = path.read_text()
    tree = ast.parse(source)
    documented = set(_docstring_lines(tree))
    text = source.splitlines()
    code: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in _LAYOUT and token.start[0] not in documented:
            code.update(range(token.start[0], token.end[0] + 1))
    return File(
        name=str(path.relative_to(package)),
        text=text,
        tree=tree,
        code=code,
        docstrings={line for line in documented if text[line - 1].strip()},
        comments=comments - code,
    )


_LAYOUT = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}


def _docstring_lines(tree: ast.Module) -> Iterator[int]:
    """The lines of all statements that are nothing but a string."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def functions(file: File) -> Iterator[Function]:
    """All functions and methods of a file."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            span = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            code = sum(line in file.code for line in span)
            yield Function(f"{file.name}:{node.name}", code, len(span))


def shared_lines(files: list[File]) -> dict[str, Shared]:
    """Of each trainer, what another one has too."""
    trainers = {f.name: _comparable(f) for f in files if TRAINERS.fullmatch(f.name)}
    blocks = {name: _blocks(lines) for name, lines in trainers.items()}
    shared: dict[str, Shared] = {}
    for name, lines in trainers.items():
        others = trainers.keys() - {name}
        elsewhere = {block for other in others for block in blocks[other]}
        hit: set[int] = set()
        for start, block in enumerate(blocks[name]):
            if block in elsewhere:
                hit.update(range(start, start + SHARED_BLOCK))
        alone = {line for other in others for line in trainers[other] if len(line) >= TELLING}
        shared[name] = Shared(len(hit), sum(line in alone for line in lines), len(lines))
    return shared


def _comparable(file: File) -> list[str]:
    """The lines without indentation; blank ones and imports are left out."""
    imports: set[int] = set()
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    numbered = enumerate(file.text, start=1)
    return [text.strip() for number, text in numbered if text.strip() and number not in imports]


def _blocks(lines: list[str]) -> list[tuple[str, ...]]:
    starts = range(len(lines) - SHARED_BLOCK + 1)
    return [tuple(lines[start : start + SHARED_BLOCK]) for start in starts]


# Saying


def say_marks(files: list[File]) -> None:
    """A line for each figure, with its mark."""
    lines = sum(file.lines for file in files)
    code = sum(len(file.code) for file in files)
    docstrings = sum(len(file.docstrings) for file in files)
    sizes = [function for file in files for function in functions(file)]
    long_code = sum(function.code > LONGEST_FUNCTION_CODE for function in sizes)
    long = sum(function.lines > LONGEST_FUNCTION for function in sizes)
    shared = sum(each.in_blocks for each in shared_lines(files).values())
    rows = [
        ("files", len(files), MOST_FILES),
        ("lines", lines, MOST_LINES),
        ("code lines", code, None),
        ("docstring lines", docstrings, None),
        ("comment lines", sum(len(file.comments) for file in files), None),
        ("functions", len(sizes), None),
        (f"functions over {LONGEST_FUNCTION_CODE} code lines", long_code, 0),
        (f"functions over {LONGEST_FUNCTION} lines in all", long, 0),
        (f"files over {LONG_FILE} lines", sum(f.lines > LONG_FILE for f in files), 0),
        (f"files over {LONGEST_FILE} lines", sum(f.lines > LONGEST_FILE for f in files), 0),
        ("lines shared between trainers", shared, 0),
    ]
    for what, figure, mark in rows:
        print(_marked(what, figure, mark))
    print(f"{'docstring lines to code lines':36}{docstrings / code:8.0%}")


def _marked(what: str, figure: int, mark: int | None) -> str:
    if mark is None:
        return f"{what:36}{figure:8,}"
    return f"{what:36}{figure:8,}   mark: at most {mark:,}{'' if figure <= mark else '   OVER'}"


def say_long(files: list[File]) -> None:
    """What is too long, the longest first; the longest of all if nothing is."""
    sizes = [function for file in files for function in functions(file)]
    sizes.sort(key=lambda function: (function.code, function.lines), reverse=True)
    over = [f for f in sizes if f.code > LONGEST_FUNCTION_CODE or f.lines > LONGEST_FUNCTION]
    print("\nlongest functions (code lines, all lines)")
    for function in over or sizes[:3]:
        print(f"  {function.code:4} {function.lines:4}  {function.name}")
    longest = sorted(files, key=lambda file: file.lines, reverse=True)
    print("longest files (lines)")
    for file in [f for f in longest if f.lines > LONG_FILE] or longest[:3]:
        print(f"  {file.lines:4}  {file.name}")


def say_shared(files: list[File]) -> None:
    """What trainers have in common."""
    print(
        f"\nlines of trainers that another one has too: in blocks of {SHARED_BLOCK} and more, and alone"
    )
    for name, (in_blocks, alone, lines) in shared_lines(files).items():
        shares = f"{in_blocks / max(1, lines):4.0%}{alone / max(1, lines):6.0%}"
        print(f"  {in_blocks:4}{alone:6} of {lines:4}  ({shares})  {name}")


def say_folders(files: list[File]) -> None:
    """A line for each folder, the largest first, and one for all."""
    print(f"\n{'folder':12}{'files':>6}{'lines':>8}{'code':>8}{'docstrings/code':>17}")
    folders = {file.folder for file in files}
    groups = {folder: [f for f in files if f.folder == folder] for folder in folders}
    largest = sorted(groups.items(), key=lambda item: -sum(len(f.code) for f in item[1]))
    for folder, group in [*largest, ("all", files)]:
        code = sum(len(file.code) for file in group)
        share = sum(len(file.docstrings) for file in group) / max(1, code)
        lines = sum(file.lines for file in group)
        print(f"{folder:12}{len(group):6}{lines:8,}{code:8,}{share:17.0%}")


# The path of a batch: a run of its own, traced


def say_path(root: Path, sizes: dict[str, int]) -> None:
    """The files between two steps of `unmask pretrain digits`, and how much of each runs."""
    print("\npath of a batch: files that run between two updates of the weights, the usual step")
    with tempfile.TemporaryDirectory() as folder:
        one_thread = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": folder}
        environment = os.environ | one_thread | {"PYTHONPATH": str(root / "src")}
        command = [sys.executable, str(Path(__file__).resolve()), "--trace", str(root)]
        traced = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True
        )
    if traced.returncode:
        print(f"  could not be traced:\n{traced.stderr[-2000:]}")
        return
    ran = [line.split("\t") for line in traced.stdout.splitlines() if "\t" in line]
    print(f"  {'file':36}{'lines':>6}{'run':>6}")
    for name, count in ran:
        print(f"  {name:36}{sizes[name]:6,}{int(count):6,}")
    total = sum(sizes[name] for name, _ in ran)
    print(_marked("files on the path", len(ran), PATH_FILES))
    print(_marked("lines in these files", total, PATH_LINES))
    print(_marked("distinct lines run", sum(int(count) for _, count in ran), None))


STEPS = 40
"""Enough for steps in which nothing is logged, looked at or saved to be the usual ones."""

TRACED = (
    "pretrain digits --recipe mae-digits --batch-size 16 --epochs {epochs:.6f} --device cpu "
    "--precision float32 --threads 1 --workers 0 --encoder.embed-dim 8 --encoder.depth 2 "
    "--encoder.num-heads 2 --objective.decoder.embed-dim 8 --objective.decoder.num-heads 2 --out run"
)


class Tracer:
    """Notes which lines of a package run between one update of the weights and the next."""

    def __init__(self, package: Path) -> None:
        self.prefix = f"{package}{os.sep}"
        self.steps: list[set[tuple[str, int]]] = []
        self.now: set[tuple[str, int]] = set()

    def updated(self, *_: Any) -> None:
        """Called after every step of any optimizer."""
        self.steps.append(self.now)
        self.now = set()

    def enters(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Follow frames of the package, no others."""
        return self.runs if frame.f_code.co_filename.startswith(self.prefix) else None

    def runs(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Note a line."""
        if event == "line":
            self.now.add((frame.f_code.co_filename.removeprefix(self.prefix), frame.f_lineno))
        return self.runs


def trace(root: Path) -> None:
    """Train with the code of a tree and print file and lines run of the usual step, tab between them."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from unmask import cli

    tracer = Tracer(root / "src" / "unmask")
    register_optimizer_step_post_hook(tracer.updated)
    sys.argv = ["unmask", *TRACED.format(epochs=STEPS * 16 / 1442).split()]
    sys.settrace(tracer.enters)
    try:
        cli.main()
    except SystemExit as ended:
        if ended.code:
            raise
    finally:
        sys.settrace(None)
    steps = tracer.steps[-STEPS + 1 :]  # what measured the cost comes before
    files = Counter(frozenset(name for name, _ in step) for step in steps)
    usual = files.most_common(1)[0][0]
    step = next(step for step in reversed(steps) if {name for name, _ in step} == usual)
    for name, count in sorted(Counter(name for name, _ in step).items()):
        print(f"{name}\t{count}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trace"]:
        trace(Path(sys.argv[2]))
    else:
        main()
