"""Words in the wrong order, or too few or too many of them: images before the run, a single word, several folders."""

import shlex
from pathlib import Path

from unmask.console.command_line import Line, is_file
from unmask.console.flag_table import Flag
from unmask.errors import SettingsError, typed

_WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


def check_order(command: str, own: list[Flag], line: Line) -> None:
    """Refuse words that stand for something else than their places say.

    Args:
        command: the command.
        own: the words that it takes.
        line: its command line.

    Raises:
        SettingsError: with the command line that may be meant.
    """
    words = line.words
    if len(own) == 1 and own[0].path == "data" and len(words) > 1 and all(map(is_file, words)):
        links = shlex.join(["ln", "-s", *(str(Path(word).resolve()) for word in words), "all/"])
        raise SettingsError(
            f"`unmask {command}` reads one folder, and got {len(words)}; put their images into one folder, or links to "
            f"them: `mkdir all; {links}`"
        )
    if len(own) < 2 or not words or "resume" in line.flags:
        return
    first = own[0].path
    if len(words) > 1 and _is_swapped(first, words[0], words[1]):
        flags = [word for name, value in line.flags.items() for word in (f"--{name}", *value)]
        swapped = typed(command, words[1], words[0], *words[2:], *flags)
        raise SettingsError(f"{_plain(own[1])} came first; did you mean: {swapped}")
    alone = {
        "encoders",
        "queries",
    } & line.flags.keys()  # of several encoders, or the vectors of a map
    if len(words) == 1 and first in ("encoder", "run") and not alone:
        raise _one_missing(command, own, words[0])


def _is_swapped(first: str, word: str, other: str) -> bool:
    """Whether the second word is what the first, of this name, should be."""
    if ".py" in word:  # a study or an object in a file
        return False
    if first == "name":
        return is_file(f"{word}/.") and not is_file(other) and other != "digits"
    if first in ("encoder", "run"):
        return _is_images(word) and _has_weights(other)
    return first == "source" and not is_file(word) and _has_weights(other)


def _one_missing(command: str, own: list[Flag], word: str) -> SettingsError:
    """The error for a single word where a run or weights and images are needed."""
    folder = "FOLDER" if own[1].path == "data" else "IMAGES"
    if _is_images(word):
        which, line = (
            "run" if command == "predict" else "encoder",
            typed(command, "runs/NAME", word),
        )
    else:
        which, line = "images", f"{typed(command, word)} {folder}"
    classes = (
        "; FOLDER holds a folder for each class"
        if folder in line and folder == "FOLDER" and command != "embed"
        else ""
    )
    return SettingsError(f"which {which}? `{line}`{classes}")


def _has_weights(word: str) -> bool:
    """Whether a word names a run, a file or a folder of weights, or stands for an encoder without any."""
    path = Path(word)
    if not is_file(word):
        return word == "scratch"
    if path.is_file():
        return path.suffix in _WEIGHTS
    return is_file(f"{word}/spec.json") or any(path.glob("*.safetensors"))


def _is_images(word: str) -> bool:
    return word == "digits" or (is_file(word) and not _has_weights(word))


def _plain(word: Flag) -> str:
    return word.metavar.rstrip(".")
