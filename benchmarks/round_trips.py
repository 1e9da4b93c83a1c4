"""How far libraries are apart after a conversion: python benchmarks/round_trips.py

A whole ViT-B/16 with MAE's decoder, weights drawn from a fixed seed and moved off their start, goes from
each layout into each other. Printed is the largest difference between this package, with the weights as
they were, and the library of the second layout, with the file that was written.
"""

import tempfile
from pathlib import Path

import torch

from unmask.channels import IMAGENET
from unmask.contracts import Size
from unmask.encoders.vit import VIT_B16
from unmask.formats import FORMATS, read_named, write_weights
from unmask.formats.model import FORMAT, ModelSpec, Weights, split
from unmask.objectives import MAE


def whole_b16() -> Weights:
    """Weights of which none is 0 or 1, position tables included."""
    spec = ModelSpec(
        format=FORMAT,
        encoder=VIT_B16,
        objective=MAE(),
        image_size=Size(224, 224),
        channels=3,
        statistics=IMAGENET,
        origin="random weights",
    )
    state = spec.build_objective().state_dict()
    random = torch.Generator().manual_seed(0)
    for name, tensor in state.items():
        if name not in ("encoder.mean", "encoder.std"):
            tensor.add_(torch.randn(tensor.shape, generator=random) * 0.02)
    return Weights(spec, *split(state))


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    weights = whole_b16()
    print(f"| from | to | compared with | what | largest difference |\n{'|---' * 5}|")
    for first, source in FORMATS.items():
        for second, layout in FORMATS.items():
            with tempfile.TemporaryDirectory() as folder:
                there = Path(folder) / "first"
                write_weights(weights, there, source, "")
                _, read = read_named(there)
                file = write_weights(read, Path(folder) / "second", layout, "")
                known = weights if read.decoder else weights._replace(spec=read.spec, decoder={})
                check = layout.check(known, file)
            assert check is not None, "install the other library"
            print(f"| {first} | {second} | {check.against} | {check.of} | {check.difference:.1e} |")


if __name__ == "__main__":
    main()
