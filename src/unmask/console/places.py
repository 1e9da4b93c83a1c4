"""Paths on a command line, checked before torch is imported: each must exist and be of the kind that is meant there."""

from collections.abc import Callable, Iterator
from pathlib import Path

from unmask.asked import (
    check_data,
    check_file,
    check_image,
    check_run,
    check_vectors,
    check_weights,
)
from unmask.console.command_line import Line, is_file
from unmask.console.flag_table import Flag, every_flag
from unmask.errors import SettingsError, UnmaskError
from unmask.files import unwritable


def check_places(command: str, line: Line) -> None:
    """Check the words and flags of a command that name files or folders.

    Raises:
        UnmaskError: with the word or flag that is wrong, and what to type instead.
    """
    if "resume" not in line.flags:  # then words say where the images are now, see `resumed_images`
        for flag, word in _words(command, line):
            _check(command, flag, word)
    texts = {
        each.path for each in every_flag(command) if isinstance(each, Flag) and each.type == "str"
    }
    for name, words in line.flags.items():
        for word in words if name in texts else ():  # --images of compare is a number
            try:
                _check(command, name, word)
            except UnmaskError as error:
                raise type(error)(f"--{name}: {error}") from None


def _words(command: str, line: Line) -> Iterator[tuple[str, str]]:
    """The name of the place and the word, for each word of a command line."""
    own = [each for each in every_flag(command) if isinstance(each, Flag) and each.positional]
    words = list(line.words)
    if command == "evaluate" and "encoders" in line.flags and words:
        yield "data", words.pop()  # the encoder may be missing, and stands first
    for each in own:
        count = len(words) if each.many else 1
        yield from ((each.path, word) for word in words[:count])
        words = words[count:]


def _check(command: str, name: str, word: str) -> None:
    if command == "odd" and is_file(f"{word}/{_MEMORY}"):
        return
    if name == "run" and command == "evaluate" and is_file(f"{word}/_manifest.json"):
        check_vectors(word)  # of a map
    elif name == "run":
        (check_run if command == "predict" else check_weights)(word)
    elif name == "encoders" and command == "evaluate":
        for encoder in filter(None, map(str.strip, word.split(","))):
            check_weights(encoder)
    elif name in _CHECKS and word != _WORDS.get(name):
        _CHECKS[name](word)


def _check_data(word: str) -> None:
    if word != "digits":
        check_data(word)


def _check_what(word: str) -> None:
    if not is_file(f"{word}/spec.json"):
        _check_data(word)


def _check_begun(word: str) -> None:
    if not is_file(f"{word}/series.json"):
        check_run(word)


def check_out(command: str, path: str) -> None:
    """Refuse a file with another ending than the command writes, and a place that cannot be written.

    Raises:
        SettingsError: with the file or folder and the reason.
    """
    ending, is_folder = Path(path).suffix.lower(), is_file(f"{path}/.")
    if command == "report" and not is_folder and ending not in _PAGES:
        raise SettingsError(f"--out {path}: the report is a page; give it the ending .html")
    if command == "reconstruct" and not is_folder and not _is_picture(ending):
        raise SettingsError(f"--out {path} has no ending of a picture; use .png")
    if path.startswith("~"):
        return  # the command says what is wrong with a home folder
    if reason := unwritable(Path(path)):
        raise SettingsError(f"--out {path} cannot be written: {reason}; choose another folder")


def _is_picture(ending: str) -> bool:
    """Whether Pillow writes files with this ending."""
    from PIL import Image

    return Image.registered_extensions().get(ending) in Image.SAVE


_PAGES = (".html", ".htm")

_CHECKS: dict[str, Callable[[str], None]] = {
    "data": _check_data,
    "images": check_image,
    "what": _check_what,
    "encoder": check_weights,
    "source": check_weights,
    "init": check_weights,
    "runs": check_run,
    "models": check_weights,
    "resume": _check_begun,
    "like": check_run,
    "labels-file": check_file,
    "queries": check_file,
    "places": check_vectors,
    "vectors": check_vectors,
    "mask": check_file,
    "text": check_file,
}
"""What must lie at the path in a word or flag, by its name."""

_MEMORY = "memory.safetensors"  # of an earlier `unmask odd`, in place of an encoder

_WORDS = {"encoder": "scratch", "labels-file": "none"}
"""Words that are no paths."""
