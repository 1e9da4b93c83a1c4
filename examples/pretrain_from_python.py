"""Pretrain with the loop in plain sight: python examples/pretrain_from_python.py [FOLDER OUT].

Without a folder of images, scikit-learn's digits are used, and the run goes to a temporary folder.
`unmask pretrain` does the same, and also chooses a recipe, measures and handles signals.
"""

import sys
import tempfile
from pathlib import Path
from threading import Event

import torch
from own_recipe import RECIPE

import unmask
from unmask.data import Digits, Folder
from unmask.runs.folder import RunFolder
from unmask.runs.pretrain import pretrain
from unmask.runs.run import SPEC_VERSION, Run, build_objective
from unmask.training.hardware import Hardware


def main(data: Digits | Folder, out: Path) -> None:
    """Train from the first step to the last; called again after a break, it would go on."""
    source = data.open("train")
    run = Run(
        spec_version=SPEC_VERSION,
        recipe_name="own",
        recipe=RECIPE,
        data=data,
        images=len(source),
        channels=source.channels,
        fingerprint=source.fingerprint,
        seed=0,
        hardware=Hardware(
            device="cpu", precision="float32", workers=0, threads=1, micro_batch=RECIPE.batch_size
        ),
        save_every_minutes=10.0,
        max_set_aside=0.05,
        unmask_version=unmask.__version__,
        torch_version=torch.__version__,
    )
    folder = RunFolder(out)
    folder.create(run)
    objective = build_objective(run.recipe, source, run.seed)
    with folder.lock():
        for report in pretrain(run, folder, source, objective, stop=Event()):
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
