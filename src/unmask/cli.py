"""The command line: a table of commands; the module of a command is imported when it is called."""

import io
import os
import sys
from importlib import import_module

COMMANDS = {
    "demo": "pretrain on handwritten digits and show the benefit (under two minutes)",
    "pretrain": "pretrain an encoder on your images",
    "reconstruct": "hide parts of images and rebuild them, as in the paper's figures",
    "finetune": "train a classifier: fine-tune an encoder, fully or in part, or train from scratch",
    "predict": "print classes and probabilities of images, using a fine-tuned run",
    "evaluate": "measure how good an encoder is, on labelled images",
    "report": "write the report of a run as one page, or compare runs side by side",
    "tokenizer": "learn discrete codes of image patches, as targets for pretraining",
    "words": "the same idea on text: predict hidden characters (BERT) or the next one (GPT)",
    "doctor": "look for what is wrong with a run, or with images",
    "bench": "measure the training speed of this machine, and find the bottleneck",
    "study": "repeat one of the paper's ablations at your scale",
    "compare": "compare ways to pretrain the same encoder on your images",
    "pack": "pack images into tar shards that are fast to read in random order",
    "convert": "convert weights to and from published MAE, timm and transformers",
}

_HELP = """unmask: masked image pretraining on your own images

usage: unmask COMMAND [arguments]

{commands}

`unmask COMMAND --help` lists all flags. Start with `unmask demo`, then `unmask pretrain FOLDER`.
"""


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
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return
    if arguments[0] == "--version":
        from unmask import __version__

        print(f"unmask {__version__}")
        return
    _wait_briefly()
    command, rest = arguments[0], arguments[1:]
    from unmask.errors import SettingsError, UnmaskError, did_you_mean, loading_died, without_home

    try:
        if command not in COMMANDS:
            raise SettingsError(f"unknown command {command!r}; {did_you_mean(command, COMMANDS)}")
        module = import_module(f"unmask.commands.{command}")
        from unmask.training.hardware import limit_threads

        limit_threads()
        status = module.main(rest)
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


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())
    return _HELP.format(commands=lines)
