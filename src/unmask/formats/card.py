"""The model card of exported weights."""

from pathlib import Path

from unmask.encoders.vit import PlainBlocks
from unmask.formats.model import ModelSpec, Weights
from unmask.objectives import MAE
from unmask.objectives.decoders import LinearDecoder, SelfAttentionDecoder
from unmask.objectives.mae import Visible

UNKNOWN_LICENSE = "unknown"

_LOAD = {
    "unmask": """```python
import unmask
model = unmask.load("{folder}")
features = model.embed(["photo.jpg"]).mean
```""",
    "timm": """```python
import timm
model = timm.create_model("local-dir:{folder}", pretrained=True)
```""",
    "huggingface": """```python
from transformers import {cls}
model = {cls}.from_pretrained("{folder}")
```""",
}
_LIBRARIES = {"unmask": "unmask", "timm": "timm", "huggingface": "transformers"}


def model_card(weights: Weights, layout: str, name: str, license: str, data: str) -> str:
    """The card in Markdown, with the header that the Hugging Face Hub reads.

    Args:
        weights: the exported weights.
        layout: public name of their format.
        name: of the folder or file.
        license: as the user gave it.
        data: the training images, in words.
    """
    spec = weights.spec
    header = ["---", f"license: {license}", "tags:", "- masked-autoencoder", "- vision-transformer"]
    if layout in _LIBRARIES:
        header.append(f"library_name: {_LIBRARIES[layout]}")
    paragraphs = [
        "\n".join([*header, "---"]),
        f"# {Path(name).stem}",
        _license(license),
        "\n".join(f"- {line}" for line in _facts(weights, data)),
        "## How to load",
        *(_how(library, layout, name, spec) for library in _LOAD if _held(library, spec)),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _license(license: str) -> str:
    if license == UNKNOWN_LICENSE:
        return (
            "**Licence: unknown.** It was not given when these weights were exported. Weights that derive from "
            "others keep their licence; the published MAE weights are CC BY-NC 4.0."
        )
    return f"Licence: {license}, as given when these weights were exported."


def images_in_words(spec: ModelSpec) -> str:
    """Size and channels of a model's images, in words."""
    size = spec.image_size
    return f"images of {size.height} x {size.width} with {spec.channels} channel{'s' * (spec.channels > 1)}"


def _facts(weights: Weights, data: str) -> list[str]:
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


def _how(library: str, layout: str, name: str, spec: ModelSpec) -> str:
    """How to load the weights in one library, directly or after a conversion."""
    objective = spec.objective
    whole = (
        isinstance(objective, MAE)
        and isinstance(objective.decoder, SelfAttentionDecoder)
        and isinstance(objective.encoding, Visible)
    )
    cls = "ViTMAEForPreTraining" if whole else "ViTModel"
    conversion = (
        "" if library in ("unmask", layout) else f"unmask convert {name} converted --to {library}"
    )
    after = f", after `{conversion}`" if conversion else ""
    code = _LOAD[library].format(folder="converted" if conversion else name, cls=cls)
    return f"{_LIBRARIES[library]}{after}:\n\n{code}"
