"""Weight formats of this and other libraries, one per file, behind `read_named` and `write_weights`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from unmask.encoders.vit import PlainBlocks
from unmask.errors import DataError, SettingsError, listed
from unmask.formats.compare import Check
from unmask.formats.describe import Hints
from unmask.formats.destination import check_free, put, writing_beside
from unmask.formats.fair import Fair
from unmask.formats.files import TensorFile, read_file
from unmask.formats.huggingface import HuggingFace
from unmask.formats.model import Weights
from unmask.formats.native import Native
from unmask.formats.timm import Timm
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.objectives.mae import Visible
from unmask.targets import NormalizedPixels, Pixels

CARD = "README.md"


@runtime_checkable
class Format(Protocol):
    """A format of weights on disk."""

    def recognizes(self, file: TensorFile) -> bool:
        """Whether a file has this format; called in the order of `FORMATS`."""
        ...

    def read(self, file: TensorFile, hints: Hints) -> Weights:
        """The weights in our names; every tensor must be known."""
        ...

    def write(self, weights: Weights, folder: Path) -> Path:
        """Write into an empty folder; returns the file with the tensors."""
        ...

    def check(self, weights: Weights, file: Path) -> Check | None:
        """Compare the written file with our model in the library that it is for; None if that is not installed."""
        ...


FORMATS: dict[str, Format] = {
    "unmask": Native(),
    "huggingface": HuggingFace(),
    "fair": Fair(),
    "timm": Timm(),
}
"""All formats by their public names."""

_NO_HINTS = Hints()
_NOTHING: Mapping[str, bytes] = {}


def read_named(path: Path | str, hints: Hints = _NO_HINTS) -> tuple[str, Weights]:
    """The name of the format, and the weights, of a file or a folder with one, in any known format.

    Raises:
        DataError: if there are no weights, the file is damaged, or the model is not a plain ViT.
        SettingsError: if the number of heads must be given.
        RunError: if a newer version of this package wrote the file.
    """
    file = read_file(Path(path))
    for name, layout in FORMATS.items():
        if layout.recognizes(file):
            weights = layout.read(file, hints)
            return name, weights._replace(notes=(*file.notes, *weights.notes))
    largest = sorted(file.tensors.items(), key=lambda item: -item[1].numel())
    names = listed((f"{name} {list(tensor.shape)}" for name, tensor in largest), most=4)
    raise DataError(
        f"{file.path} has an architecture that unmask does not know (its largest tensors: {names}); it reads "
        f"plain ViTs in the formats {', '.join(FORMATS)}"
    )


def write_weights(
    weights: Weights,
    destination: Path,
    layout: Format,
    card: str,
    beside: Mapping[str, bytes] = _NOTHING,
) -> Path:
    """Write weights, their card and files beside it into a new folder; returns the file with the tensors.

    For the format with single files, the destination can be a file `NAME.pth`; its card is then `NAME.md`. Everything is
    written under a temporary name and then renamed.

    Raises:
        RunError: if the destination exists already.
        ResourceError: if it cannot be written.
    """
    check_free(destination, "fair" if isinstance(layout, Fair) else "")
    weights, _ = held_by(weights, layout)
    with writing_beside(destination) as writing:
        file = layout.write(weights, writing)
        (writing / CARD).write_text(card, encoding="utf-8", errors="backslashreplace")
        if destination.suffix == ".pth":
            place = destination.resolve()
            (writing / CARD).rename(place.with_suffix(".md"))
            file.rename(place)
            return destination
        for name, content in beside.items():
            (writing / name).write_bytes(content)
        put(writing, destination)
    return destination / file.name


def held_by(weights: Weights, layout: Format) -> tuple[Weights, list[str]]:
    """The part of the weights that a format can hold, and notes on what is left out.

    Raises:
        SettingsError: if it cannot hold the encoder.
    """
    if isinstance(layout, Native):
        return weights, []
    classes = weights.spec.encoder.class_tokens
    if classes > 1:
        raise SettingsError(
            f"this encoder has {classes} class tokens, and plain ViTs of other libraries have one; use "
            "--to unmask"
        )
    if not isinstance(weights.spec.encoder.blocks, PlainBlocks):
        raise SettingsError(
            "this encoder has BEiT's blocks (relative positions, LayerScale, no key biases), which the plain ViTs of "
            "other libraries lack; use --to unmask"
        )
    objective = weights.spec.objective
    if not weights.decoder or objective is None:
        return weights, []
    if isinstance(layout, Timm):
        note = "the decoder is left out, because timm has no decoders"
    elif not isinstance(objective, MAE) or not isinstance(objective.decoder, SelfAttentionDecoder):
        note = (
            "the decoder is left out, because this format only holds self-attention decoders like MAE's (--to unmask "
            "keeps it)"
        )
    elif not isinstance(objective.encoding, Visible):
        note = (
            "the decoder and the mask token are left out, because this format has no encoders that see mask tokens "
            "(--to unmask keeps them)"
        )
    elif not isinstance(objective.target, Pixels | NormalizedPixels):
        note = "the decoder is left out, because this format only holds decoders that predict pixels (--to unmask keeps it)"
    else:
        return weights, []
    return weights._replace(spec=weights.spec.without_decoder(), decoder={}), [note]
