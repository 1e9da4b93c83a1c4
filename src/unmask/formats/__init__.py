"""Weights from and to elsewhere: each layout in a file, all behind `read_weights` and `write_weights`."""

import shutil
import tempfile
from pathlib import Path
from typing import Protocol, runtime_checkable

from safetensors import SafetensorError

from unmask.encoders.vit import PlainBlocks
from unmask.errors import DataError, ResourceError, RunError, SettingsError
from unmask.formats.compare import Check
from unmask.formats.describe import Hints
from unmask.formats.fair import Fair
from unmask.formats.files import TensorFile, read_file
from unmask.formats.huggingface import HuggingFace
from unmask.formats.model import Weights
from unmask.formats.names import listed
from unmask.formats.native import Native
from unmask.formats.timm import Timm
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.objectives.encodings import Visible
from unmask.targets import NormalizedPixels, Pixels

CARD = "README.md"


@runtime_checkable
class Format(Protocol):
    """A layout of weights on disk."""

    def recognizes(self, file: TensorFile) -> bool:
        """Whether a file is laid out so; asked in the order of `FORMATS`."""
        ...

    def read(self, file: TensorFile, hints: Hints) -> Weights:
        """The weights in our names, every tensor accounted for."""
        ...

    def write(self, weights: Weights, folder: Path) -> Path:
        """Write into an empty folder; the file that holds the tensors."""
        ...

    def check(self, weights: Weights, file: Path) -> Check | None:
        """The written file in the library that it is for; None where that is not installed."""
        ...


FORMATS: dict[str, Format] = {
    "unmask": Native(),
    "huggingface": HuggingFace(),
    "fair": Fair(),
    "timm": Timm(),
}
"""Every layout by its public name."""

_NO_HINTS = Hints()


def read_weights(path: Path | str, hints: Hints = _NO_HINTS) -> Weights:
    """The weights of a file, or of a folder with one, whatever their layout.

    Raises:
        DataError: if there are none, the file is damaged, or the model is no plain ViT.
        SettingsError: if the number of heads must be given.
        RunError: if a newer version of this package wrote the file.
    """
    return read_named(path, hints)[1]


def read_named(path: Path | str, hints: Hints = _NO_HINTS) -> tuple[str, Weights]:
    """As `read_weights`, with the name of the layout."""
    file = read_file(Path(path))
    for name, layout in FORMATS.items():
        if layout.recognizes(file):
            return name, layout.read(file, hints)
    largest = sorted(file.tensors.items(), key=lambda item: -item[1].numel())
    found = listed((f"{name} {list(tensor.shape)}" for name, tensor in largest), most=4)
    raise DataError(
        f"{file.path} is of no architecture that unmask knows (its largest tensors: {found}); it reads "
        f"plain ViTs in the layouts {', '.join(FORMATS)}"
    )


def write_weights(weights: Weights, destination: Path, layout: Format, card: str) -> Path:
    """Write weights and their card into a new folder; the file that holds the tensors.

    A destination `NAME.pth` is that file itself, for the one layout that has such files, and the card
    `NAME.md`. All is written beside and then renamed.

    Raises:
        RunError: if something is there already.
        ResourceError: if it cannot be written.
    """
    check_free(destination, layout)
    weights, _ = held_by(weights, layout)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        writing = Path(
            tempfile.mkdtemp(prefix=f".writing-{destination.name}-", dir=destination.parent)
        )
    except OSError as error:
        raise _unwritable(destination, error) from None
    try:
        file = layout.write(weights, writing)
        (writing / CARD).write_text(card, encoding="utf-8")
        if destination.suffix == ".pth":
            (writing / CARD).rename(destination.with_suffix(".md"))
            return file.rename(destination)
        writing.chmod(0o755)  # as `mkdir` would have made it
        writing.rename(destination)
        return destination / file.name
    except (OSError, SafetensorError, RuntimeError) as error:
        raise _unwritable(destination, error) from None
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def held_by(weights: Weights, layout: Format) -> tuple[Weights, list[str]]:
    """What of the weights a layout has names for, and remarks on what it has none for.

    Raises:
        SettingsError: if it has none even for the encoder.
    """
    if isinstance(layout, Native):
        return weights, []
    classes = weights.spec.encoder.class_tokens
    if classes > 1:
        raise SettingsError(
            f"this encoder has {classes} class tokens, and plain ViTs of other libraries have one; only "
            "--to unmask keeps it"
        )
    if not isinstance(weights.spec.encoder.blocks, PlainBlocks):
        raise SettingsError(
            "this encoder has BEiT's blocks (relative positions, scaled halves, no biases of keys), and the plain "
            "ViTs of other libraries have not; only --to unmask keeps it"
        )
    objective = weights.spec.objective
    if not weights.decoder or objective is None:
        return weights, []
    if isinstance(layout, Timm):
        left = "timm has no decoder: it is left out"
    elif not isinstance(objective, MAE) or not isinstance(objective.decoder, SelfAttentionDecoder):
        left = (
            "the decoder is no self-attention decoder like MAE's, which is all that this layout knows: it is "
            "left out (--to unmask keeps it)"
        )
    elif not isinstance(objective.encoding, Visible):
        left = (
            "the decoder is for an encoder that sees mask tokens (encoding:replaced), which this layout does "
            "not know: it and the token are left out (--to unmask keeps them)"
        )
    elif not isinstance(objective.target, Pixels | NormalizedPixels):
        left = (
            "the decoder does not rebuild pixels, which is all that this layout knows: it is left out "
            "(--to unmask keeps it)"
        )
    else:
        return weights, []
    return weights._replace(spec=weights.spec.without_decoder(), decoder={}), [left]


def check_free(destination: Path, layout: Format) -> None:
    """Refuse a destination that is taken, or that the layout cannot be written to."""
    if destination.suffix == ".pth" and not isinstance(layout, Fair):
        raise SettingsError(
            f"{destination} is a file, and --to fair alone writes one; name a folder"
        )
    taken = [destination, destination.with_suffix(".md")] if destination.suffix == ".pth" else []
    if any(path.exists() for path in taken):
        raise RunError(f"{destination} or its .md exists already; name another file")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise RunError(f"{destination} exists and is not empty; name another folder")


def _unwritable(destination: Path, error: Exception) -> ResourceError:
    return ResourceError(f"{destination} cannot be written ({error}); make room, or name another")
