"""Safetensors files: equal content gives equal bytes, and the library reads them."""

from pathlib import Path

import torch
from safetensors import safe_open

from unmask.tensors import save_tensors

TENSORS = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.tensor([1, 2], dtype=torch.uint8)}
NOTES = {"run": '{"name": "é\\n\x7f \\u2028"}', "format": "pt", "a": "", "unmask": "\x01\t\\"}


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    """The library orders the notes differently at each call, so ten files would hardly be equal by chance."""
    written: set[bytes] = set()
    for number in range(10):
        file = tmp_path / f"{number}.safetensors"
        order = list(NOTES)[number % 4 :] + list(NOTES)[: number % 4]
        save_tensors(TENSORS, file, {name: NOTES[name] for name in order})
        written.add(file.read_bytes())
    assert len(written) == 1


def test_nothing_is_changed(tmp_path: Path) -> None:
    save_tensors(TENSORS, tmp_path / "x.safetensors", NOTES)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == NOTES
        for name, tensor in TENSORS.items():
            assert file.get_tensor(name).equal(tensor)


def test_without_notes(tmp_path: Path) -> None:
    save_tensors(TENSORS, tmp_path / "x.safetensors", {})
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["a", "b"]
