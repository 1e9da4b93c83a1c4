"""Every block of README and of the pages in docs runs, on small stand-ins and with short trainings, or has a reason here why not."""

import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from docs.pages import ROOT, fenced, lines_of, run
from docs.stand_ins import everything, make_room, shortened, with_tiny_recipes

import unmask

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

ELSEWHERE = {
    "add-your-own.md": "test_add_your_own.py",
    "places.md": "test_places_page.py",
    "python.md": "test_python_page.py",
    "vectors.md": "test_vectors_page.py",
    **{page.name: "test_tutorials.py" for page in (ROOT / "docs" / "tutorials").glob("*.md")},
}
"""Pages with a test of their own, which runs all of their blocks."""

NOT_RUN = {
    r"python3 -m pip install uv|uv pip install|pip install|python3 -m uv run unmask demo": "needs a network",
    r"docker ": "needs a network and Docker",
    r"torchrun |srun ": "needs several GPUs or machines; tests/runs/test_ranks.py trains in several processes",
    r".* --push ": "needs a network and an account; tests/formats/test_pull.py has a server of its own",
    r".* --track |.* --send ": "needs the packages of trackers; tests/commands/test_track_command.py stands in for them",
    r".* --dtype float16": "tests/commands/test_onnx_command.py runs it",
    r".* objective.target:dalle ": "needs published weights; tests/targets/test_dalle.py has drawn ones",
    r".* --serve": "waits for a browser; tests/page opens it",
    r"unmask page ": "needs the runtime of the page; tests/page serves it",
    r"unmask bench": "measures for a quarter of a minute; tests/commands/test_bench_command.py runs it",
    r".* --protocol capi-logistic": "chooses among many settings; tests/commands/test_dense_command.py runs it",
    r"unmask words": "is run by tests/commands/test_words_command.py",
    r"python scripts/reference_curves.py|python studies/words.py": "takes half an hour or several long runs",
    r"unmask (study|compare) ": "trains for minutes; tests/commands/test_study_command.py and test_compare_command.py run small ones",
    r".*\[--": "shows the form of a command",
}
"""Commands that are not run, with the reason."""

SHOWN = {
    "runs/NAME/": "files of a run",
    "src/unmask/": "files of the package",
    "reading   photos ...": "printed by a command",
    "verdict   gain over": "printed by a command",
    "fine  loss curve": "printed by a command",
    "exported  encoder.onnx": "printed by a command",
    "#!/bin/bash": "a job for Slurm, with torchrun",
}
"""How blocks begin that hold no command."""


def reason_not_to_run(command: str) -> str:
    """Why a command is not run; "" if it is."""
    return next((why for form, why in NOT_RUN.items() if re.match(form, command)), "")


OWN = [page for page in PAGES if page.name not in ELSEWHERE]


def to_run(page: Path) -> list[str]:
    """What a page runs, in order: commands, and blocks of Python, which begin with a line of their own."""
    steps: list[str] = []
    for language, block in fenced(page):
        if language == "python":
            steps.append(f"\n{block}")
        elif not block.startswith(tuple(SHOWN)):
            steps += [line for line in lines_of(block) if not reason_not_to_run(line)]
    return steps


@pytest.mark.parametrize("page", OWN, ids=lambda page: page.stem)
def test_every_block_is_run_or_has_a_reason(page: Path) -> None:
    for language, block in fenced(page):
        if language == "python" or block.startswith(tuple(SHOWN)):
            continue
        for line in lines_of(block):
            assert line.startswith("unmask ") or reason_not_to_run(line), (
                f"{page.name}: nothing runs {line!r}; tag the block, or add it with its reason to NOT_RUN or SHOWN"
            )


def test_reasons_and_tests_elsewhere_are_there() -> None:
    blocks = [block for page in OWN for _, block in fenced(page)]
    lines = [line for block in blocks for line in lines_of(block)]
    for form in NOT_RUN:
        assert any(re.match(form, line) for line in lines), f"no command begins with {form}"
    for start in SHOWN:
        assert any(block.startswith(start) for block in blocks), f"no block begins with {start}"
    for why in NOT_RUN.values():
        for path in re.findall(r"tests/[\w/.]+", why):
            assert (ROOT / path).exists(), path
    for name, test in ELSEWHERE.items():
        text = (Path(__file__).parent / test).read_text()
        assert name in text or "TUTORIALS" in text, f"{test} does not read {name}"


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Made once, by one of the processes that share the tests, and copied for every page: commands write beside them."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "stand_ins"
    made = folder.with_suffix(".made")
    while not made.exists():
        try:
            folder.mkdir()
        except FileExistsError:
            time.sleep(0.2)
            continue
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                everything(np.random.default_rng(0))
            made.touch()
        except BaseException:
            shutil.rmtree(folder)
            raise
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)  # on a busy machine
@pytest.mark.parametrize("page", [page for page in OWN if to_run(page)], ids=lambda page: page.stem)
def test_every_block_works(
    page: Path,
    stand_ins: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(shutil.copytree(stand_ins, tmp_path / "here"))
    monkeypatch.setattr("unmask.console.hardware.cores", lambda: 1)
    monkeypatch.setattr("unmask.console.hardware.free_cores", lambda: 1)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    names: dict[str, Any] = {"unmask": unmask, "batch": images}
    for number, step in enumerate(to_run(page)):
        if step.startswith("\n"):
            for out in re.findall(r'out="(.+?)"', step):
                shutil.rmtree(out, ignore_errors=True)
            with monkeypatch.context() as patch:
                with_tiny_recipes(patch)
                exec(compile(step, str(page), "exec"), names)
            continue
        make_room(step)
        short = shortened(step, f"made/{number}")
        assert run(short, monkeypatch) == 0, (short, capsys.readouterr().err)
