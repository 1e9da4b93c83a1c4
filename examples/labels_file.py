"""Images with several labels each, from a CSV: python examples/labels_file.py [RUN FOLDER LABELS.csv].

Without arguments: scikit-learn's digits as PNGs, each of which may be even, small, both or neither.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from own_recipe import RECIPE
from PIL import Image

import unmask
from unmask import TRANSFERS, Digits, MachineFlags, RunFlags

RUNNING = RunFlags(machine=MachineFlags(workers=0, threads=1))
TUNING = replace(TRANSFERS["finetune-digits"].recipe, encoder=RECIPE.encoder, epochs=6.0)


def write_digits(folder: Path, count: int = 200) -> Path:
    """Pictures, and beside them a CSV with the columns file_name and label; the CSV."""
    (folder / "images").mkdir()
    digits = Digits().open("train")
    lines = ["file_name,label"]
    for number, digit in enumerate(digits.labels()[:count].tolist()):
        Image.fromarray(digits.pixels[number, 0].numpy()).save(folder / "images" / f"{number}.png")
        labels = ["even"] * (digit % 2 == 0) + ["small"] * (digit < 5)
        lines.append(f"{number}.png,{';'.join(labels) or '[]'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def main(run: Path, images: Path, labels: Path, out: Path) -> None:
    """Score frozen features, fine-tune, and predict."""
    found = unmask.evaluate(run, images, protocol="knn", labels_file=labels)
    for row in found.rows:
        print(f"frozen, {row.feature}: {found.measure} {row.mean:.1%} (chance {found.chance:.1%})")
    tuned = unmask.finetune(
        run, images, recipe=TUNING, labels_file=labels, out=out, running=RUNNING
    )
    answered = unmask.predict(tuned, images, labels_file=labels)
    for answer in answered.answers[:5]:
        chosen = [answered.names[number] for number in answer.prediction.chosen]
        print(f"{answer.name}: {' and '.join(chosen) or 'neither'}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        if len(sys.argv) == 4:
            main(*map(Path, sys.argv[1:]), place / "tuned")
        else:
            labels = write_digits(place)
            run = unmask.pretrain("digits", recipe=RECIPE, out=place / "run", running=RUNNING)
            main(run, place / "images", labels, place / "tuned")
