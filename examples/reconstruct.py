"""Hide parts of an image and rebuild them: python examples/reconstruct.py [RUN IMAGE].

Without arguments a small model is trained on scikit-learn's digits first, in a temporary folder.
Writes reconstruction.png: the image masked, rebuilt, pasted and as it was, a row for each mask.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

import unmask
from unmask import Model
from unmask.commands import pretrain
from unmask.data import Digits
from unmask.masking import GridMasking, RandomMasking
from unmask.pictures.sheet import Row, sheet


def show(model: Model, image: Tensor | str) -> None:
    """Rebuild an image under three masks; compare with interpolation."""
    pixels = model.fit(image)
    painted = torch.zeros(pixels.shape[1:], dtype=torch.bool)
    painted[pixels.shape[1] // 2 :] = True  # the lower half
    masks = {"random": RandomMasking(ratio=0.5), "grid": GridMasking(), "painted": painted}
    rows: list[Row] = []
    for name, mask in masks.items():
        result = model.reconstruct(pixels, mask, seed=1)
        caption = (
            f"{name}: error {result.error:.1f}, interpolation {result.interpolation_error:.1f}"
        )
        rows.append(Row([result.masked, result.rebuilt, result.pasted, result.original], caption))
        print(caption)
    headings = ["masked", "rebuilt", "pasted", "original"]
    sheet(headings, rows, ["errors: root mean square on hidden pixels, of 255"]).save(
        "reconstruction.png"
    )


def digits() -> None:
    """Train for some seconds, then rebuild a digit that was kept from training."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(__file__).with_name("own_recipe.py")
        run = f"{folder}/run"
        pretrain.main(["digits", "--recipe", f"{recipe}:RECIPE", "--out", run, "--threads", "1"])
        show(unmask.load(run), Digits().open("test").pixels[3])


if __name__ == "__main__":
    show(unmask.load(sys.argv[1]), sys.argv[2]) if len(sys.argv) == 3 else digits()
