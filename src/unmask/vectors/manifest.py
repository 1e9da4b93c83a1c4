"""What a folder of vectors says of itself: `_manifest.json`, and the facts that every part repeats."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch

from unmask.channels import ChannelStatistics
from unmask.contracts import Size
from unmask.data import AnySource
from unmask.data.band_files import BandReading
from unmask.encoders import AnyEncoder
from unmask.encoders.chunks import chunk_for
from unmask.errors import DataError, RunError, SettingsError
from unmask.files import read_json, write_text
from unmask.runs.model import Model
from unmask.spec import digest, from_json, to_json, within
from unmask.tensors import hash_of_tensors

FORMAT = 1
MANIFEST = "_manifest.json"

Pooling = Literal["mean", "class"]
Stored = Literal["float32", "float16"]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Everything that the bits of a vector depend on, beside its picture and the machine."""

    weights: str
    """Hash of all tensors of the encoder."""

    encoder: AnyEncoder
    """Its shape; the number of heads is not in the tensors."""

    image_size: Size
    """Pixels of the centre crop that it sees."""

    statistics: ChannelStatistics
    """How pixels are normalised, and 16-bit pictures read."""

    bands: BandReading | None
    """How multi-band images are read; null for pictures."""

    pooling: Pooling
    """The mean of the patch tokens, or the class token, after the last block and the final norm."""

    stored: Stored
    """Type of the stored values."""

    chunk: int
    """Images that pass the encoder together, see `encoders.chunks`."""

    device: str
    """The kind of device: cpu, cuda or mps."""

    @property
    def hash(self) -> str:
        """Equal for vectors that can be compared: all but type, chunk and device."""
        skipped = ("stored", "chunk", "device")
        return digest({name: value for name, value in to_json(self).items() if name not in skipped})


def encoding_of(model: Model, pooling: Pooling, stored: Stored) -> Encoding:
    """The encoding of a loaded model on its device."""
    return Encoding(
        weights=weights_hash(model),
        encoder=model.spec.encoder,
        image_size=model.spec.image_size,
        statistics=model.spec.statistics,
        bands=model.bands,
        pooling=pooling,
        stored=stored,
        chunk=chunk_for(model.encoder, model.spec.image_size, model.device),
        device=model.device.type,
    )


def weights_hash(model: Model) -> str:
    """A hash of all tensors of a model's encoder."""
    with torch.no_grad():
        return hash_of_tensors(model.encoder.state_dict())


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Pictures that were embedded by one command, and by those that resumed it."""

    first_part: int
    """Number of its first part."""

    parts: int
    """How many parts it has when it is complete."""

    rows: int
    """Pictures of each part; the last may have fewer."""

    pictures: int
    """How many pictures it has."""

    names: str
    """Hash of their splits and names, in order."""

    state: str
    """Hash that changes with the files of the source, their times included."""

    def __post_init__(self) -> None:
        within(self, "[0, inf)", "first_part")
        within(self, "[1, inf)", "parts", "rows", "pictures")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of `_manifest.json`."""

    format: int = FORMAT
    """Version of this layout."""

    encoding: Encoding
    """What makes a vector of a picture."""

    whitened: int
    """Principal components of the whitening in `_whitening.safetensors`; 0 for none."""

    place: str
    """Where the encoder was: a hint, for its hash decides."""

    about: str
    """The encoder in words."""

    data: AnySource
    """Where the pictures were."""

    generations: tuple[Generation, ...]
    """What was embedded, in order."""

    unmask_version: str
    """The version that made the folder."""

    map_fingerprint: str | None = None
    """Hash of the map whose tiles were embedded; null for other pictures."""

    def __post_init__(self) -> None:
        within(self, "[0, inf)", "whitened", usual="128 is usual, and 0 is off")


def read_manifest(root: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        RunError: if there is none, or if it is of a newer version.
        DataError: if it is damaged.
    """
    path = root / MANIFEST
    remedy = "copy the folder again, or embed again with another --out"
    try:
        content = read_json(path)
        version = content.get("format") if isinstance(content, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise RunError(
                f"{path} has format {version}, but this version of unmask reads up to {FORMAT}; update unmask"
            )
        return from_json(Manifest, content)
    except (FileNotFoundError, NotADirectoryError):
        what = "does not exist" if not root.exists() else f"holds no vectors (no {MANIFEST})"
        raise RunError(
            f"{root} {what}; make vectors with `unmask embed ENCODER DATA --out VECTORS`"
        ) from None
    except (OSError, DataError, SettingsError) as error:
        raise DataError(f"{path} cannot be read ({error}); {remedy}") from None


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder, whole or not at all."""
    write_text(root / MANIFEST, json.dumps(to_json(manifest), indent=1) + "\n")


def check_encoding(root: Path, old: Encoding, new: Encoding, asked: str) -> None:
    """Refuse vectors of another encoder, or of another preprocessing.

    Raises:
        RunError: with the first difference; `asked` says what the new ones are.
    """
    for field in fields(Encoding):
        before, now = getattr(old, field.name), getattr(new, field.name)
        if before == now or field.name == "chunk":
            continue
        remedy = _REMEDIES.get(field.name, "take that encoder, or another folder with --out")
        raise RunError(
            f"{root} holds vectors of another {_WORDS[field.name]} ({_brief(before)}, {asked} has {_brief(now)}), which "
            f"cannot be compared; {remedy}"
        )


_WORDS = {
    "weights": "encoder: other weights",
    "encoder": "encoder: another shape",
    "image_size": "image size",
    "statistics": "normalisation of pixels",
    "bands": "reading of multi-band images",
    "pooling": "pooling",
    "stored": "type",
    "device": "device",
}
_REMEDIES = {
    "pooling": "add --pooling as before, or take another folder with --out",
    "stored": "add --dtype as before, or take another folder with --out",
    "device": "add --device as before, or take another folder with --out",
}


def _brief(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) > 40 else text
