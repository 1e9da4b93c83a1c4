"""Weights in four layouts, each proven by its own library: python examples/convert.py [WEIGHTS].

WEIGHTS is a run or a file of unmask, a published MAE, timm or transformers; without it a small model is
trained on scikit-learn's digits first, in a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import torch

import unmask
from unmask.commands import pretrain
from unmask.formats import FORMATS, write_weights
from unmask.formats.card import model_card
from unmask.runs.weights import find_weights


def digits(folder: str) -> str:
    """Train for some seconds."""
    recipe = Path(__file__).with_name("own_recipe.py")
    run = f"{folder}/run"
    pretrain.main(["digits", "--recipe", f"{recipe}:RECIPE", "--out", run, "--threads", "1"])
    return run


def main(source: str, folder: Path) -> None:
    """Write every layout, compare with the library that it is for, and read it back."""
    weights = find_weights(source).weights
    spec = weights.spec
    images = torch.randint(256, (2, spec.channels, *spec.image_size), dtype=torch.uint8)
    before = unmask.load(source).embed(images)
    for name, layout in FORMATS.items():
        card = model_card(weights, name, name, license="unknown", data="see the run")
        file = write_weights(weights, folder / name, layout, card)
        check = layout.check(weights, file)
        apart = f"{check.difference:.1e} from {check.against}" if check else "not checked"
        same = unmask.load(folder / name).embed(images).mean.equal(before.mean)
        print(f"{name}: {file.name}, {apart}, read back {'equal' if same else 'CHANGED'}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        source = sys.argv[1] if len(sys.argv) == 2 else digits(temporary)
        main(source, Path(temporary))
