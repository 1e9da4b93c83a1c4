"""Each command once as users start it: `python -m unmask COMMAND ...`, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from geo import scenes
from runs import tiny, tiny_transfer

from unmask.cli import COMMANDS
from unmask.commands import embed
from unmask.page.runtime import FILES
from unmask.runs.folder import RunFolder

QUICK = "--threads 1 --workers 0"
LINES = {
    "demo": "--epochs 0.1 --seeds 1 --out shown",
    "pretrain": f"{{images}} --recipe {tiny.__file__}:RECIPE --epochs 1 {QUICK} --out run",
    "reconstruct": "{trained} {images}/00.png --out sheet.png",
    "finetune": f"scratch {{classes}} --recipe {tiny_transfer.__file__}:TRANSFER {QUICK} --out run",
    "embed": "{trained} {images} --out vectors --threads 1",
    "search": "{vectors} {images}/00.png --threads 1",
    "locate": "{places} {images}/00.png --ground-size 60 --turns 4 --threads 1",
    "duplicates": "{vectors} --threads 1",
    "odd": "{trained} {images} {classes} --out odd --threads 1",
    "predict": "{tuned} {classes}/dogs/03.png",
    "evaluate": "{trained} {classes} --seeds 1",
    "report": "{trained} --out page.html",
    "tokenizer": f"{{images}} --recipe {tiny.__file__}:TOKENIZING {QUICK} --out tok",
    "words": "--steps 2 --threads 1 --embed-dim 12 --depth 1 --num-heads 2",
    "doctor": "{trained}",
    "bench": "--recipe mae-digits --micro-batch 2 --threads 1",
    "study": "--list",
    "compare": f"digits --methods mae --encoders xs4 --image-size 8 --epochs 0.5 --images 40 "
    f"--labels 1 --tuning-steps 1 --seeds 1 {QUICK}",
    "pack": "{images} packed --workers 0",
    "convert": "{trained} weights --to timm",
    "page": "{trained} --out page --samples 1 --threads 1 --runtime {runtime}",
    "completion": "--shell bash",
}
"""What follows the command."""


@pytest.fixture(scope="module")
def tuned(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tiny_transfer.begin(tmp_path_factory.mktemp("smoke") / "tuned", classes)
    tiny_transfer.go_on(folder)
    return folder


@pytest.fixture(scope="module")
def vectors(classes: Path, trained: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smoke") / "vectors"
    embed.main([str(trained.root), str(classes), "--out", str(folder), "--threads", "1"])
    return folder


@pytest.fixture(scope="module")
def places(trained: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("smoke")
    picture = scenes.with_world_file(root / "map.png")
    words = ["--out", str(root / "places"), "--tile-metres", "30", "--threads", "1"]
    embed.main([str(trained.root), str(picture), *words])
    return root / "places"


def test_every_command_is_started_here() -> None:
    assert LINES.keys() == COMMANDS.keys()


@pytest.mark.slow  # importing torch alone takes seconds
@pytest.mark.timeout(660)
@pytest.mark.parametrize("command", COMMANDS)
def test_it_ends_well(
    command: str,
    tmp_path: Path,
    images: Path,
    classes: Path,
    trained: RunFolder,
    tuned: RunFolder,
    vectors: Path,
    places: Path,
) -> None:
    for name in FILES:  # npm is not called here
        (tmp_path / name).touch()
    paths = {
        "runtime": tmp_path,
        "images": images,
        "classes": classes,
        "trained": trained.root,
        "tuned": tuned.root,
        "vectors": vectors,
        "places": places,
    }
    words = [word.format(**paths) for word in LINES[command].split()]
    tests = Path(__file__).parent.parent
    ended = subprocess.run(
        [sys.executable, "-m", "unmask", command, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout.strip()
