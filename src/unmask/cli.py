"""The command line: a table of commands; the module of a command is imported when it is called."""

import atexit
import gc
import io
import os
import shutil
import sys
import time
from importlib import import_module
from typing import Any, NoReturn

GROUPS = {
    "learn": {
        "pretrain": "pretrain an encoder on your images",
        "finetune": "train for classes, class maps, boxes or masks, or from scratch",
        "tokenizer": "learn discrete codes of patches, as targets for pretraining",
    },
    "use": {
        "demo": "pretrain on handwritten digits and show the benefit (two minutes)",
        "reconstruct": "hide parts of images and rebuild them",
        "predict": "find classes of images, or boxes, masks and class maps in them",
        "embed": "make a vector of each picture, in a folder of Parquet files",
        "search": "find the pictures that are most like others",
        "locate": "find where on a map a picture was taken",
        "duplicates": "find near-duplicates, and test pictures that stand in training",
        "odd": "find images that are not like normal ones, and where",
    },
    "measure": {
        "evaluate": "measure how good an encoder is, on labelled images",
        "report": "write the report of a run as one page, or compare runs",
        "doctor": "look for what is wrong with a run, or with images",
        "bench": "measure the training speed of this machine",
        "study": "repeat one of the paper's ablations at your scale",
        "compare": "compare ways to pretrain the same encoder on your images",
    },
    "exchange": {
        "pack": "pack images into tar shards that are fast to read",
        "convert": "convert weights to and from MAE, timm, transformers; to ONNX",
        "page": "write a web page: paint what is hidden, see it rebuilt",
        "completion": "complete commands, flags and recipes with Tab in your shell",
    },
}
"""The commands of the general help, by what they are for."""

UNLISTED = {"words": "the same idea on text: predict hidden characters, or the next one"}
"""Commands that are not about images."""

COMMANDS = {name: what for group in (*GROUPS.values(), UNLISTED) for name, what in group.items()}

_HELP = """unmask: masked image pretraining on your own images

usage: unmask COMMAND [arguments]
{commands}

`unmask COMMAND --help` shows examples and flags, `unmask help recipes` recipes.
Start with `unmask demo`, then `unmask pretrain FOLDER`.
"""


COMPLETE = "_complete"
"""What shells call at Tab, followed by the shell's name and the line so far."""

_WITHOUT_TORCH = {"completion"}

_SPINS = "1000"


def _wait_briefly() -> None:
    """Let idle threads of torch's OpenMP sleep after some microseconds. To be called before torch is imported.

    By default they spin for milliseconds, so that two threads of which one shares its core with other work take about 30
    times as long as one thread. With this, about 1.4 times, and as long as before on free cores (docs/speed.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def main() -> None:
    """Run the command named by the arguments."""
    from unmask.clock import enter

    enter()
    for stream in (sys.stdout, sys.stderr):  # a file name may hold bytes that are not valid text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    from unmask.console.verbosity import take_verbosity
    from unmask.errors import UnmaskError, loading_died, without_home

    try:
        arguments = take_verbosity(sys.argv[1:])
    except UnmaskError as error:
        _complain(error)
    if (
        not arguments
        or arguments[0] in ("-h", "--help", "--help-all")
        or arguments[:2] in (["help"], ["help", "--help"])
    ):
        print(_help())
        return
    if arguments[0] in ("--version", "-V"):
        from unmask import __version__

        print(f"unmask {__version__}")
        return
    _wait_briefly()
    try:
        status = _run(arguments)
    except (UnmaskError, RuntimeError) as error:
        message = error if isinstance(error, UnmaskError) else None
        message = message or loading_died(error) or without_home(error)
        if message is None:
            raise
        _complain(message)
    except KeyboardInterrupt:
        print("\nunmask: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the program that reads our output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(status)


def _complain(error: Exception) -> NoReturn:
    """Print an error, within the width of a terminal, and exit; of the processes of torchrun, only the first prints."""
    from unmask.console.verbosity import is_first_process

    if not is_first_process():
        time.sleep(
            1
        )  # torchrun ends all processes as soon as one has ended, and the first must print before
        sys.exit(1)
    words = f"unmask: {error}"
    if sys.stderr.isatty():
        from unmask.console.wrapping import wrapped_error

        words = wrapped_error(words, shutil.get_terminal_size().columns)
    print(words, file=sys.stderr)
    sys.exit(1)


def _imported(name: str) -> Any:
    """A module that imports torch and all that the command needs.

    The garbage collector would look through ever more objects of modules meanwhile, which are never garbage, and again at
    the end of the process: together most of a second.
    """
    if (
        "torch" in sys.modules or not gc.isenabled()
    ):  # called by a Python program, whose garbage is its own
        return import_module(name)
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.enable()
        gc.freeze()
        atexit.register(_thaw)


def _thaw() -> None:
    """Let the garbage collector see the objects of modules, if triton would else print at the end that they are left."""
    if "triton" in sys.modules:
        gc.unfreeze()


def _run(arguments: list[str]) -> int:
    """Run a command; returns the exit status. Torch is imported after the flags are checked."""
    from unmask.console.first_look import answered, closest_command
    from unmask.console.verbosity import is_first_process

    command, *rest = arguments
    if command == COMPLETE:
        from unmask.console.completion import say_candidates

        return say_candidates(rest, COMMANDS)
    if command == "help" and (not rest or rest[0] in ("-h", "--help", "--help-all")):
        print(_help())
        return 0
    if command == "help":
        command, rest = rest[0], ["--help", *rest[1:]]
        if command == "recipes":
            from unmask.console.recipe_list import recipe_list

            print(recipe_list())
            return 0
    if command not in COMMANDS:
        raise closest_command(command, COMMANDS, rest)
    if answered(command, rest):
        return 0
    if command not in _WITHOUT_TORCH and is_first_process():
        from unmask.console.screen import say_loading

        say_loading()
    module = _imported(f"unmask.commands.{command}")
    if command in _WITHOUT_TORCH:
        return module.main(rest)
    from unmask.console.screen import notes_that_wait
    from unmask.training.hardware import limit_threads

    limit_threads()
    with notes_that_wait():
        return module.main(rest)


def _help() -> str:
    width = max(map(len, COMMANDS))
    groups = (
        "\n".join([f"\n{group}:", *(f"  {name:{width}}  {what}" for name, what in names.items())])
        for group, names in GROUPS.items()
    )
    return _HELP.format(commands="\n".join(groups))
