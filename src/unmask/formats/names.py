"""One parameter, two names: tables of names as data, read in both directions.

A table maps our name to theirs. `{n}` stands for the number of a block; `.weight` and `.bias` are left
off, since all layouts agree on them.
"""

import re
from collections.abc import Iterable

from torch import Tensor

Table = dict[str, str]

_BLOCK_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_KIND = re.compile(r"\.(weight|bias)$")

BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
"""The parts of a block in our names, which are timm's."""


def inverse(table: Table) -> Table:
    """Theirs to ours."""
    return {theirs: ours for ours, theirs in table.items()}


def renamed(name: str, table: Table) -> str | None:
    """The other name of a parameter; None if the table has none.

    >>> renamed("blocks.3.attn.qkv.bias", {"blocks.{n}.attn.qkv": "encoder.blocks.{n}.attn.qkv"})
    'encoder.blocks.3.attn.qkv.bias'
    """
    kind = _KIND.search(name)
    stem = name[: kind.start()] if kind else name
    number = _BLOCK_NUMBER.search(stem)
    found = table.get(_BLOCK_NUMBER.sub("{n}", stem, count=1))
    if found is None:
        return None
    return found.replace("{n}", number.group() if number else "") + (kind.group() if kind else "")


def translate(
    tensors: dict[str, Tensor], table: Table
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors under their other names, and those that the table does not know."""
    known: dict[str, Tensor] = {}
    unknown: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        other = renamed(name, table)
        if other is None:
            unknown[name] = tensor
        else:
            known[other] = tensor
    return known, unknown


def without(
    tensors: dict[str, Tensor], prefixes: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors whose names begin otherwise, and the names of the rest."""
    left = [name for name in tensors if name.startswith(prefixes)]
    return {name: tensor for name, tensor in tensors.items() if name not in left}, left


def listed(words: Iterable[str], most: int = 6) -> str:
    """Words in a row; of many, the first few and the count of the others."""
    every = list(words)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
