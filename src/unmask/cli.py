"""The command line: a table of commands; the module of a command is imported when it is called."""

import io
import os
import sys
from importlib import import_module

GROUPS = {
    "learn": {
        "pretrain": "pretrain an encoder on your images",
        "finetune": "train a classifier from an encoder, or from scratch",
        "tokenizer": "learn discrete codes of patches, as targets for pretraining",
    },
    "look": {
        "demo": "pretrain on handwritten digits and show the benefit (two minutes)",
        "reconstruct": "hide parts of images and rebuild them",
        "predict": "print classes and probabilities of images",
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
        "convert": "convert weights to and from published MAE, timm, transformers",
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
    arguments = sys.argv[1:]
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
    from unmask.errors import UnmaskError, loading_died, without_home

    try:
        status = _run(arguments)
    except (UnmaskError, RuntimeError) as error:
        message = error if isinstance(error, UnmaskError) else None
        message = message or loading_died(error) or without_home(error)
        if message is None:
            raise
        print(f"unmask: {message}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nunmask: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the program that reads our output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """Run a command; returns the exit status. Torch is imported after the flags are checked."""
    from unmask.console.first_look import answered, closest_command
    from unmask.console.verbosity import take_verbosity

    command, *rest = arguments
    rest = take_verbosity(rest)
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
        raise closest_command(command, COMMANDS)
    if answered(command, rest):
        return 0
    if command not in _WITHOUT_TORCH and os.environ.get("RANK", "0") == "0":
        from unmask.console.screen import say_loading

        say_loading()
    module = import_module(f"unmask.commands.{command}")
    if command not in _WITHOUT_TORCH:
        from unmask.training.hardware import limit_threads

        limit_threads()
    return module.main(rest)


def _help() -> str:
    width = max(map(len, COMMANDS))
    groups = (
        "\n".join([f"\n{group}:", *(f"  {name:{width}}  {what}" for name, what in names.items())])
        for group, names in GROUPS.items()
    )
    return _HELP.format(commands="\n".join(groups))
