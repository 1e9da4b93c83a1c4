"""Safetensors files that have equal bytes if they have equal content, and hashes of tensors."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

_LENGTH = 8
"""Bytes at the start of a file that hold the length of its header, little-endian."""


def save_tensors(tensors: dict[str, Tensor], path: Path, notes: dict[str, str]) -> None:
    """Write tensors, and notes about them in the header.

    The library writes the notes in random order. Here they are sorted, which does not change the header's length.
    """
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, path, notes)
    if len(notes) < 2:
        return
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "the notes are escaped in another way than the library's"
        file.seek(_LENGTH)
        file.write(text.ljust(length))


def hash_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, types, shapes and all bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().data)
    return digest.hexdigest()
