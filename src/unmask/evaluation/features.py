"""Frozen features of whole images, without masking and without randomness, and their cache on disk.

Each file of the cache is safetensors. Its name is a hash of everything that the features depend on: weights, images,
transform and versions. Its metadata has these facts in full, and a checksum. A file that does not match is computed again.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import Encoded, Encoder, ImageSource, Size
from unmask.data.cache import cache_folder
from unmask.data.in_order import WHOLE_IMAGE, Unreadable, in_order
from unmask.encoders.vit import VisionTransformer
from unmask.errors import DataError, ResourceError
from unmask.files import clear_unfinished, parse_json, write_whole
from unmask.formats.model import ModelSpec
from unmask.runs.folder import RunFolder
from unmask.spec import to_json
from unmask.tensors import save_tensors
from unmask.training.hardware import best_workers, memory_available

_BATCH = 128
_USABLE = 0.4  # share of the memory, for each of train and test
_WORTH_WORKERS = 2000  # images; with fewer, starting loading processes takes longer than loading

LARGEST = 2 * 2**30
"""Largest size of a file in bytes; larger features are not cached."""

WHOLE = 4 * 2**30
"""Largest size of a folder in bytes; the least recently used files are deleted."""

_FORMAT = 3
_LIBRARIES = ("torch", "torchvision", "pillow", "torchcodec")  # they decode, resize and compute


class Features(NamedTuple):
    """Features and labels of a set of images."""

    cls: Float[Tensor, "n d"]
    """The class token (the mean of several)."""
    mean: Float[Tensor, "n d"]
    """The mean of the patch tokens."""
    labels: Int[Tensor, " n"] | Float[Tensor, "n classes"]
    """The class of each image, or 0 or 1 for each class; -1 if it is not known."""
    positions: Int[Tensor, " n"]
    """Positions of the images in their source; unreadable images have no row."""
    unreadable: Unreadable
    """(name, reason) of images that could not be read."""

    def rows(self, chosen: Int[Tensor, " k"]) -> "Features":
        """The features of some images."""
        return self._make(part[chosen] if isinstance(part, Tensor) else part for part in self)


class Tokens(NamedTuple):
    """All tokens of a set of images, and their labels."""

    tokens: Float[Tensor, "n t d"]
    """Class token first."""
    labels: Int[Tensor, " n"] | Float[Tensor, "n classes"]
    """As in `Features`."""
    positions: Int[Tensor, " n"]
    """As in `Features`."""
    unreadable: Unreadable
    """As in `Features`."""

    def rows(self, chosen: Int[Tensor, " k"]) -> "Tokens":
        """The tokens of some images."""
        return self._make(part[chosen] if isinstance(part, Tensor) else part for part in self)


@torch.inference_mode()
def features(
    encoder: Encoder,
    source: ImageSource,
    size: Size,
    statistics: ChannelStatistics,
    device: torch.device,
    workers: int | None = None,
) -> Features:
    """Features of every readable image of a source, in order, from its centre crop.

    By default, the number of loading processes depends on the device.
    """
    # One block for all results: many small tensors between large temporary ones would fragment the heap.
    classes, means = (torch.empty(len(source), encoder.embed_dim) for _ in range(2))
    positions: list[int] = []
    unreadable: Unreadable = []
    for rows, encoded in _encoded(
        encoder, source, size, statistics, device, workers, positions, unreadable
    ):
        classes[rows] = encoded.cls.mean(1)
        means[rows] = encoded.patches.mean(1)
    count, labels = len(positions), _labels(source, positions)
    return Features(classes[:count], means[:count], labels, torch.tensor(positions), unreadable)


@torch.inference_mode()
def patch_tokens(
    encoder: Encoder,
    source: ImageSource,
    size: Size,
    statistics: ChannelStatistics,
    device: torch.device,
    workers: int | None = None,
) -> Tokens:
    """Class token and patch tokens of every readable image of a source, in order, in memory.

    By default, the number of loading processes depends on the device.

    Raises:
        ResourceError: if they do not fit in memory.
    """
    tokens = torch.empty(check_room(encoder, source, size))
    positions: list[int] = []
    unreadable: Unreadable = []
    for rows, encoded in _encoded(
        encoder, source, size, statistics, device, workers, positions, unreadable
    ):
        tokens[rows, :1] = encoded.cls.mean(1, keepdim=True)
        tokens[rows, 1:] = encoded.patches
    labels = _labels(source, positions)
    return Tokens(tokens[: len(positions)], labels, torch.tensor(positions), unreadable)


def _encoded(
    encoder: Encoder,
    source: ImageSource,
    size: Size,
    statistics: ChannelStatistics,
    device: torch.device,
    workers: int | None,
    positions: list[int],
    unreadable: Unreadable,
) -> Iterator[tuple[slice, Encoded]]:
    """The rows of a batch of images and its tokens; adds to `positions` and `unreadable`."""
    if workers is None:
        many = len(source) >= _WORTH_WORKERS
        workers = best_workers(device, source.in_memory) if many else 0
    for batch in in_order(
        source, WHOLE_IMAGE, size, statistics, unreadable, batch_size=_BATCH, workers=workers
    ):
        rows = slice(len(positions), len(positions) + len(batch.positions))
        positions += batch.positions
        yield rows, encoder.encode(batch.images.to(device))


def _labels(source: ImageSource, positions: list[int]) -> Tensor:
    """The classes of some images, of the type that a batch has: int64 [n], or float32 [n classes]."""
    labels = torch.from_numpy(source.labels()[positions])
    return labels.float() if labels.ndim > 1 else labels


def check_room(encoder: Encoder, source: ImageSource, size: Size) -> tuple[int, int, int]:
    """The shape of all tokens of a source.

    Raises:
        ResourceError: if they do not fit in memory.
    """
    grid = encoder.mask_grid(size)
    rows = (len(source), 1 + grid.height * grid.width, encoder.embed_dim)
    needed, room = 4 * rows[0] * rows[1] * rows[2], memory_available(torch.device("cpu"))
    if needed > _USABLE * room:
        raise ResourceError(
            f"the tokens of {len(source):,} images take {needed / 2**30:.1f} GiB, but only {room / 2**30:.1f} GiB "
            "of memory are free; use --protocol linear, or fewer images"
        )
    return rows


T = TypeVar("T", Features, Tokens)


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
            "versions": _versions(),
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
        return self._load_or_compute(source, Features, features)

    def tokens(self, source: ImageSource) -> CachedFeatures[Tokens]:
        """All tokens of every readable image.

        Raises:
            ResourceError: if they do not fit in memory.
        """
        check_room(self._encoder, source, self._spec.image_size)
        return self._load_or_compute(source, Tokens, patch_tokens)

    def _load_or_compute(
        self, source: ImageSource, kind: type[T], compute: Callable[..., T]
    ) -> CachedFeatures[T]:
        """Features from the folder if it has them for these facts, else computed and cached."""
        facts = {"kind": kind.__name__.lower(), **self._facts_of(source)}
        path = self.folder / f"{_hash(facts)}.safetensors"
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
        computed = compute(
            self._encoder, source, self._spec.image_size, self._spec.statistics, self._device
        )
        seconds = time.perf_counter() - started
        if (problem := _write(path, facts, computed, seconds)) is not None:
            notes.append(f"features are not cached: {problem}")
        return CachedFeatures(computed, False, seconds, tuple(notes))

    def _facts_of(self, source: ImageSource) -> dict[str, Any]:
        """Everything that the features of a source depend on."""
        return {
            **self._facts,
            "images": len(source),
            "channels": source.channels,
            "state": source.state,
            "names": _hash([source.name(position) for position in range(len(source))]),
            "labels": _hash(source.labels().tolist()),
        }


def hash_of_tensors(tensors: dict[str, Tensor]) -> str:
    """A hash of names, types, shapes and all bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().data)
    return digest.hexdigest()


def _read(path: Path, facts: dict[str, Any], kind: type[T]) -> tuple[T, float]:
    """The features of a file, and the seconds to compute them; ValueError if they do not match."""
    with safe_open(path, "pt") as file:
        metadata = parse_json((file.metadata() or {})["features"], str(path))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata["facts"] != facts:
        raise ValueError("it has other features")
    if metadata["checksum"] != hash_of_tensors(tensors):
        raise ValueError("its checksum is wrong")
    return kind(**tensors, unreadable=[]), float(metadata["seconds"])


def _write(path: Path, facts: dict[str, Any], content: T, seconds: float) -> str | None:
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


def _versions() -> dict[str, str]:
    import unmask

    versions = {"unmask": unmask.__version__}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    return versions


def _described(spec: Any) -> dict[str, Any]:
    return {"class": type(spec).__name__, **to_json(spec)}


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]
