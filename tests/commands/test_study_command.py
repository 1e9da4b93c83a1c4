"""`unmask study` as a user types it."""

import re
from pathlib import Path

import pytest
from commands.said import Unmask
from runs import tiny

from unmask.study.ablations import STUDIES

OWN = """
from dataclasses import replace

from unmask.contracts import Size
from unmask.masking import RandomMasking
from unmask.recipes.finetune import FINETUNE_DIGITS
from unmask.recipes.mae import MAE_DIGITS
from unmask.study import Scale, Study, Trial, Variation

base = Trial(recipe=replace(MAE_DIGITS, epochs=2), transfer=replace(FINETUNE_DIGITS, epochs=1))
study = Study(
    title="My own question",
    source="nobody",
    base="most",
    variations=(
        Variation(name="most", change=lambda trial: trial),
        Variation(
            name="half", change=lambda trial: trial.objective(masking=RandomMasking(ratio=0.5))
        ),
    ),
    scores=("knn",),
    scale=Scale(base=base, images=10, about="ten images"),
)
timed = replace(study, scores=())
"""

QUICK = ("--threads", "1", "--workers", "0", "--seeds", "2", "--out", "studies")


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(OWN)
    tiny.write_classes(tmp_path / "data")
    return str(tmp_path / "mine.py")


def test_list_names_every_study_and_its_source(unmask: Unmask) -> None:
    said = unmask("study", "--list")
    for name, study in STUDIES.items():
        source = re.split(r"; | \(", study.source)[0]  # notes on its figures are for the report
        assert f"{name} {study.title} ({source})" in said.out
        assert ", ".join(variation.name for variation in study.variations) in said.out
    assert unmask("study").out == said.out


@pytest.mark.slow
def test_a_study_of_one_s_own_goes_on_where_it_was(
    unmask: Unmask, own: str, tmp_path: Path
) -> None:
    said = unmask("study", f"{own}:study", tmp_path / "data", *QUICK)
    assert said.status == 0
    assert "images 10 for training and 4 for testing, of 2 classes" in said.out
    assert "runs 6 of 6 left" in said.out
    assert "seed 1, half: done knn" in said.out
    assert "| random initialisation |" in said.raw
    assert "| largest class | 50.0 |" in said.raw
    assert "Pairs with different results in the paper" not in said.out, "nothing was published"
    assert "MiB an image" in said.out
    for ending in ("md", "csv", "png"):
        assert Path("studies", f"study.{ending}").exists()
    left = Path("studies", ".4711-study.csv")
    left.touch()
    again = unmask("study", f"{own}:study", tmp_path / "data", *QUICK)
    assert not left.exists()
    assert "runs 0 of 6 left" in again.out
    assert again.raw[again.raw.index("# My own") :] == said.raw[said.raw.index("# My own") :]


@pytest.mark.slow
def test_a_budget_cuts_all_epochs_alike_and_stays(unmask: Unmask, own: str, tmp_path: Path) -> None:
    words = ("study", f"{own}:study", tmp_path / "data", *QUICK[:4], "--out", "studies")
    said = unmask(*words, "--budget", "50%", "--seeds", "1")
    assert "cut to 0.5 of its epochs: 1 of pretraining and 0.5 of fine-tuning" in said.out
    assert "runs 3 of 3 left" in said.out
    assert "one seed does not allow a conclusion" in said.out
    assert "runs 0 of 3 left, about 0 s" in unmask(*words, "--budget", "50%", "--seeds", "1").out
    assert "runs 2 of 3 left" in unmask(*words, "--seeds", "1").out, "drawn weights stay known"


@pytest.mark.slow
def test_a_budget_in_time_stays_what_it_was(
    unmask: Unmask, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast the machine is when the command is given again."""
    words = ("study", f"{own}:study", tmp_path / "data", *QUICK, "--budget", "1h")
    monkeypatch.setattr("unmask.console.studies.expected_seconds", lambda *_: (7000.0, 100.0))
    assert "cut to 0.5 of its epochs" in unmask(*words).out
    monkeypatch.setattr("unmask.console.studies.expected_seconds", lambda *_: (10.0, 1.0))
    said = unmask(*words)
    assert "cut to 0.5 of its epochs" in said.out
    assert "runs 0 of 6 left" in said.out


def test_a_study_of_time_needs_no_images(unmask: Unmask, own: str) -> None:
    said = unmask("study", f"{own}:timed", *QUICK)
    assert said.status == 0
    assert "GFLOP an image" in said.out
    assert "runs" not in said.out.partition("# My own")[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["targets", "data"], "unknown study 'targets'; did you mean 'target'"),
        (["target"], "which images? `unmask study target FOLDER`"),
        (["target", "/nowhere"], "/nowhere does not exist"),
        (["gone.py:study", "data"], "'gone.py:study' is not a study"),
        (["mine.py:base", "data"], "mine.py has no Study called 'base'; it has ['study', 'timed']"),
        (["target", "data", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["target", "data", "--only", "HOOG"], "unknown variation 'HOOG'; did you mean 'HOG'"),
        (
            ["mine.py:study", "data", "--budget", "soon"],
            "--budget must be a time such as 90min or 2h",
        ),
        (["mine.py:study", "data", "--budget", "0%"], "above 0% and at most 100% of the epochs"),
        (["mine.py:study", "data", "--budget", "0.001s"], "less than a hundredth of their epochs"),
        (["mask-sampling", "data", "--image-size", "36"], "squares of 2 x 2: squares of 2 x 2"),
        (["mine.py:study", "data", "--out", "mine.py/here"], "cannot be written"),
    ],
)
def test_bad_input(
    unmask: Unmask, own: str, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(Path(own).parent)
    said = unmask("study", *words, "--threads", "1")
    assert said.status == 1
    assert message in said.err
