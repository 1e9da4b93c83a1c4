"""Translation of parameter names between libraries, by tables that are read in both directions.

A table maps our name to theirs. `{n}` stands for the number of a block. `.weight` and `.bias` are omitted, because they are the
same in all formats.
"""

import re

from torch import Tensor

from unmask.errors import listed

Table = dict[str, str]

_BLOCK_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_KIND = re.compile(r"\.(weight|bias)$")

BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
"""The layers of a block with our names, which are timm's."""


def inverse(table: Table) -> Table:
    """The table from their names to ours."""
    return {theirs: ours for ours, theirs in table.items()}


def renamed(name: str, table: Table) -> str | None:
    """The other name of a parameter; None if it is not in the table.

    >>> renamed("blocks.3.attn.qkv.bias", {"blocks.{n}.attn.qkv": "encoder.blocks.{n}.attn.qkv"})
    'encoder.blocks.3.attn.qkv.bias'
    """
    kind = _KIND.search(name)
    stem = name[: kind.start()] if kind else name
    number = _BLOCK_NUMBER.search(stem)
    other = table.get(_BLOCK_NUMBER.sub("{n}", stem, count=1))
    if other is None:
        return None
    return other.replace("{n}", number.group() if number else "") + (kind.group() if kind else "")


def translate(
    tensors: dict[str, Tensor], table: Table
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors with their other names, and those that are not in the table."""
    known: dict[str, Tensor] = {}
    unknown: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        other = renamed(name, table)
        if other is None:
            unknown[name] = tensor
        else:
            known[other] = tensor
    return known, unknown


def without_heads(
    tensors: dict[str, Tensor], prefixes: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors whose names start with none of a classifier's prefixes, and a note on the others."""
    left_out = [name for name in tensors if name.startswith(prefixes)]
    note = f"left out, because it belongs to a classifier: {listed(left_out)}"
    kept = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    return kept, [note] if left_out else []
