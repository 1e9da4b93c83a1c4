"""Kills commands with SIGKILL at random moments until they end, and compares what they leave with an undisturbed run.

    python benchmarks/kills.py --kills 20 --out benchmarks/results/kills.json

Each job is one command line on small images: pretraining with 0 and 2 loading processes, DINO, MoCo v3, latent targets,
fine-tuning, a tokenizer, packing, a study, and an evaluation that keeps its features. A process is killed at a moment
drawn from the duration of the undisturbed run, and the command that `unmask` prints for it is run next. Reported for each
job: kills, starts, whether the results are equal bit for bit, files that the undisturbed run does not have, and processes
that outlive a killed one by more than five seconds. PyTorch is imported once; each start is a fork.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forking import started
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from unmask.contracts import Size
from unmask.encoders import ViT
from unmask.masking import RandomMasking
from unmask.recipes import RECIPES
from unmask.recipes.finetune import FINETUNE_TI4
from unmask.recipes.tokenizer import TOKENIZER_TI4
from unmask.study.study import Scale, Study, Trial, Variation
from unmask.training.logbook import TIMES, read_log

_OUTLIVES = 5.0  # seconds that a loading process may take to notice that its parent is gone
_SIZE = Size(16, 16)
_SMALL: dict[str, Any] = {
    "encoder": ViT(patch_size=4, embed_dim=32, depth=1, num_heads=2),
    "image_size": _SIZE,
    "batch_size": 16,
}
_MEASURED = {"seconds", "hours", "created", "time", "features"} | set(TIMES)
"""Fields that a clock fills, and whether an earlier start had kept the features."""


def _small(name: str, **changes: Any) -> Any:
    return replace(RECIPES[name].recipe, **_SMALL | {"epochs": 8.0} | changes)


MAE = _small("mae-ti4")
DINO = _small("dino-ti4", epochs=3.0)
MOCO3 = _small("moco3-ti4", epochs=4.0)
LATENT = _small(
    "latent-ti4",
    epochs=4.0,
    objective=replace(RECIPES["latent-ti4"].recipe.objective, target_blocks=1),
)
CLASSIFIER = replace(FINETUNE_TI4, **_SMALL, epochs=6.0)
TOKENIZER = replace(TOKENIZER_TI4, image_size=_SIZE, batch_size=16, epochs=4.0)
STUDY = Study(
    title="Half or most",
    source="nobody",
    base="most",
    variations=(
        Variation(name="most", change=lambda trial: trial),
        Variation(
            name="half", change=lambda trial: trial.objective(masking=RandomMasking(ratio=0.5))
        ),
    ),
    scores=("knn",),
    scale=Scale(
        base=Trial(recipe=replace(MAE, epochs=2.0), transfer=CLASSIFIER),
        images=100,
        about="100 images",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command line, and how to go on after a kill."""

    words: tuple[str, ...]
    """The command line; it writes into `out`."""

    resume: bool = True
    """Whether a started run goes on with --resume; else the same command is run again."""


def _jobs(workers: int = 0) -> dict[str, Job]:
    here = Path(__file__).resolve()
    quick = (
        "--threads",
        "1",
        "--workers",
        str(workers),
        "--out",
        "out",
        "--save-every-minutes",
        "0.01",
    )

    def pretrain(recipe: str, *words: str) -> Job:
        return Job(words=("pretrain", "photos", "--recipe", f"{here}:{recipe}", *quick, *words))

    return {
        "pretrain": pretrain("MAE"),
        "pretrain, 2 workers": pretrain("MAE", "--workers", "2"),
        "dino": pretrain("DINO"),
        "moco3": pretrain("MOCO3"),
        "latent": pretrain("LATENT"),
        "finetune": Job(
            words=("finetune", "encoder", "photos", "--recipe", f"{here}:CLASSIFIER", *quick)
        ),
        "tokenizer": Job(words=("tokenizer", "photos", "--recipe", f"{here}:TOKENIZER", *quick)),
        "pack, 2 workers": Job(
            words=("pack", "photos", "out", "--workers", "2", "--shard-mib", "1"), resume=False
        ),
        "study": Job(
            words=(
                "study", f"{here}:STUDY", "photos", "--seeds", "2", "--threads", "1", "--workers", "0", "--out", "out"
            ),
            resume=False,
        ),
        "evaluate": Job(
            words=("evaluate", "encoder", "photos", "--protocol", "logistic", "--json"), resume=False
        ),
    }  # fmt: skip


def _write_photos(folder: Path) -> None:
    """Digits as PNG in class folders, with noise so that shards have some size."""
    digits, chance = load_digits(), np.random.default_rng(0)
    for number in range(300):
        pixels = np.kron(digits.images[number], np.ones((32, 32))) * 15 + chance.integers(
            0, 16, (256, 256)
        )
        path = folder / str(digits.target[number]) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)


def _ended_within(child: int, seconds: float) -> int | None:
    """The wait status of a child; None if it still runs after this time."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > until:
            return None
        time.sleep(0.005)


def _orphans(group: int) -> int:
    """Processes of a killed one that still run after five seconds; they are ended then."""
    until = time.monotonic() + _OUTLIVES
    while members := _members(group):
        if time.monotonic() > until:
            os.killpg(group, signal.SIGKILL)
            return len(members)
        time.sleep(0.02)
    return 0


def _members(group: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def _next(job: Job) -> tuple[str, ...]:
    """The command to run: the first one, or --resume if it has started a run."""
    if job.resume and Path("out/spec.json").exists():
        return (job.words[0], "--resume", "out")
    return job.words


def _content(folder: Path) -> dict[str, str]:
    """A hash of every file that must be equal; files that hold times are read without them."""
    found: dict[str, str] = {}
    saved = sorted(folder.glob("**/checkpoints/step-*"))
    newest = {step.parent: step for step in saved}  # others were saved when the clock said so
    older = {path for step in saved if step != newest[step.parent] for path in step.rglob("*")}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or path.name in ("lock", ".lock") or path in older:
            continue
        if path.name == "log.jsonl":
            content: Any = [
                {k: v for k, v in line.items() if k not in _MEASURED} for line in read_log(path)
            ]
        elif path.suffix == ".json" and path.name != "costs.json":
            content = _timeless(json.loads(path.read_text()))
        elif path.suffix in (
            ".arrow",
            ".png",
            ".md",
            ".csv",
            ".jsonl",
            ".json",
        ):  # with times of change, or of the run
            content = "present"
        elif path.suffix == ".safetensors":
            tensors = load_file(path)
            content = {
                key: hashlib.sha256(tensors[key].numpy().tobytes()).hexdigest() for key in tensors
            }
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return found


def _timeless(content: Any) -> Any:
    if isinstance(content, dict):
        return {k: _timeless(v) for k, v in content.items() if k not in _MEASURED}
    return [_timeless(value) for value in content] if isinstance(content, list) else content


def _answers(said: Path) -> str:
    """The numbers that an evaluation printed last."""
    text = said.read_text()
    rows = json.loads(text[text.rindex("\n{") if "\n{" in text else text.index("{") :])
    return json.dumps(_timeless(rows), sort_keys=True)


def _result(job: Job, said: Path) -> dict[str, str]:
    if job.words[0] == "evaluate":
        kept = {name: "kept" for name in _content(Path("encoder/features"))}
        return {"answers": _answers(said), **kept}
    return _content(Path("out"))


def _clear(job: Job) -> None:
    shutil.rmtree("out", ignore_errors=True)
    if job.words[0] == "evaluate":
        shutil.rmtree("encoder/features", ignore_errors=True)
        shutil.rmtree("encoder/evaluations", ignore_errors=True)


def _undisturbed(job: Job, said: Path) -> tuple[dict[str, str], float]:
    """The results of the command when nobody kills it, and its seconds."""
    _clear(job)
    began = time.monotonic()
    status = _ended_within(started(job.words, said), 600)
    assert status == 0, f"{' '.join(job.words)} failed: {said.read_text()[-2000:]}"
    return _result(job, said), time.monotonic() - began


def _killed(job: Job, kills: int, chance: random.Random) -> dict[str, Any]:
    """Kill the command so many times, each cycle until it ends, and compare each end."""
    expected, seconds = _undisturbed(job, Path("said-whole"))
    done = starts = cycles = orphans = 0
    different: set[str] = set()
    surplus: set[str] = set()
    failures: list[str] = []
    while done < kills:
        _clear(job)
        cycles += 1
        said = Path(f"said-{cycles}")
        ended = False
        while not ended:
            said.unlink(missing_ok=True)
            child = started(_next(job), said)
            starts += 1
            wait = chance.uniform(0, seconds * 0.9) if done < kills else 600.0
            status = _ended_within(child, wait)
            if status is None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                orphans += _orphans(child)
                done += 1
            elif status:
                failures.append(said.read_text()[-500:])
                ended = True
            else:
                ended = True
        found = {} if failures else _result(job, said)
        different |= {name for name in expected if found.get(name) != expected[name]}
        surplus |= found.keys() - expected.keys()
    return {
        "kills": done,
        "starts": starts,
        "cycles": cycles,
        "seconds_undisturbed": round(seconds, 2),
        "equal": not different and not failures,
        "different": sorted(different)[:5],
        "left_over": sorted(surplus)[:5],
        "orphans": orphans,
        "failures": failures[:3],
    }


def main() -> None:
    """Run all jobs and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20, help="kills of each job")
    parser.add_argument("--jobs", default=";".join(_jobs()), help="names of jobs, with semicolons")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    out = args.out and args.out.absolute()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        _write_photos(Path("photos"))
        encoder = started((*_jobs()["pretrain"].words, "--out", "encoder"), Path("said-encoder"))
        assert _ended_within(encoder, 600) == 0, Path("said-encoder").read_text()
        for number, (name, job) in enumerate(_jobs().items()):
            if name in args.jobs.split(";"):
                results[name] = _killed(job, args.kills, random.Random(f"{args.seed} {number}"))
                print(f"{name}: {json.dumps(results[name])}", flush=True)
                if out:
                    out.write_text(
                        json.dumps({"command": " ".join(sys.argv), "jobs": results}, indent=1)
                        + "\n"
                    )
        cached = [str(path) for path in Path("cache").rglob(".*") if path.is_file()]
        print(f"left in the cache: {cached}")


if __name__ == "__main__":
    main()
