"""Torch files. Only tensors and plain values are ever unpickled, and no more than the file has bytes for."""

import json
import pickle
import shlex
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from unmask.errors import DataError, first_line

_ROOM = 2**28
"""Bytes that the content of a file may have beyond those of the file; tensors that share values come to more."""


def load_torch(file: Path) -> Any:
    """The content of a torch file.

    Raises:
        DataError: if it is damaged, holds more than tensors and plain values, or unpacks to more than its bytes.
    """
    _refuse_packed(file)
    try:
        with warnings.catch_warnings(action="ignore"):  # the error below says it all
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_pickle(file):
            raise damaged(file, error) from None
        code = (
            f"import torch; c = torch.load({json.dumps(str(file))}, weights_only=False); "
            'torch.save({"model": c["model"]}, "tensors.pth")'
        )
        raise DataError(
            f"{file} is a pickle with more than tensors ({_refused_class(error)}). Unpickling it could run any code, so "
            "it is not read. If you trust its source, save only its tensors:\n"
            f"python -c {shlex.quote(code)}"
        ) from None
    except Exception as error:  # the instructions of a damaged pickle can fail in any way
        raise damaged(file, error) from None


def refuse_larger(path: Path, content: int, held: int) -> None:
    """Refuse tensors of `content` bytes in files of `held` bytes, before anything copies them.

    Raises:
        DataError: with both numbers.
    """
    if content > held + _ROOM:
        raise DataError(
            f"{path} has {held:,} bytes, but says that it holds {content / 2**30:,.1f} GiB of values (the same bytes "
            "many times over); no weights are like this, so it is not read"
        )


def damaged(file: Path, error: Exception) -> DataError:
    """The error for a file that cannot be read as weights."""
    reason = first_line(error)[:120]
    return DataError(
        f"{file} is damaged, incompletely downloaded, or not a weight file ({reason}); download it again and "
        "compare its size"
    )


def _refuse_packed(file: Path) -> None:
    """Refuse an archive that unpacks to far more than its bytes; torch writes archives without compression."""
    try:
        if not zipfile.is_zipfile(file):
            return
        with zipfile.ZipFile(file) as archive:
            content = sum(member.file_size for member in archive.infolist())
        held = file.stat().st_size
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise damaged(file, error) from None
    refuse_larger(file, content, held)


def _is_pickle(file: Path) -> bool:
    """Whether a file is a complete torch archive, or starts like a pickle."""
    with file.open("rb") as opened:
        return zipfile.is_zipfile(file) or opened.read(1) == b"\x80"


def _refused_class(error: pickle.UnpicklingError) -> str:
    """The class in a pickle that torch refused."""
    words = str(error).split("GLOBAL ")
    return words[1].split()[0] if len(words) > 1 else "an object of its own"
