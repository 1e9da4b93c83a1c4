"""Weights divided over several files ("shards") with an index, as transformers writes them.

The index is JSON: `{"weight_map": {tensor: file}}`. All files lie in its folder, and nothing outside of it is read.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from unmask.errors import DataError, listed
from unmask.files import read_json

ENDING = ".index.json"

_SHARD = re.compile(r"(?P<name>.+)-\d{5}-of-(?P<count>\d{5})(?P<ending>\.\w+)")

_PLAIN = re.compile(r"[^/\\\0]+\.(safetensors|bin|pt|pth)")
"""The name of a weight file, without a folder."""


def is_index(file: Path) -> bool:
    """Whether this is the name of an index."""
    return file.name.endswith(ENDING)


def refuse_one_of_several(file: Path) -> None:
    """Refuse a shard without the others; raises DataError with the index."""
    shard = _SHARD.fullmatch(file.name)
    if shard is None or int(shard["count"]) < 2:
        return
    index = file.with_name(f"{shard['name']}{shard['ending']}{ENDING}")
    what = f"{file} is one of {int(shard['count'])} files that together hold the weights"
    if index.is_file():
        raise DataError(f"{what}; give their index, {index}")
    raise DataError(
        f"{what}, and their index is not beside it; add {index.name} and the other files, and give the index"
    )


def shards_of(index: Path) -> dict[Path, set[str]]:
    """The files that an index names, with the names of their tensors.

    Raises:
        DataError: if it is not an index, names a file outside of its folder, or a file is missing.
    """
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise DataError(
            f"{index} is not an index of weights: it has no weight_map from names of tensors to files"
        )
    shards: dict[Path, set[str]] = {}
    for tensor, file in places.items():
        if not (isinstance(file, str) and _PLAIN.fullmatch(file)):
            raise DataError(
                f"{index} says that {tensor} lies in {file!r}, which is not the name of a file in its folder; "
                "nothing else is read"
            )
        shards.setdefault(index.parent / file, set()).add(tensor)
    if missing := sorted(file.name for file in shards if not file.is_file()):
        raise DataError(
            f"{index} names {len(shards)} files, and {listed(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} missing in its folder; download the rest"
        )
    return shards


def check_places(index: Path, file: Path, tensors: dict[str, Tensor], names: Iterable[str]) -> None:
    """Refuse a shard whose tensors are not those that the index says; raises DataError with them."""
    clauses = [f"{name} is missing" for name in sorted(set(names) - set(tensors))]
    clauses += [f"{name} is not in the index" for name in sorted(set(tensors) - set(names))]
    if clauses:
        raise DataError(
            f"{file.name} does not hold what {index} says: {listed(clauses)}; these files do not belong together"
        )
