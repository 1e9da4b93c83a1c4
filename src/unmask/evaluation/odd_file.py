"""The memory of normal images as a file, with all that is needed to look at new images with the same encoder."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from unmask.contracts import ImageSource, Size
from unmask.data import AnySource
from unmask.encoders.vit import VisionTransformer
from unmask.errors import DataError, ResourceError, SettingsError
from unmask.evaluation.odd import Memory, OddRule, Threshold
from unmask.evaluation.odd_run import Look
from unmask.evaluation.store import facts_of
from unmask.files import parse_json, write_whole
from unmask.spec import from_json, to_json
from unmask.tensors import hash_of_tensors, save_tensors

FILE = "memory.safetensors"
SCORES = "scores.json"
"""The file by which a folder of scores is known."""

_FORMAT = 1
_NAMES = ("vectors", "places", "means", "normal")


@dataclass(frozen=True, kw_only=True)
class LookedAt:
    """Images that were looked at when a memory was made."""

    data: AnySource
    """Where they were."""


class Kept(NamedTuple):
    """A memory from a file."""

    memory: Memory
    facts: dict[str, Any]

    @property
    def encoder(self) -> str:
        """Where the encoder was."""
        return str(self.facts["encoder"])

    @property
    def size(self) -> Size:
        """The size at which images are looked at."""
        return Size(*self.facts["size"])

    @property
    def looked_at(self) -> AnySource | None:
        """The images that were looked at first; None in files of earlier versions."""
        with suppress(KeyError, SettingsError):
            return from_json(LookedAt, self.facts["test"]).data
        return None

    def check(self, encoder: VisionTransformer, path: str) -> None:
        """Refuse another encoder.

        Raises:
            SettingsError: if its weights are others.
        """
        if hash_of_tensors(encoder.state_dict()) != self.facts["weights"]:
            raise SettingsError(
                f"{path} has other weights than when this memory was made; run `unmask odd {path} NORMAL TEST` again"
            )


def save(
    path: Path, memory: Memory, look: Look, encoder: str, normal: ImageSource, test: AnySource
) -> None:
    """Write a memory; `encoder` is the path of the encoder, `normal` the normal images, and `test` what was looked at."""
    tensors = {name: getattr(memory, name) for name in _NAMES}
    content = {
        "format": _FORMAT,
        "rule": to_json(memory.rule),
        "grid": list(memory.grid),
        "size": list(look.size),
        "threshold": list(memory.threshold),
        "heat": [memory.low, memory.high],
        "encoder": encoder,
        "weights": hash_of_tensors(look.encoder.state_dict()),
        "seed": look.seed,
        "normal": {"where": normal.where, **facts_of(normal)},
        "test": to_json(LookedAt(data=test)),
        "checksum": hash_of_tensors(tensors),
    }
    header = {"odd": json.dumps(content)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda temporary: save_tensors(tensors, temporary, header))


def load(path: Path) -> Kept:
    """The memory in a file that `save` wrote.

    Raises:
        DataError: if the file is damaged, or of a newer version.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = parse_json((file.metadata() or {})["odd"], str(path))
            tensors = {name: file.get_tensor(name) for name in _NAMES}
        if facts["format"] > _FORMAT:
            raise DataError(f"format {facts['format']} is newer than {_FORMAT}")
        if facts["checksum"] != hash_of_tensors(tensors):
            raise DataError("the checksum is wrong")
        low, high = facts["heat"]
        memory = Memory(
            rule=from_json(OddRule, facts["rule"]),
            grid=Size(*facts["grid"]),
            threshold=Threshold(*facts["threshold"]),
            low=low,
            high=high,
            **tensors,
        )
    except (OSError, KeyError, TypeError, ValueError, SafetensorError, DataError) as error:
        raise DataError(
            f"{path} holds no memory of normal images that can be used ({error}); run `unmask odd ENCODER NORMAL TEST` again"
        ) from None
    with suppress(ResourceError):  # without FAISS the search is exact, and slower
        memory = memory.indexed()
    return Kept(memory, facts)
