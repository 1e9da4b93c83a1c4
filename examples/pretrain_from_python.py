"""Pretrain from Python: python examples/pretrain_from_python.py [FOLDER OUT].

Without a folder of images, scikit-learn's digits are used, and the run goes to a temporary folder.
"""

import sys
import tempfile

from own_recipe import RECIPE

import unmask
from unmask import Digits, Folder, MachineFlags, RunFlags

RUNNING = RunFlags(machine=MachineFlags(device="cpu", workers=0, threads=1), save_every_minutes=5.0)
"""What must not change the result."""


def main(data: Digits | Folder, out: str) -> None:
    """Train from the first step to the last, and look at what came out."""
    run = unmask.pretrain(data, recipe=RECIPE, out=out, seed=0, running=RUNNING)
    model = unmask.load(run)
    features = model.embed(data.open("train")[0].image[None])
    print(f"{run}: {model.about}, {features.cls.shape[1]} features an image")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(Folder(path=sys.argv[1]), sys.argv[2])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Digits(), f"{folder}/run")
