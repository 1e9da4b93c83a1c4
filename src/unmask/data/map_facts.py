"""Facts of maps that take long to find: hashes of files, and where holes are; kept in the user's cache until files change."""

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from unmask.contracts import Size
from unmask.data.cache import read_json, size_and_time, write_json
from unmask.data.map_rasters import no_cells
from unmask.errors import DataError
from unmask.spec import digest

_HASHED = 2**22  # bytes that are read at a time


def hash_of_file(path: Path) -> str:
    """BLAKE2b of a file's content, read once until the file changes."""
    return hash_of_files([path], str(path.absolute()))


def hash_of_files(paths: Iterable[Path], place: str) -> str:
    """BLAKE2b of the contents of files in this order, read once until one of them changes; `place` names them all."""
    paths = list(paths)
    state = digest([[str(path), *size_and_time(path)] for path in paths])
    name = f"map-{digest(place)}"
    known = read_json(name)
    if (
        isinstance(known, dict)
        and known.get("state") == state
        and isinstance(known.get("hash"), str)
    ):
        return known["hash"]
    content = hashlib.blake2b(digest_size=16)
    for path in paths:
        content.update(path.stat().st_size.to_bytes(8, "little"))
        try:
            with path.open("rb") as file:
                while block := file.read(_HASHED):
                    content.update(block)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error})") from None
    found = content.hexdigest()
    write_json(name, {"state": state, "hash": found})
    return found


def kept_cells(
    key: Sequence[object],
    size: Size,
    cell: int,
    find: Callable[[], Bool[NDArray[np.bool_], "rows columns"]],
) -> Bool[NDArray[np.bool_], "rows columns"]:
    """What `find` returned for this key before, or returns now."""
    name, shape = f"holes-{digest(list(key))}", no_cells(size, cell).shape
    count = shape[0] * shape[1]
    known = read_json(name)
    if isinstance(known, str):
        bits = np.frombuffer(base64.b64decode(known), np.uint8)
        if len(bits) == -(-count // 8):
            return np.unpackbits(bits, count=count).astype(bool).reshape(shape)
    bad = find()
    write_json(name, base64.b64encode(np.packbits(bad).tobytes()).decode())
    return bad
