"""The command line: a table of commands, each a module imported when it is called."""

import io
import os
import sys
from importlib import import_module

COMMANDS = {
    "demo": "pretrain on handwritten digits and show what it brings (under two minutes)",
    "pretrain": "pretrain an encoder on your images",
    "reconstruct": "hide parts of images and rebuild them: the paper's figure",
    "finetune": "train a classifier from an encoder, wholly or in part, or from scratch",
    "predict": "class names and probabilities of images, by a fine-tuned run",
    "evaluate": "score frozen features with labelled images",
    "tokenizer": "discrete codes of image patches, for encoders to learn from",
    "words": "the same idea on text: characters hidden as in BERT, and the next one as in GPT",
    "bench": "how fast this machine trains, what holds it back, and what to do about it",
    "study": "one of the paper's ablations at your scale, beside the paper's table",
    "compare": "ways to pretrain the same encoder on your images, side by side",
    "pack": "any images into tar shards that are read fast, at random",
    "convert": "weights to and from published MAE, timm and transformers",
}

_HELP = """unmask: masked image pretraining on your own images

usage: unmask COMMAND [arguments]

{commands}

`unmask COMMAND --help` tells more. Start with `unmask demo`, then `unmask pretrain FOLDER`.
"""


def main() -> None:
    """Run the command that the arguments name."""
    for stream in (sys.stdout, sys.stderr):  # a file's name may hold bytes that are no text
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
    command, rest = arguments[0], arguments[1:]
    from unmask.errors import SettingsError, UnmaskError, did_you_mean, loading_died

    try:
        if command not in COMMANDS:
            raise SettingsError(f"unknown command {command!r}; {did_you_mean(command, COMMANDS)}")
        module = import_module(f"unmask.commands.{command}")
        status = module.main(rest)
    except (UnmaskError, RuntimeError) as error:
        told = error if isinstance(error, UnmaskError) else loading_died(error)
        if told is None:
            raise
        print(f"unmask: {told}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nunmask: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(status)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())
    return _HELP.format(commands=lines)
