"""Hide parts of images and rebuild them: python examples/reconstruct.py [RUN IMAGE].

Without arguments a small model is trained on scikit-learn's digits first, in a temporary folder.
Writes random.png, grid.png and painted.png: each image masked, rebuilt, pasted and as it was.
"""

import sys
import tempfile
from pathlib import Path

import torch
from own_recipe import RECIPE

import unmask
from unmask import Digits, RandomMasking


def show(run: str | Path, images: str | Digits) -> None:
    """Rebuild images under three masks; compare with interpolation."""
    painted = torch.zeros(8, 8, dtype=torch.bool)  # fitted to the grid of patches
    painted[4:] = True  # the lower half
    answers = {
        "random": unmask.reconstruct(run, images, masking=RandomMasking(ratio=0.5), seed=1),
        "grid": unmask.reconstruct(run, images, masking="grid"),
        "painted": unmask.reconstruct(run, images, mask=painted),
    }
    for name, answer in answers.items():
        for image in answer.images:
            result = image.reconstruction
            print(
                f"{image.name}, {name}: error {result.error:.1f} of 255, "
                f"interpolation {result.interpolation_error:.1f}"
            )
        answer.sheet.save(f"{name}.png")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        show(sys.argv[1], sys.argv[2])
    else:
        with tempfile.TemporaryDirectory() as folder:
            run = unmask.pretrain("digits", recipe=RECIPE, out=f"{folder}/run")
            show(run, Digits())  # some that were kept from training
