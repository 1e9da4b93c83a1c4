"""The card of exported ONNX files: what is in them, and code that runs them."""

from collections.abc import Sequence

from unmask.formats.card import NOTHING, Look, facts_of_weights, licence_in_words, looks
from unmask.formats.model import Weights
from unmask.formats.onnx_graphs import Graph

_ENCODER = """import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("encoder.onnx")
images = np.zeros((1, {channels}, {height}, {width}), np.float32)  # {units}; the file normalises them
cls, mean, patches = session.run(None, {{"images": images}})
"""

_RECONSTRUCTION = """session = onnxruntime.InferenceSession("reconstruction.onnx")
order = np.random.permutation({patches})[None]  # patches are numbered row by row
kept, removed = order[:, :{kept}], order[:, {kept}:]
rebuilt, prediction = session.run(None, {{"images": images, "kept_index": kept, "removed_index": removed}})
"""

_SCORES = """session = onnxruntime.InferenceSession("{name}.onnx")
outputs = session.run(None, {{"images": images}})  # {outputs}
description = session.get_modelmeta().custom_metadata_map  # classes, as JSON
"""


def onnx_card(
    weights: Weights,
    graphs: Sequence[Graph],
    name: str,
    license: str,
    data: str,
    look: Look = NOTHING,
) -> str:
    """The card in Markdown, with the header that the Hugging Face Hub reads; arguments are as for `card.model_card`."""
    spec = weights.spec
    size, patch_size = spec.image_size, spec.encoder.patch_size
    patches = size.height * size.width // patch_size**2
    numbers = {
        "channels": spec.channels,
        "height": size.height,
        "width": size.width,
        "units": "from 0 to 1" if spec.statistics.values == "uint8" else "in the units of the data",
        "patches": patches,
        "kept": max(1, patches // 4),
    }
    code = [_ENCODER.format(**numbers)]
    for graph in graphs[1:]:
        if graph.rebuilds:
            code.append(_RECONSTRUCTION.format(**numbers))
        else:
            code.append(_SCORES.format(name=graph.name, outputs=", ".join(graph.outputs)))
    header = ["---", f"license: {license}", "library_name: onnx", "tags:", "- masked-autoencoder"]
    paragraphs = [
        "\n".join([*header, "- vision-transformer", "---"]),
        f"# {name}",
        *looks(look),
        licence_in_words(license),
        "\n".join(f"- {line}" for line in facts_of_weights(weights, data)),
        "## How to run it",
        f"Batches may have any number of images. Height and width may be other multiples of {patch_size} pixels, because "
        "position tables are resampled inside"
        + (
            ""
            if all(graph.any_size for graph in graphs)
            else "; only segmenter.onnx takes windows of this size alone"
        )
        + ". The description in each file's metadata holds mean, deviation, sizes and classes.",
        "```python\n" + "\n".join(code) + "```",
    ]
    return "\n\n".join(paragraphs) + "\n"
