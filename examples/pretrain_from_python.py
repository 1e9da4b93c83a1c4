"""Pretrain with the loop in plain sight: python examples/pretrain_from_python.py [FOLDER OUT].

Without a folder of images, scikit-learn's digits are used, and the run goes to a temporary folder.
`unmask pretrain` does the same, and also chooses a recipe, measures and handles signals.
"""

import sys
import tempfile
from pathlib import Path
from threading import Event

from own_recipe import RECIPE

import unmask
from unmask.data import Digits, Folder
from unmask.data.statistics import measure
from unmask.runs.folder import RunFolder
from unmask.runs.pretrain import pretrain
from unmask.runs.run import new_run
from unmask.training.hardware import Hardware


def main(data: Digits | Folder, out: Path) -> None:
    """Train from the first step to the last."""
    source = data.open("train")
    batch_size = RECIPE.batch_size
    hardware = Hardware(
        device="cpu", precision="float32", workers=0, threads=1, micro_batch=batch_size
    )
    run = new_run("own", RECIPE, data, source, measure(source), hardware)
    folder = RunFolder(out)
    folder.create(run)
    with folder.lock():
        for report in pretrain(run, folder, source, run.build(), stop=Event()):
            for line in report.lines:  # written about once a second
                if line["step"] % 25 == 0 or line["step"] == run.steps:
                    print(f"step {line['step']} of {run.steps}: loss {line['loss']:.4f}")
    print(f"{out}: {unmask.load(out).embed(source[0].image[None]).cls.shape[1]} features an image")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(Folder(path=sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Digits(), Path(folder) / "run")
