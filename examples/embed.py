"""Features of images, and which are alike: python examples/embed.py [RUN FOLDER].

Without arguments a small model is trained on scikit-learn's digits first, in a temporary folder.
"""

import sys
import tempfile

from own_recipe import RECIPE
from torch import Tensor
from torch.nn import functional as F

import unmask


def nearest(features: Tensor, names: list[str]) -> None:
    """Print, for the first images, which other is nearest by cosine; features are [n d]."""
    own = features - features.mean(0)  # what all images share says nothing
    directions = F.normalize(own, dim=1)
    similarity = (directions @ directions.T).fill_diagonal_(-1)
    for name, row in list(zip(names, similarity, strict=True))[:10]:
        print(f"{name} is most like {names[int(row.argmax())]} (cosine {row.max():.3f})")


def digits() -> None:
    """Train for some seconds, then compare digits that were kept from training."""
    with tempfile.TemporaryDirectory() as folder:
        model = unmask.load(unmask.pretrain("digits", recipe=RECIPE, out=f"{folder}/run"))
    test = unmask.Digits().open("test")
    names = [f"{test.name(i)} (a {test.labels()[i]})" for i in range(len(test))]
    nearest(model.embed(test.pixels).mean, names)


def files(run: str, folder: str) -> None:
    """Compare the images of a folder."""
    features = unmask.load(run).embed(folder, patches=False)
    nearest(features.mean, list(features.names))


if __name__ == "__main__":
    files(*sys.argv[1:]) if len(sys.argv) == 3 else digits()
