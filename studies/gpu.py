"""What a lent GPU shows in one call: JPEGs decoded there, training steps beside peers, and short trainings beside none.

Where there is a network, make the folder to carry (20 MiB for CIFAR-10; FOLDER holds its train/ and test/ class folders, or
its Parquet files, as `unmask finetune` reads them):

    python studies/gpu.py --prepare carried --data FOLDER

On the machine with the GPU, from the source tree and without network:

    PYTHONPATH=src:carried/packages python studies/gpu.py --out OUT --data carried --minutes 9

Parts come in the order of their worth, each with a limit of its own, and none begins that may not end within
`--minutes`, which count from the start of the program, with imports, the start of CUDA and the ceilings; the program ends
itself 15 s after them at the latest. Where a call may take 10 minutes, 9 are right. Each part writes its result when it ends,
a line of OUT/results.jsonl; OUT/results.md shows all of them as tables. So a call that is cut short loses one part.

The same command again does what is missing: what is done is skipped, what failed is tried again. On a machine whose output
folder starts empty, carry the results of the call before, and say where they are:

    cp OUT/results.jsonl carried/
    PYTHONPATH=src:carried/packages python studies/gpu.py --out OUT --data carried --earlier carried/results.jsonl

After a change of the code, take another OUT, and no earlier results.

Needs Python 3.12, torch 2.11 or newer, torchvision, numpy and Pillow. A part that needs more names what is missing, and the
others go on: fine-tuning needs timm (its augmentation), decoding pyarrow (names of files), and decoding on the GPU
torchcodec, whose wheel for another Python is put beside the carried packages with

    python3 -m pip install --target carried/packages --no-deps --only-binary :all: --python-version 3.12 \\
        --platform manylinux_2_28_x86_64 torchcodec==0.17.0

transformers and lightly are compared where they are installed. `--tiny` tries everything out on a CPU; its figures mean
nothing.
"""

import argparse
import faulthandler
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import bare
import torch
from gpu_bed import Bed, Row, attempt, comparisons, new_bed, table
from gpu_images import prepare
from gpu_parts import ceilings, dense, lightly, pictures, steps, transformers
from gpu_training import (
    FINETUNED,
    NEIGHBOURS,
    TINY_COURSE,
    Course,
    pretrained,
    scratch,
    threads_for,
)
from PIL import Image

from unmask.recipes import RECIPES
from unmask.training.hardware import Hardware, best_precision

BATCHES = {"mae-b16": [512], "mae-l16": [1024], "mae-h14": [512]}
"""Images of a step; peers are compared at the first one's."""

GRACE = 15.0
"""Seconds after the limit at which the program ends itself, whatever hangs."""


class Part(NamedTuple):
    """Something to measure."""

    name: str
    seconds: float
    """At most."""
    measure: Callable[[Bed], None]


@dataclass(frozen=True)
class Loading:
    """Decoding beside training."""

    recipe: str = "mae-b16"
    batch: int = 512
    images: int = 1024
    """JPEGs of 500 x 375 pixels, which are read again and again."""


def parts(tiny: bool, data: Path | None, bed: Bed) -> list[Part]:
    """All parts, those that are worth most first."""
    loading = Loading("mae-ti4", 4, 8) if tiny else Loading()
    course = TINY_COURSE if tiny else Course()
    few, many = (0, 1) if tiny else (4, 16)
    training = []
    if data is not None:
        whole = course.pretraining_seconds + course.finetuning_seconds + 35
        training = [
            Part("CIFAR-10, winner by time", whole, pretrained("winner", course, data)),
            Part("CIFAR-10, exact recipe", whole, pretrained("exact", course, data)),
            Part("CIFAR-10, from scratch", course.finetuning_seconds + 25, scratch(course, data)),
        ]
    return [
        Part(f"decode gpu, {few} processes", 90, decoding("gpu", few, loading)),
        Part(f"decode cpu, {many} processes", 75, decoding("cpu", many, loading)),
        *(
            Part(f"step {name}", 60 if "h14" in name else 45, steps(name))
            for name in bed.scale.batches
        ),
        *(
            Part(f"step {name}", 40, dense(name, side, images))
            for name, side, images in bed.scale.dense
        ),
        *training,
        Part("transformers", 90, transformers),
        Part("lightly", 60, lightly),
        Part(f"decode cpu, {few} processes", 75, decoding("cpu", few, loading)),
    ]


def decoding(where: str, workers: int, loading: Loading) -> Callable[[Bed], None]:
    """A part: pretraining from JPEGs in a folder, as `unmask bench` measures it: step, loader, both, and what limits."""

    def part(bed: Bed) -> None:
        bare.need("pyarrow", *(["torchcodec"] if where == "gpu" else []))
        from unmask.data import Folder
        from unmask.data.gpu_decode import check_decoding
        from unmask.runs.bench import bench

        recipe = RECIPES[loading.recipe].recipe
        hardware = Hardware(
            device=bed.device.type, precision=best_precision(bed.device), workers=workers,
            threads=threads_for(bed),
            micro_batch=loading.batch, decode=where,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as root:
            for index, jpeg in enumerate(pictures(loading.images)):
                (Path(root) / f"{index}.jpg").write_bytes(jpeg.numpy().tobytes())
            # a set of one size would live decoded on the GPU, and nothing would be loaded
            Image.new("RGB", (375, 500)).save(Path(root) / "upright.jpg")
            source = Folder(path=root).open()
            if where == "gpu" and bed.device.type == "cuda":
                check_decoding(source, recipe.views, bed.device)  # says what is wrong with it
            found = bench(loading.recipe, recipe, hardware, source, loading.batch)
        assert found.loader is not None
        assert found.together is not None
        bed.say("training alone, images/s", round(found.best.images_per_second))
        bed.say("loading alone, images/s", round(found.loader.images_per_second))
        bed.say("both, images/s", round(found.together.images_per_second))
        bed.say("waiting for images, % of the time", round(100 * found.together.waiting, 1))
        bed.say("limit", found.bottleneck)

    return part


# Results


class Results:
    """The lines of OUT/results.jsonl, of which the last one of a part counts; they begin with those of `earlier`, if OUT has none."""

    def __init__(self, folder: Path, tiny: bool, earlier: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.tiny = folder, tiny
        self.file = folder / "results.jsonl"
        if earlier is not None and not self.file.exists():
            shutil.copyfile(earlier, self.file)
        self.lines: dict[str, dict[str, Any]] = {}
        for text in self.file.read_text().splitlines() if self.file.exists() else ():
            try:
                line = json.loads(text)
            except ValueError:  # the program was killed while it wrote this line
                continue
            if line["tiny"] == tiny:
                self.lines[line["part"]] = line
        self.write_tables()

    def done(self, name: str) -> bool:
        """Whether a part ended well."""
        return self.lines.get(name, {}).get("outcome") == "done"

    def add(self, name: str, outcome: str, seconds: float, bed: Bed) -> None:
        """Write the result of a part, and the table again."""
        line = {
            "part": name, "outcome": outcome, "seconds": round(seconds, 1), "tiny": self.tiny,
            "device": torch.cuda.get_device_name() if bed.device.type == "cuda" else "cpu",
            "torch": torch.__version__, "facts": bed.facts, "rows": [asdict(row) for row in bed.rows],
        }  # fmt: skip
        self.lines[name] = line
        cut = self.file.exists() and not self.file.read_bytes().endswith(b"\n")
        with self.file.open("a") as file:
            file.write(("\n" if cut else "") + json.dumps(line) + "\n")
        self.write_tables()

    def write_tables(self) -> None:
        """Write OUT/results.md again, if there are results."""
        if self.lines:
            (self.folder / "results.md").write_text(self.markdown())

    def markdown(self) -> str:
        """All results as tables."""
        each = list(self.lines.values())
        machines = sorted({f"{line['device']}, torch {line['torch']}" for line in each})
        text = ["# A lent GPU", "", "; ".join(machines) + ("; tiny sizes" if self.tiny else ""), ""]
        text += ["| part | outcome | seconds |", "|---|---|---:|"]
        text += [f"| {line['part']} | {line['outcome']} | {line['seconds']} |" for line in each]
        rows = [Row(**row) for line in each for row in line["rows"]]
        if rows:
            text += ["", table(rows), "", *(f"- unmask is {said}" for said in comparisons(rows))]
        trained = [line for line in each if FINETUNED in line["facts"]]
        if trained:
            text += ["", "| | epochs | images/s | " + " | ".join([*NEIGHBOURS, FINETUNED]) + " |"]
            text += ["|---|" + "---:|" * (3 + len(NEIGHBOURS))]
        for line in trained:
            names = ["pretraining, epochs", "pretraining, images/s", *NEIGHBOURS, FINETUNED]
            cells = [str(line["facts"].get(name, "-")) for name in names]
            text += [f"| {' | '.join([line['part'], *cells])} |"]
        for line in each:
            if line["facts"]:
                text += ["", f"## {line['part']}", "", "| | |", "|---|---|"]
                text += [f"| {name} | {value} |" for name, value in line["facts"].items()]
        return "\n".join(text) + "\n"


def run(bed: Bed, every: list[Part], results: Results, minutes: float) -> None:
    """All parts that are not done and that fit in the time since the program began."""
    for part in every:
        if results.done(part.name):
            print(f"\n{part.name}: done before")
            continue
        left = remaining(minutes)
        if part.seconds > left:
            print(
                f"\n{part.name}: left for the next call; it may take {part.seconds:.0f} s, {left:.0f} remain"
            )
            continue
        seconds = min(part.seconds * bed.scale.patience, left)
        print(f"\n{part.name} (at most {seconds:.0f} s)", flush=True)
        own, started = replace(bed, rows=[], facts={}), time.monotonic()
        wrong = attempt(seconds, part.measure, own)
        if wrong:
            print(f"    {wrong}")
        results.add(part.name, wrong or "done", time.monotonic() - started, own)


def remaining(minutes: float) -> float:
    """Seconds left of so many minutes since the program began."""
    return 60 * minutes - (time.monotonic() - bare.BEGAN)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument(
        "--data", type=Path, help="a folder made by --prepare; with --prepare, images with classes"
    )
    parser.add_argument(
        "--prepare", type=Path, metavar="FOLDER", help="make the folder to carry, and nothing else"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=9,
        help="for all, from the start of the program; 9 if not given",
    )
    parser.add_argument(
        "--earlier",
        type=Path,
        metavar="FILE",
        help="results.jsonl of a call before, for an OUT that holds none",
    )
    parser.add_argument("--only", nargs="+", help="beginnings of the names of parts")
    parser.add_argument(
        "--tiny", action="store_true", help="only try the program out, also on a CPU"
    )
    options = parser.parse_args()
    if options.prepare:
        if options.data is None:
            parser.error("--prepare needs --data, the images to carry")
        prepare(options.prepare, options.data)
        return
    if options.out is None:
        parser.error("--out, the folder of the results, is missing")
    if options.earlier is not None and not options.earlier.is_file():
        parser.error(
            f"--earlier {options.earlier} is no file; give the results.jsonl of a call before"
        )
    faulthandler.dump_traceback_later(max(0.0, remaining(options.minutes)) + GRACE, exit=True)
    bed = new_bed(options.tiny)
    if options.tiny:
        shorten()
    else:
        bed.scale = replace(bed.scale, batches=BATCHES)
    every = parts(options.tiny, options.data, bed)
    if options.only:
        every = [part for part in every if part.name.startswith(tuple(options.only))]
    ceilings(bed)
    results = Results(options.out, options.tiny, options.earlier)
    run(bed, every, results, options.minutes)
    faulthandler.cancel_dump_traceback_later()
    failed = [part.name for part in every if not results.done(part.name)]
    print(f"\n{options.out / 'results.md'}; not done: {', '.join(failed) or 'nothing'}")


def shorten() -> None:
    """Measure each thing for an instant."""
    from unmask.runs import bench
    from unmask.training import step_cost

    for name in ("_STEP_SECONDS", "_SIZE_SECONDS", "_LOADER_SECONDS", "_TOGETHER_SECONDS"):
        setattr(bench, name, 0.02)
    for name in ("_LONG_ENOUGH", "_CEILING_SECONDS"):
        setattr(step_cost, name, 0.0)


if __name__ == "__main__":
    main()
