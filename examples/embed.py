"""Features of images, and which are alike: python examples/embed.py [RUN FOLDER].

Without arguments a small model is trained on scikit-learn's digits first, in a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

from torch.nn import functional as F

import unmask
from unmask.commands import pretrain
from unmask.data import Digits
from unmask.runs.model import Embedding


def nearest(features: Embedding, names: list[str]) -> None:
    """Print, for the first images, which other is nearest by cosine."""
    own = features.mean - features.mean.mean(0)  # what all images share says nothing
    directions = F.normalize(own, dim=1)
    similarity = (directions @ directions.T).fill_diagonal_(-1)
    for name, row in list(zip(names, similarity, strict=True))[:10]:
        print(f"{name} is most like {names[int(row.argmax())]} (cosine {row.max():.3f})")


def digits() -> None:
    """Train for some seconds, then compare digits that were kept from training."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(__file__).with_name("own_recipe.py")
        run = f"{folder}/run"
        pretrain.main(["digits", "--recipe", f"{recipe}:RECIPE", "--out", run, "--threads", "1"])
        model, test = unmask.load(run), Digits().open("test")
    names = [f"{test.name(i)} (a {test.labels()[i]})" for i in range(len(test))]
    nearest(model.embed(test.pixels), names)


def files(run: str, folder: str) -> None:
    """Compare the PNG and JPEG files of a folder."""
    found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".png", ".jpg"))
    nearest(unmask.load(run).embed(found), [path.name for path in found])


if __name__ == "__main__":
    files(*sys.argv[1:]) if len(sys.argv) == 3 else digits()
