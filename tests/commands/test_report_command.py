"""`unmask report`, and what training writes beside a run: the page, its pictures, and nothing that changes the run."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands.pages import Links, words_of
from commands.said import Unmask
from PIL import Image
from runs import tiny

from unmask.locks import Taken
from unmask.report import live
from unmask.report.looks import Looks, strip_path
from unmask.report.page import LARGEST, _filled
from unmask.runs.folder import RunFolder
from unmask.runs.model import load
from unmask.runs.run import Run


def pretrained(unmask: Unmask, images: Path, recipe: list[str], out: str, *more: str) -> str:
    """The report of a run of the command."""
    said = unmask("pretrain", images, *recipe, "--out", out, *more)
    assert said.status == 0, said.err
    return (Path(out) / "report.html").read_text()


def test_every_run_gets_a_page_that_needs_nothing_else(
    unmask: Unmask, images: Path, recipe: list[str]
) -> None:
    page = pretrained(unmask, images, recipe, "run")
    links = Links(page)
    assert "script" not in links.tags
    assert links.loaded
    assert all(link.startswith("data:image/") for link in links.loaded)
    assert "url(" not in page
    assert "@import" not in page
    assert len(page) < LARGEST
    text = words_of(page)
    for words in (
        "Finished: all 3 steps are done.",
        "recipe",
        "12 images of 3 channels",
        "1 block of 8, patches of 2",
        "unmask pretrain",
        "what the encoder sees",
        "step 3",
        "original",
    ):
        assert words in text, words


def test_each_chart_says_in_words_what_it_shows(
    unmask: Unmask, images: Path, recipe: list[str]
) -> None:
    page = pretrained(unmask, images, recipe, "run")
    charts = re.findall(r"<svg viewBox.*?</svg>", page, flags=re.DOTALL)
    assert len(charts) == 5  # loss, rate, speed, waiting, rank; the images have no classes
    for chart in charts:
        named = re.search(r'aria-labelledby="(\S+) (\S+)"', chart)
        assert named
        assert f'<title id="{named[1]}">' in chart
        assert f'<desc id="{named[2]}">' in chart
    lines = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    said = re.search(r"Loss: (\S+) at step 1, (\S+) at step 3", charts[0])
    assert said
    assert [float(said[1]), float(said[2])] == pytest.approx(
        [lines[0]["loss"], lines[2]["loss"]], rel=1e-3
    )


def test_the_pictures_are_those_of_the_model(
    unmask: Unmask, images: Path, recipe: list[str]
) -> None:
    """The last strip holds what `unmask.load` rebuilds of the same images with the same masks."""
    pretrained(unmask, images, recipe, "run")
    folder = RunFolder("run")
    run, model = Run.read(folder), load("run")
    source = run.data.open("train")
    looks = Looks(run, folder, source)
    questions = looks._questions(model.objective)
    assert len(questions) == 8
    with Image.open(strip_path(folder, 3)) as strip:
        pixels = np.asarray(strip.convert("RGB"))
    side = 64  # eight pixels, each enlarged eight times
    for place, (image, mask) in enumerate(questions):
        rebuilt = model.reconstruct(image, mask)
        left = place * (side + 4)
        drawn = torch.from_numpy(pixels[4:side:8, left + 4 : left + side : 8].copy())
        expected = rebuilt.pasted.clamp(0, 1).mul(255).round().permute(1, 2, 0)
        assert (drawn.float() - expected).abs().max() <= 1


def test_a_run_is_the_same_with_and_without_a_report(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_SECONDS", 0.0)
    monkeypatch.setattr(live, "_SHARE", 0)
    longer = [*recipe[:2], "--epochs", "4", *recipe[4:]]
    pretrained(unmask, images, longer, "with")
    said = unmask("pretrain", images, *longer, "--out", "without", "--no-report")
    assert said.status == 0
    assert not Path("without/report.html").exists()
    assert not Path("without/looks").exists()
    tiny.assert_same_end(RunFolder("with"), RunFolder("without"))


def _untimed(page: str) -> str:
    """A page without the speed of the machine."""
    for name in ("speed", "waiting"):
        page = re.sub(rf'<svg[^>]*"{name}-title.*?</svg>', "", page, flags=re.DOTALL)
    return re.sub(r"[^<]*images/s[^<]*", "", page)


def test_a_resumed_run_makes_the_same_report(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = [*recipe[:2], "--epochs", "4", *recipe[4:]]
    whole = pretrained(unmask, images, longer, "run")
    shutil.move("run", "whole")
    see = live.LiveReport.see

    def stopped(self: Any, progress: Any) -> None:
        see(self, progress)
        if progress.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(live.LiveReport, "see", stopped)
    said = unmask("pretrain", images, *longer, "--out", "run")
    assert said.status == 143
    text = words_of(Path("run/report.html").read_text())
    assert "Not finished: step 6 of 12. Continue with: unmask pretrain --resume run" in text
    monkeypatch.setattr(live.LiveReport, "see", see)
    assert unmask("pretrain", "--resume", "run").status == 0
    assert _untimed(Path("run/report.html").read_text()) == _untimed(whole)
    for strip in Path("whole/looks").iterdir():
        assert (Path("run/looks") / strip.name).read_bytes() == strip.read_bytes()


def test_a_failing_report_never_stops_training(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no ink")

    monkeypatch.setattr(live, "write_page", broken)
    monkeypatch.setattr(live.Looks, "take", broken)
    said = unmask("pretrain", images, *recipe, "--out", "run")
    assert said.status == 0
    assert said.err.count("the report has no more pictures (no ink)") == 1
    assert "report.html could not be written (no ink); training is not affected" in said.err
    tiny.newest(RunFolder("run"))


def test_the_page_again_from_the_folder(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    page = pretrained(unmask, images, recipe, "run")
    Path("run/report.html").unlink()
    said = unmask("report", "run")
    assert said.status == 0
    assert "written: run/report.html" in said.out
    assert Path("run/report.html").read_text() == page
    assert unmask("report", "run", "--out", "pages/one.html").status == 0
    assert Path("pages/one.html").read_text() == page


def test_a_page_leaves_out_pictures_rather_than_grow(
    unmask: Unmask, images: Path, recipe: list[str]
) -> None:
    pretrained(unmask, images, recipe, "run")
    noise = np.random.default_rng(0)
    for number in range(8):
        pixels = noise.integers(0, 255, (900, 900, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"run/noise-{number}.png")
    assert unmask("report", "run").status == 0
    page = Path("run/report.html").read_text()
    shown = page.count('alt="noise-')
    assert 1 <= shown < 8
    assert LARGEST / 2 < len(page.encode()) < LARGEST
    assert f"{8 - shown} pictures left out, so that this page stays below 3 MB" in words_of(page)


def test_an_evaluation_is_shown_with_its_command(
    unmask: Unmask, classes: Path, recipe: list[str]
) -> None:
    pretrained(unmask, classes, recipe, "run")
    said = unmask("evaluate", "run", classes, "--seeds", "1")
    assert said.status == 0
    assert f"written: {Path('run/report.html')}" in said.out
    text = words_of(Path("run/report.html").read_text())
    (scores,) = Path("run/evaluations").glob("*.json")
    verdicts = json.loads(scores.read_text())["verdicts"]
    assert {verdict["control"] for verdict in verdicts} == {"random initialisation", "raw pixels"}
    for verdict in verdicts:
        assert verdict["words"] in text
    assert f"unmask evaluate run {classes} --seeds 1" in text
    assert "random initialisation" in text


def test_names_of_files_cannot_break_the_page(unmask: Unmask, trained: RunFolder) -> None:
    shutil.copytree(trained.root, "<i>run")
    Path("<i>run/set_aside.csv").write_text("file,reason\n<script>alert(1)</script>,&lt; \udce9\n", "utf-8", "surrogateescape")  # fmt: skip
    assert unmask("report", "<i>run").status == 0
    page = Path("<i>run/report.html").read_text()
    assert {"script", "i"}.isdisjoint(Links(page).tags)
    assert "1 images (7.7%) could not be used" in words_of(page)


def test_several_runs_side_by_side(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    pretrained(unmask, images, recipe, "one")
    pretrained(unmask, images, recipe, "two", "--seed", "3", "--optimizer.weight-decay", "0.2")
    said = unmask("report", "one", "two", "--out", "both.html")
    assert said.status == 0, said.err
    page = Path("both.html").read_text()
    differ = dict(
        re.findall(r'<tr class="differs"><th[^>]*><code>(.*?)</code></th>(.*?)</tr>', page)
    )
    assert set(differ) == {"seed", "optimizer.weight_decay"}
    assert re.findall("<td>(.*?)</td>", differ["seed"]) == ["0", "3"]
    assert re.findall("<td>(.*?)</td>", differ["optimizer.weight_decay"]) == ["0.05", "0.2"]
    same = page[page.index("Settings that are the same") :]
    assert "objective.masking.ratio" in same
    assert all(link.startswith("data:image/") for link in Links(page).loaded)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "which run? `unmask report runs/NAME`"),
        (["nowhere"], "there is no file or folder nowhere; give the folder of a run"),
        (["empty"], "empty has no log yet (no line in log.jsonl), so there is nothing to report"),
        (["{trained}", "--out", "."], "it is a folder"),
        (
            ["{trained}", "--out", "r.txt"],
            "--out r.txt: the report is a page; give it the ending .html",
        ),
    ],
)
def test_wrong_usage(
    unmask: Unmask, trained: RunFolder, images: Path, words: list[str], answer: str
) -> None:
    tiny.begin(Path("empty"), images)
    said = unmask("report", *[word.format(trained=trained.root) for word in words])
    assert said.status == 1
    assert answer in said.err


def test_a_run_that_trains_now_is_not_called_stopped(
    unmask: Unmask, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(_: Path) -> Any:
        raise Taken("process 1 on there")

    folder = tiny.begin(Path("run"), images)
    tiny.one_step(folder)
    with (
        monkeypatch.context() as patch
    ):  # a process may lock a file twice, so the other one is only claimed
        patch.setattr("unmask.runs.folder.locked", taken)
        assert unmask("report", "run").status == 0
    assert "In training: step 1 of 6" in words_of(folder.report.read_text())
    assert unmask("report", "run").status == 0
    assert "Not finished: step 1 of 6" in words_of(folder.report.read_text())


def test_a_loss_that_is_not_finite_is_the_first_line(unmask: Unmask, images: Path) -> None:
    folder = tiny.finished_run(Path("run"), images)
    with folder.log.open("a") as log:
        log.write('{"step": 7, "loss": NaN, "learning_rate": 0.1}\n')
    assert unmask("report", "run").status == 0
    assert "Diverged: the loss of step 7 is not finite" in words_of(folder.report.read_text())


def test_a_page_takes_names_that_are_not_valid_text() -> None:
    assert _filled(lambda _: "f\udce4lsch") == "f\udce4lsch"
