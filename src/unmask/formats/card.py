"""The model card of exported weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from unmask.encoders.vit import PlainBlocks
from unmask.errors import typed
from unmask.formats.model import ModelSpec, Weights
from unmask.formats.usage import code_for
from unmask.objectives import MAE
from unmask.objectives.decoders import LinearDecoder, SelfAttentionDecoder
from unmask.objectives.mae import Visible
from unmask.targets import NormalizedPixels, Pixels

UNKNOWN_LICENSE = "unknown"

_LIBRARIES = {"unmask": "unmask", "timm": "timm", "huggingface": "transformers"}


SHEET = "reconstructions.png"
"""The picture of a card."""


class Look(NamedTuple):
    """What a card shows, and where more is to be seen."""

    page: str | None
    """Address of a page that `unmask page` wrote."""
    files: Mapping[str, bytes]
    """Pictures beside the card."""


NOTHING = Look(None, {})


def looks(look: Look) -> list[str]:
    """Paragraphs with the picture, and with the link."""
    paragraphs: list[str] = []
    if SHEET in look.files:
        paragraphs.append(
            f"![Pictures, what was hidden of them, and what the model rebuilt]({SHEET})"
        )
    if look.page is not None:
        paragraphs.append(f"[Try it in the browser]({look.page}): nothing is uploaded.")
    return paragraphs


def model_card(
    weights: Weights, layout: str, name: str, license: str, data: str, look: Look = NOTHING
) -> str:
    """The card in Markdown, with the header that the Hugging Face Hub reads.

    Args:
        weights: the exported weights.
        layout: public name of their format.
        name: of the folder or file.
        license: as the user gave it.
        data: the training images, in words.
        look: what it shows.
    """
    spec = weights.spec
    header = ["---", f"license: {license}", "tags:", "- masked-autoencoder", "- vision-transformer"]
    if layout in _LIBRARIES:
        header.append(f"library_name: {_LIBRARIES[layout]}")
    paragraphs = [
        "\n".join([*header, "---"]),
        f"# {Path(name).stem}",
        *looks(look),
        licence_in_words(license),
        "\n".join(f"- {line}" for line in facts_of_weights(weights, data)),
        "## How to get features",
        *(_how(library, layout, name, weights) for library in _LIBRARIES if _held(library, spec)),
    ]
    return "\n\n".join(paragraphs) + "\n"


def licence_in_words(license: str) -> str:
    """A paragraph on the licence that the user gave."""
    if license == UNKNOWN_LICENSE:
        return (
            "**Licence: unknown.** No licence was set when these weights were exported. Weights that derive from "
            "others keep their licence; the published MAE weights are CC BY-NC 4.0."
        )
    return f"Licence: {license}."


def images_in_words(spec: ModelSpec) -> str:
    """Size and channels of a model's images, in words."""
    size = spec.image_size
    return f"images of {size.height} x {size.width} with {spec.channels} channel{'s' * (spec.channels > 1)}"


def facts_of_weights(weights: Weights, data: str) -> list[str]:
    """Recipe, data, shape and statistics of weights, a line each."""
    spec = weights.spec
    encoder, statistics = spec.encoder, spec.statistics
    several = f"{encoder.class_tokens} class tokens, " if encoder.class_tokens > 1 else ""
    lines = [
        f"recipe: {spec.origin}",
        f"data: {data}",
        f"encoder: ViT of {encoder.depth} blocks, width {encoder.embed_dim}, {encoder.num_heads} heads, "
        f"{several}patches of {encoder.patch_size} pixels; {images_in_words(spec)}",
        f"statistics: mean {_listed(statistics.mean)}, standard deviation {_listed(statistics.std)} "
        f"({statistics.source})",
        f"range: {_listed(statistics.low)} is black, {_listed(statistics.high)} is white "
        + ("(pixels divided by 255)" if statistics.values == "uint8" else "(units of the data)"),
    ]
    if isinstance(spec.objective, MAE) and weights.decoder:
        decoder = spec.objective.decoder
        shape = (
            "one linear layer"
            if isinstance(decoder, LinearDecoder)
            else f"{decoder.depth} blocks, width {decoder.embed_dim}, {decoder.num_heads} heads"
        )
        lines.append(f"decoder: {shape}, for {type(spec.objective.target).__name__}")
    return lines


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:.6g}" for number in numbers)


def _held(library: str, spec: ModelSpec) -> bool:
    """Whether a library can hold the encoder: others have one class token and no BEiT blocks under these names."""
    plain = spec.encoder.class_tokens == 1 and isinstance(spec.encoder.blocks, PlainBlocks)
    return library == "unmask" or plain


def _how(library: str, layout: str, name: str, weights: Weights) -> str:
    """Code for one library, directly or after a conversion."""
    objective = weights.spec.objective
    decoder = (
        isinstance(objective, MAE)
        and isinstance(objective.decoder, SelfAttentionDecoder)
        and isinstance(objective.encoding, Visible)
        and isinstance(objective.target, Pixels | NormalizedPixels)
    )
    direct = library in ("unmask", layout)
    conversion = typed("convert", name, "converted", "--to", library)
    after = "" if direct else f", after `{conversion}`"
    code = code_for(library, name if direct else "converted", weights.spec, decoder=decoder)
    return f"{_LIBRARIES[library]}{after}:\n\n```python\n{code}```"
