"""How good frozen features are: python examples/evaluate.py [RUN FOLDER_OF_CLASSES].

Without arguments a small model is trained on scikit-learn's digits first, in a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

from own_recipe import RECIPE

import unmask


def scores(run: str | Path, data: str) -> None:
    """Both protocols, beside an encoder that was not trained and raw pixels; labels are used here alone."""
    for protocol in ("knn", "logistic"):
        found = unmask.evaluate(run, data, protocol=protocol)
        print(f"{found.train_images} images to learn from; {found.split}")
        for row in found.rows:
            print(
                f"{row.arm:21}  {protocol:8}  {row.feature:6}  {row.vectors:15}  {found.measure} {row.mean:.1%}"
            )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        scores(sys.argv[1], sys.argv[2])
    else:
        with tempfile.TemporaryDirectory() as folder:
            scores(unmask.pretrain("digits", recipe=RECIPE, out=f"{folder}/run"), "digits")
