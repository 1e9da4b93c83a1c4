"""Which images are not like normal ones: python examples/odd_images.py [RUN NORMAL TEST].

Without arguments a small model is trained on scikit-learn's digits first, in a temporary folder; zeros are normal, and among
other zeros some ones are hidden.
"""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from own_recipe import RECIPE
from PIL import Image

import unmask


def odd(run: str, normal: str, test: str, folder: str) -> None:
    """Learn what is normal, and print the five oddest images of TEST."""
    command = ["odd", run, normal, test, "--out", folder]
    subprocess.run([sys.executable, "-m", "unmask", *command], check=True)
    with Path(folder, "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: -float(row["score"]))
    for row in rows[:5]:
        print(f"{row['image']}: {float(row['score']):.3f}, odd: {row['odd']}")
    print(f"heat maps: {folder}/sheet.png; for new images: unmask odd {folder} IMAGES")


def write_digits(place: Path) -> None:
    """Zeros to learn from; other zeros, and ten ones."""
    digits = unmask.Digits().open("train")
    zeros, ones = ([n for n, label in enumerate(digits.labels()) if label == k] for k in (0, 1))
    folders = {"normal": zeros[:100], "test/good": zeros[100:], "test/other": ones[:10]}
    for folder, numbers in folders.items():
        (place / folder).mkdir(parents=True)
        for number in numbers:
            pixels = digits[number].image[0].numpy()
            Image.fromarray(pixels).save(place / folder / f"{number}.png")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        odd(*sys.argv[1:], "odd")
    else:
        with tempfile.TemporaryDirectory() as name:
            write_digits(Path(name))
            run = unmask.pretrain("digits", recipe=RECIPE, out=f"{name}/run")
            odd(str(run), f"{name}/normal", f"{name}/test", f"{name}/odd")
