"""Frozen features kept on disk by everything that they depend on: weights, images, transform and versions.

A file is safetensors, named by the hash of what it depends on, and bears that in full, beside a checksum.
What does not agree is never served; what is damaged is computed again. Losing any of it costs time only.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unmask.contracts import ImageSource
from unmask.data.cache import cache_folder
from unmask.data.in_order import WHOLE_IMAGE
from unmask.encoders.vit import VisionTransformer
from unmask.errors import DataError
from unmask.evaluation.features import (
    Features,
    Tokens,
    check_room,
    features,
    patch_tokens,
)
from unmask.files import write_whole
from unmask.formats.model import ModelSpec
from unmask.runs.folder import RunFolder
from unmask.spec import to_json

LARGEST = 2 * 2**30
"""Bytes of a file; what is larger is not kept."""

WHOLE = 4 * 2**30
"""Bytes of a folder; the files that lay unused the longest make room."""

_FORMAT = 2
_LIBRARIES = ("torch", "torchvision", "pillow", "torchcodec")
_ABANDONED = 24 * 3600  # seconds after which an unfinished file is taken for a killed process's

T = TypeVar("T", Features, Tokens)


@dataclass(frozen=True)
class Recalled(Generic[T]):
    """Features, and where they come from."""

    found: T
    from_disk: bool
    seconds: float
    """What computing them took, when it was done."""
    notes: tuple[str, ...]
    """What a user should know: a damaged file, or a folder that cannot be written."""


def features_folder(weights: Path | str) -> Path:
    """The folder of the features of some weights: in their run; else, or if that cannot be written, the user's cache."""
    folder = RunFolder(weights)
    place = folder.features if folder.features.exists() else folder.root
    if folder.spec.exists() and place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return folder.features
    return cache_folder() / "features"


class FeatureStore:
    """The features that an encoder gives, computed where the folder does not have them."""

    def __init__(
        self, folder: Path, encoder: VisionTransformer, spec: ModelSpec, device: torch.device
    ) -> None:
        """`spec` is the encoder's; its image size and kind of pixels are taken."""
        self.folder = folder
        self._encoder, self._spec, self._device = encoder, spec, device
        self._facts = {
            "format": _FORMAT,
            "versions": _versions(),
            "weights": hash_of_tensors(encoder.state_dict()),  # mean and deviation are among them
            "encoder": _described(spec.encoder),  # tensors do not tell the number of heads
            "views": _described(WHOLE_IMAGE),
            "image_size": list(spec.image_size),
            "values": spec.statistics.values,
            "device": device.type,
            "precision": "float32",
        }

    def features(self, source: ImageSource) -> Recalled[Features]:
        """Class tokens and mean patch tokens of every readable image."""
        about = (self._encoder, source, self._spec.image_size, self._spec.statistics, self._device)
        return recall(self.folder, self._of(source), Features, source, lambda: features(*about))

    def tokens(self, source: ImageSource) -> Recalled[Tokens]:
        """All tokens of every readable image.

        Raises:
            ResourceError: if they do not fit in memory.
        """
        check_room(self._encoder, source, self._spec.image_size)
        about = (self._encoder, source, self._spec.image_size, self._spec.statistics, self._device)
        return recall(self.folder, self._of(source), Tokens, source, lambda: patch_tokens(*about))

    def _of(self, source: ImageSource) -> dict[str, Any]:
        """Everything that the features of a source depend on."""
        return {
            **self._facts,
            "images": len(source),
            "channels": source.channels,
            "state": source.state,
            "names": _hash([source.name(position) for position in range(len(source))]),
            "labels": _hash(source.labels().tolist()),
        }


def recall(
    folder: Path, facts: dict[str, Any], cls: type[T], source: ImageSource, compute: Callable[[], T]
) -> Recalled[T]:
    """Features of this kind from the folder, if it has those of these facts; else computed, and kept."""
    facts = {"kind": cls.__name__.lower(), **facts}
    path = folder / f"{_hash(facts)}.safetensors"
    notes: list[str] = []
    if path.exists():
        try:
            found, seconds = _read(path, facts, cls)
            if not _readable_now(found.unreadable, source):
                with contextlib.suppress(OSError):
                    path.touch()  # used now, so that others make room first
                return Recalled(found, True, seconds, ())
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            notes.append(f"{path} is damaged ({error}); its features are computed again")
    started = time.perf_counter()
    found = compute()
    seconds = time.perf_counter() - started
    if (trouble := _write(path, facts, found, seconds)) is not None:
        notes.append(f"features are not kept: {trouble}")
    return Recalled(found, False, seconds, tuple(notes))


def hash_of_tensors(tensors: dict[str, Tensor]) -> str:
    """A hash of names, types, shapes and all bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().data)
    return digest.hexdigest()


def _read(path: Path, facts: dict[str, Any], cls: type[T]) -> tuple[T, float]:
    """The features of a file, and the seconds that they took; ValueError if they are not as they were written."""
    with safe_open(path, "pt") as file:
        about = json.loads((file.metadata() or {})["features"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if about["facts"] != facts:
        raise ValueError("it is of something else")
    if about["checksum"] != hash_of_tensors(tensors):
        raise ValueError("its checksum is wrong")
    unreadable = [(name, reason) for name, reason in about["unreadable"]]
    return cls(**tensors, unreadable=unreadable), float(about["seconds"])


def _write(path: Path, facts: dict[str, Any], found: T, seconds: float) -> str | None:
    """Keep features, beside their final name first; why not, if they cannot be kept."""
    tensors = {name: part for name, part in found._asdict().items() if isinstance(part, Tensor)}
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > LARGEST:
        return f"they take {size / 2**30:.1f} GiB, and at most {LARGEST / 2**30:g} are kept"
    about = {
        "facts": facts,
        "checksum": hash_of_tensors(tensors),
        "unreadable": found.unreadable,
        "seconds": round(seconds, 3),
    }

    def write(temporary: Path) -> None:
        save_file(tensors, temporary, {"features": json.dumps(about)})
        _make_room(path.parent, temporary.stat().st_size)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
    except (OSError, SafetensorError) as error:
        return f"{path.parent} cannot be written ({error})"
    return None


def _make_room(folder: Path, size: int) -> None:
    """Drop what lay unused the longest until `size` more bytes fit, and what killed processes left."""
    now = time.time()
    for left in folder.glob(".*.safetensors"):
        if now - left.stat().st_mtime > _ABANDONED:
            left.unlink(missing_ok=True)
    files = sorted(folder.glob("[!.]*.safetensors"), key=lambda file: file.stat().st_mtime)
    total = size + sum(file.stat().st_size for file in files)
    for file in files:
        if total <= WHOLE:
            return
        total -= file.stat().st_size
        file.unlink(missing_ok=True)


def _readable_now(unreadable: list[tuple[str, str]], source: ImageSource) -> bool:
    """Whether an image that could not be read can be by now, as after a disk's hiccup."""
    names = {name for name, _ in unreadable}
    if not names:
        return False
    for position in range(len(source)):
        if source.name(position) in names:
            with contextlib.suppress(DataError):
                _ = source[position]
                return True
    return False


def _versions() -> dict[str, str]:
    """Of this package, and of what decodes, resizes and computes."""
    import unmask

    found = {"unmask": unmask.__version__}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


def _described(spec: Any) -> dict[str, Any]:
    return {"class": type(spec).__name__, **to_json(spec)}


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]
