"""The cache of frozen features on disk.

Each file is safetensors. Its name is a hash of everything that the features depend on: weights, images, transform and
versions. Its metadata has these facts in full, and a checksum. A file that does not match is computed again.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unmask.contracts import ImageSource
from unmask.data.cache import cache_folder
from unmask.data.in_order import WHOLE_IMAGE
from unmask.encoders.vit import VisionTransformer
from unmask.errors import DataError
from unmask.evaluation.features import (
    Features,
    PositionMeans,
    Tokens,
    Vectors,
    check_room,
    features,
    patch_tokens,
)
from unmask.files import clear_unfinished, parse_json, write_whole
from unmask.formats.model import ModelSpec
from unmask.runs.folder import RunFolder
from unmask.spec import to_json
from unmask.tensors import hash_of_tensors, save_tensors

LARGEST = 2 * 2**30
"""Largest size of a file in bytes; larger features are not cached."""

WHOLE = 4 * 2**30
"""Largest size of a folder in bytes; the least recently used files are deleted."""

_FORMAT = 4
_LIBRARIES = ("torch", "torchvision", "pillow", "torchcodec")  # they decode, resize and compute

T = TypeVar("T", Features, Tokens, Vectors, PositionMeans)


@dataclass(frozen=True)
class CachedFeatures(Generic[T]):
    """Features, and where they come from."""

    features: T
    from_disk: bool
    seconds: float
    """Time to compute them."""
    notes: tuple[str, ...]
    """Notes for the user: a damaged file, or why features are not cached."""


def features_folder(weights: Path | str) -> Path:
    """The cache folder for these weights: in their run, or in the user's cache if that cannot be written."""
    folder = RunFolder(weights)
    parent = folder.features if folder.features.exists() else folder.root
    if folder.spec.exists() and parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return folder.features
    return cache_folder() / "features"


class FeatureStore:
    """The features of an encoder, read from the folder or computed."""

    def __init__(
        self, folder: Path, encoder: VisionTransformer, spec: ModelSpec, device: torch.device
    ) -> None:
        """`spec` describes the encoder and sets the image size and the type of pixels."""
        self.folder = folder
        clear_unfinished(folder)
        self._encoder, self._spec, self._device = encoder, spec, device
        self._facts = {
            "format": _FORMAT,
            "versions": versions(),
            "weights": hash_of_tensors(encoder.state_dict()),  # includes mean and deviation
            "encoder": _described(spec.encoder),  # the number of heads is not in the tensors
            "views": _described(WHOLE_IMAGE),
            "image_size": list(spec.image_size),
            "values": spec.statistics.values,
            "device": device.type,
            "precision": "float32",
        }

    def features(self, source: ImageSource) -> CachedFeatures[Features]:
        """Class tokens and mean patch tokens of every readable image."""
        return self.computed(source, Features, features)

    def tokens(self, source: ImageSource) -> CachedFeatures[Tokens]:
        """All tokens of every readable image.

        Raises:
            ResourceError: if they do not fit in memory.
        """
        check_room(self._encoder, source, self._spec.image_size)
        return self.computed(source, Tokens, patch_tokens)

    def computed(
        self,
        source: ImageSource,
        kind: type[T],
        compute: Callable[..., T],
        facts: Mapping[str, Any] | None = None,
    ) -> CachedFeatures[T]:
        """What `compute(encoder, source, size, statistics, device)` returns; `facts` are what else it depends on."""
        spec = self._spec
        return kept(
            self.folder,
            {**self._facts, **(facts or {}), **facts_of(source)},
            kind,
            partial(compute, self._encoder, source, spec.image_size, spec.statistics, self._device),
        )


def kept(
    folder: Path, facts: Mapping[str, Any], kind: type[T], compute: Callable[[], T]
) -> CachedFeatures[T]:
    """What the folder has for these facts, else what `compute` returns, which is then cached."""
    facts = {"kind": kind.__name__.lower(), **facts}
    path = folder / f"{hash_of(facts)}.safetensors"
    notes: list[str] = []
    if path.exists():
        try:
            loaded, seconds = _read(path, facts, kind)
            with contextlib.suppress(OSError):
                path.touch()  # recently used
            return CachedFeatures(loaded, True, seconds, ())
        except (OSError, DataError, ValueError, KeyError, TypeError, SafetensorError) as error:
            notes.append(f"{path} is damaged ({error}); its features are computed again")
    started = time.perf_counter()
    computed = compute()
    seconds = time.perf_counter() - started
    if (problem := _write(path, facts, computed, seconds)) is not None:
        notes.append(f"features are not cached: {problem}")
    return CachedFeatures(computed, False, seconds, tuple(notes))


def facts_of(source: ImageSource) -> dict[str, Any]:
    """Everything that says which images a source has, and their labels."""
    return {
        "images": len(source),
        "channels": source.channels,
        "state": source.state,
        "names": hash_of([source.name(position) for position in range(len(source))]),
        "labels": hash_of(source.labels().tolist()),
    }


def _read(path: Path, facts: Mapping[str, Any], kind: type[T]) -> tuple[T, float]:
    """The features of a file, and the seconds to compute them; ValueError if they do not match."""
    with safe_open(path, "pt") as file:
        metadata = parse_json((file.metadata() or {})["features"], str(path))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata["facts"] != facts:
        raise ValueError("it has other features")
    if metadata["checksum"] != hash_of_tensors(tensors):
        raise ValueError("its checksum is wrong")
    return kind(**tensors, unreadable=[]), float(metadata["seconds"])


def _write(path: Path, facts: Mapping[str, Any], content: T, seconds: float) -> str | None:
    """Cache features; returns the reason if that is not possible.

    Features without some images are not cached, because the images may be readable next time.
    """
    if content.unreadable:
        return f"{len(content.unreadable)} images cannot be read; repair or remove them"
    tensors = {name: part for name, part in content._asdict().items() if isinstance(part, Tensor)}
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > LARGEST:
        return f"they take {size / 2**30:.1f} GiB, more than the limit of {LARGEST / 2**30:g} GiB"
    about = {"facts": facts, "checksum": hash_of_tensors(tensors), "seconds": round(seconds, 3)}
    metadata = {"features": json.dumps(about)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda temporary: save_tensors(tensors, temporary, metadata))
        _delete_oldest(path.parent)
    except (OSError, SafetensorError) as error:
        return f"{path.parent} cannot be written ({error})"
    return None


def _delete_oldest(folder: Path) -> None:
    """Delete the least recently used files, down to `WHOLE` bytes, after what killed processes left."""
    clear_unfinished(folder)
    files = sorted(folder.glob("[!.]*.safetensors"), key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in files)
    for file in files:
        if total <= WHOLE:
            return
        total -= file.stat().st_size
        file.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that decode, resize and compute."""
    import unmask

    found = {"unmask": unmask.__version__}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


def _described(spec: Any) -> dict[str, Any]:
    return {"class": type(spec).__name__, **to_json(spec)}


def hash_of(content: Any) -> str:
    """A hash of JSON values."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]
