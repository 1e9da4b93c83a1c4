"""A folder of vectors, read with polars, and pictures that are alike: python examples/neighbours.py [RUN DATA].

Needs polars (pip install polars). Without arguments a small model is trained on scikit-learn's digits first, in a temporary
folder. pandas.read_parquet(folder) reads the same columns.
"""

import subprocess
import sys
import tempfile

import numpy as np
import polars
from own_recipe import RECIPE

import unmask


def neighbours(run: str, data: str, folder: str) -> None:
    """Embed all pictures of DATA, and print for some which other is most like them."""
    command = ["embed", run, data, "--out", folder, "--workers", "0"]
    subprocess.run([sys.executable, "-m", "unmask", *command], check=True)
    table = polars.read_parquet(f"{folder}/part-*.parquet")
    vectors = table["vector"].to_numpy()  # [pictures, width]
    vectors = vectors - vectors.mean(0)  # what all pictures share says nothing
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first = vectors[:10] @ vectors.T
    np.fill_diagonal(first, -1)  # a picture is no neighbour of itself
    found = (
        table[:10]
        .select("name", "label")
        .with_columns(
            nearest=table["name"].gather(first.argmax(1)),
            label_of_nearest=table["label"].gather(first.argmax(1)),
            cosine=polars.Series(first.max(1)).round(3),
        )
    )
    print(found)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        if len(sys.argv) == 3:
            neighbours(sys.argv[1], sys.argv[2], f"{place}/vectors")
        else:
            run = unmask.pretrain("digits", recipe=RECIPE, out=f"{place}/run")
            neighbours(str(run), "digits", f"{place}/vectors")
