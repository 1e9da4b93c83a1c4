"""`unmask doctor`: a run, images, and words that are neither."""

import json
import shutil
from pathlib import Path

import pytest
from commands.said import Unmask

from unmask.console.plan import warn_of_batch
from unmask.doctor import reference
from unmask.doctor.reference import curve_of
from unmask.recipes import find_recipe
from unmask.recipes.by_time import with_more_steps
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.training.logbook import read_log


def test_a_run(unmask: Unmask, trained: RunFolder) -> None:
    said = unmask("doctor", trained.root)
    assert said.status == 0
    for about in ("positions", "guesses", "gradient", "divergence", "learning rate", "loss"):
        assert f"{about}" in said.out
    assert "too early to tell" in said.out


def test_json_has_every_finding(unmask: Unmask, trained: RunFolder) -> None:
    findings = json.loads(unmask("doctor", trained.root, "--json").raw)
    assert {"severity", "about", "seen", "why", "change", "sure"} == set(findings[0])
    severities = [finding["severity"] for finding in findings]
    assert severities == sorted(severities, key=["fault", "warning", "note", "fine"].index)


def test_images_for_a_recipe(unmask: Unmask, images: Path) -> None:
    said = unmask("doctor", images, "--recipe", "mae-digits")
    assert said.status == 0
    assert "looking at 12 images for the recipe mae-digits" in said.err
    assert "each batch holds images several times" in said.out
    assert "6 checks: 1 warning" in said.out


def test_unreadable_images_are_a_fault(unmask: Unmask, images: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(images, tmp_path / "copy")
    whole = sorted(copy.rglob("*.png"))
    count = len(whole)
    assert f"{count} of {count} images were read, and all can be" in unmask("doctor", copy).out
    (copy / "empty.png").write_bytes(b"")
    (copy / "text.png").write_text("no picture")
    (copy / "cut.png").write_bytes(whole[0].read_bytes()[:-30])
    said = unmask("doctor", copy)
    assert said.status == 0, said.err
    assert said.out.startswith("fault readable images: 2 files are unusable by their headers, ")
    assert f"and of {count + 1} of {count + 1} images that were read 1 are damaged" in said.out
    assert "the first is empty.png: " in said.out


def test_a_run_whose_images_are_gone(unmask: Unmask, trained: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained.root, copy)
    spec = json.loads((copy / "spec.json").read_text())
    spec["data"]["path"] = str(tmp_path / "gone")
    (copy / "spec.json").write_text(json.dumps(spec))
    said = unmask("doctor", copy)
    assert said.status == 0
    assert "its images are not looked at" in said.err
    assert "positions" in said.out


def test_words_that_are_neither(unmask: Unmask, trained: RunFolder) -> None:
    assert "unmask doctor runs/NAME" in unmask("doctor").err
    assert "does not exist" in unmask("doctor", "nothing").err
    said = unmask("doctor", trained.root, "--recipe", "mae-b16")
    assert said.status == 1
    assert "leave out --recipe" in said.err


def test_batches_are_those_that_pretraining_takes(unmask: Unmask, images: Path) -> None:
    assert "12 images in batches of 12" in unmask("doctor", images).out


@pytest.mark.parametrize("name", ["mae-digits", "mae-ti16", "dino-ti4"])
def test_one_batch_is_advised_warned_of_and_taken(
    unmask: Unmask, images: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = find_recipe(name)
    advice = f"--batch-size {with_more_steps(recipe, 12).batch_size}"
    assert f"change: {advice} " in unmask("doctor", images, "--recipe", name).out
    warn_of_batch(recipe, 12)
    assert f"{advice} would suit them" in " ".join(capsys.readouterr().out.split())


def test_the_loss_beside_those_of_other_runs(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = [*recipe[: recipe.index("--epochs")], *recipe[recipe.index("--epochs") + 2 :]]
    assert unmask("pretrain", images, *longer, "--epochs", "20", "--out", "run").status == 0
    assert "loss curve" not in unmask("doctor", "run").out  # no reference is so small
    folder = RunFolder("run")
    own = curve_of(Run.read(folder), read_log(folder.log))
    assert own is not None
    monkeypatch.setattr(reference, "references", lambda: [own] * 4)
    said = unmask("doctor", "run").out
    assert f"loss curve: {own.loss[-1]:.3g} after 100% of the run; 4 reference runs" in said
