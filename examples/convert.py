"""Weights in four layouts, each proven by its own library: python examples/convert.py [WEIGHTS].

WEIGHTS is a run or a file of unmask, a published MAE, timm or transformers; without it a small model is
trained on scikit-learn's digits first, in a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import torch
from own_recipe import RECIPE

import unmask


def main(source: str | Path, folder: Path) -> None:
    """Write every layout, compare with the library that it is for, and read it back."""
    model = unmask.load(source)
    shape = (2, model.spec.channels, *model.spec.image_size)
    images = torch.randint(256, shape, dtype=torch.uint8)
    before = model.embed(images)
    for layout in ("unmask", "huggingface", "fair", "timm"):
        made = unmask.convert(source, folder / layout, to=layout)
        check = made.check
        apart = f"{check.difference:.1e} from {check.against}" if check else "not checked"
        same = unmask.load(folder / layout).embed(images).mean.equal(before.mean)
        print(f"{layout}: {made.file.name}, {apart}, read back {'equal' if same else 'CHANGED'}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        if len(sys.argv) == 2:
            main(sys.argv[1], place)
        else:
            main(unmask.pretrain("digits", recipe=RECIPE, out=place / "run"), place)
