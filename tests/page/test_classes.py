"""The tab of classifiers in a real Chromium: the same probabilities as Python."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from page.conftest import Open, Served, check_layout, write_site
from PIL import Image
from runs import tiny, tiny_transfer

import unmask
from unmask.commands import finetune
from unmask.data.views import CenterCrop, MarginCrop, RandomCrop, SquashedImage
from unmask.errors import SettingsError
from unmask.page.classes import classes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

QUICK = ["--epochs", "1", "--threads", "1", "--workers", "0", "--batch-size", "4"]


class Tuned(NamedTuple):
    """A page with a classifier."""

    folder: Path
    run: Path
    images: Path
    index: dict[str, Any]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    root = tmp_path_factory.mktemp("classes")
    images = tiny.write_classes(root / "animals", ("cats", "dogs", "owls"))
    for file in sorted(images.rglob("*.png")):  # samples are known by their names alone
        file.rename(file.with_name(f"{file.parent.name}-{file.name}"))
    recipe = replace(tiny_transfer.TRANSFER, test_views=MarginCrop())
    run = tiny_transfer.begin(root / "tuned", images, recipe)
    tiny_transfer.go_on(run)
    index = write_site(root / "site", run.root, "--samples", 4)
    return Tuned(root / "site", run.root, images, index)


def probabilities(served: Served) -> dict[str, float]:
    """By class, in the order of the table."""
    return dict(
        served.page.evaluate(
            """() => [...document.querySelectorAll('.answer tr')].map((row) =>
              [row.querySelector('th').textContent, Number(row.querySelector('[data-value]').dataset.value)])"""
        )
    )


def ramps(file: Path, height: int, width: int) -> Path:
    """A smooth picture, which all ways of resizing show much alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    levels = np.stack([2 * rows + columns, 3 * columns, 255 - 2 * rows], -1).astype(np.uint8)
    Image.fromarray(levels).save(file)
    return file


def test_a_sample_has_the_probabilities_of_python(tuned: Tuned, opened: Open) -> None:
    model = unmask.load(tuned.run)
    assert len(tuned.index["samples"]) == 4
    for number, sample in enumerate(tuned.index["samples"]):
        served = opened(tuned.folder, f"#sample={number}").shown()
        (guess,) = model.predict(next(tuned.images.rglob(sample["name"])))
        ours = guess.probabilities
        shown = probabilities(served)
        assert shown == pytest.approx(ours, abs=1e-4)
        assert list(shown) == list(ours)
        assert served.page.inner_text(".verdict") == guess.chosen[0]


def test_a_picture_of_ones_own(tuned: Tuned, opened: Open, tmp_path: Path) -> None:
    """What the browser decodes, resizes and crops is near to what Python sees."""
    ramps(tmp_path / "own.png", 48, 64)
    served = opened(tuned.folder).shown()
    served.page.set_input_files("#classes-file", tmp_path / "own.png")
    served.page.wait_for_function("() => document.querySelector('#classes-sample').value === 'own'")
    served.shown()
    model = unmask.load(tuned.run)
    view = MarginCrop()(model.read(tmp_path / "own.png"), model.spec.image_size)[0]
    ours = view.permute(1, 2, 0).numpy()
    shown = np.array(served.pixels("picture")).reshape(ours.shape)
    assert np.abs(shown - ours.astype(int)).max() <= 8
    (guess,) = model.predict(tmp_path / "own.png")
    assert probabilities(served) == pytest.approx(guess.probabilities, abs=0.05)
    served.page.set_input_files("#classes-file", {"name": "a.txt", "mimeType": "", "buffer": b"a"})
    served.page.wait_for_function(
        "() => document.querySelector('.message:not(#message)').textContent"
    )
    assert "a.txt is not a picture that this browser can read" in served.message()


@pytest.mark.parametrize("views", [SquashedImage(), CenterCrop()], ids=["squashed", "centre"])
def test_a_wide_picture_by_other_views(views: Any, opened: Open, tmp_path: Path) -> None:
    images = tiny.write_classes(tmp_path / "animals")
    recipe = replace(tiny_transfer.TRANSFER, test_views=views)
    run = tiny_transfer.begin(tmp_path / "tuned", images, recipe)
    tiny_transfer.go_on(run)
    write_site(tmp_path / "site", run.root, "--samples", 1)
    served = opened(tmp_path / "site").shown()
    wide = ramps(tmp_path / "wide.png", 16, 80)
    served.page.set_input_files("#classes-file", wide)
    served.page.wait_for_function("() => document.querySelector('#classes-sample').value === 'own'")
    served.shown()
    model = unmask.load(run.root)
    ours = views(model.read(wide), model.spec.image_size)[0].permute(1, 2, 0).numpy()
    shown = np.array(served.pixels("picture")).reshape(ours.shape)
    assert np.abs(shown - ours.astype(int)).max() <= 8


def test_views_that_a_page_does_not_make(tmp_path: Path) -> None:
    images = tiny.write_classes(tmp_path / "animals")
    recipe = replace(tiny_transfer.TRANSFER, test_views=RandomCrop())
    run = tiny_transfer.begin(tmp_path / "tuned", images, recipe)
    with pytest.raises(SettingsError, match=r"tested with views by RandomCrop, and a page makes"):
        classes(str(run.root), "tuned")


def test_a_slow_file_does_not_replace_a_newer_choice(
    tuned: Tuned, opened: Open, tmp_path: Path
) -> None:
    served = opened(tuned.folder, "#sample=0").shown()
    served.page.evaluate(
        """() => {
          const read = Blob.prototype.arrayBuffer;
          Blob.prototype.arrayBuffer = async function () {
            await new Promise((go) => { globalThis.release = go; });
            return read.call(this);
          };
        }"""
    )
    served.page.set_input_files("#classes-file", ramps(tmp_path / "own.png", 48, 64))
    served.page.wait_for_function("() => globalThis.release")
    served.page.select_option("#classes-sample", "1")
    served.page.wait_for_function("() => location.hash.includes('sample=1')")
    before = probabilities(served.shown())
    served.page.evaluate("() => { release(); return new Promise((go) => setTimeout(go, 500)); }")
    assert served.page.input_value("#classes-sample") == "1"
    assert probabilities(served.shown()) == before


def test_a_sample_that_one_of_two_models_lacks(tuned: Tuned, opened: Open, tmp_path: Path) -> None:
    """It says so in its own section, without an earlier answer; the other one answers."""
    recipe = replace(tiny_transfer.TRANSFER, test_views=SquashedImage())
    other = tiny_transfer.begin(tmp_path / "other", tuned.images, recipe)
    tiny_transfer.go_on(other)
    index = write_site(tmp_path / "site", tuned.run, other.root, "--samples", 2)
    views = index["samples"][1]["views"]
    assert views["0"]["file"] != views["1"]["file"]
    (tmp_path / "site" / views["0"]["file"]).unlink()
    served = opened(tmp_path / "site", "#sample=0").shown()
    assert served.page.locator(".answer:visible").count() == 2
    served.page.select_option("#classes-sample", "1")
    served.page.wait_for_function("() => location.hash.includes('sample=1')")
    served.shown()
    first, second = served.page.locator("main section:visible").all()
    assert f"{views['0']['file']} is missing or incomplete" in first.inner_text()
    assert not first.locator(".answer").is_visible()
    verdict = second.locator(".verdict").inner_text()
    assert served.page.inner_text("#panel-classes .spoken") == f"other: {verdict}"


def test_several_labels(opened: Open, tmp_path: Path) -> None:
    """Each class has a probability of its own, and its own threshold."""
    tiny.write_images(tmp_path / "images", 12)
    rows = [f"{n:02}.png,{'sea;sky' if n % 3 else 'sea'}" for n in range(12)]
    (tmp_path / "labels.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    words = [*QUICK, "--labels-file", str(tmp_path / "labels.csv")]
    run = tiny.finished_run(tmp_path / "run", tmp_path / "images")
    out = ["--out", str(tmp_path / "tuned")]
    assert finetune.main([str(run.root), str(tmp_path / "images"), *words, *out]) == 0
    index = write_site(tmp_path / "site", tmp_path / "tuned", "--samples", 2)
    model = unmask.load(tmp_path / "tuned")
    for number, sample in enumerate(index["samples"]):
        served = opened(tmp_path / "site", f"#sample={number}").shown()
        (guess,) = model.predict(tmp_path / "images" / sample["name"])
        assert probabilities(served) == pytest.approx(guess.probabilities, abs=1e-4)
        assert served.page.inner_text(".verdict") == (
            ", ".join(guess.chosen) or "none of the classes"
        )
        assert "a picture may have several" in served.page.inner_text("caption")


def test_a_damaged_model_is_said(tuned: Tuned, opened: Open, tmp_path: Path) -> None:
    shutil.copytree(tuned.folder, tmp_path / "site")
    (file,) = (tmp_path / "site" / "models").iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    page = opened(tmp_path / "site").page
    page.wait_for_function("() => document.body.textContent.includes('is incomplete or from')")


@pytest.mark.parametrize("width", [1280, 360])
def test_layout_and_labels(tuned: Tuned, opened: Open, width: int) -> None:
    check_layout(opened(tuned.folder).shown(), width)


def test_tabs(tuned: Tuned, opened: Open, tmp_path: Path) -> None:
    """One page with a studio and a classifier: mouse, keyboard and links change the tab."""
    run = tiny.finished_run(tmp_path / "run", tuned.images)
    index = write_site(tmp_path / "site", run.root, tuned.run, "--samples", 2)
    assert [len(sample["views"]) for sample in index["samples"]] == [2, 2]
    served = opened(tmp_path / "site").shown()
    page = served.page
    assert page.inner_text("h1") == "Mask studio"
    assert not page.is_visible("#panel-classes")
    assert sum("models/" in url for url in served.requests) == 1  # the other one is not needed yet
    page.focus("#tab-studio")
    page.keyboard.press("ArrowRight")
    served.shown()
    assert page.inner_text("h1") == "Classes"
    assert page.evaluate("document.activeElement.id") == "tab-classes"
    assert "tab=classes&sample=0" in page.url
    page.select_option("#classes-sample", "1")
    page.wait_for_function("() => location.hash.includes('sample=1')")
    link = page.url.partition("#")[2]
    served.drop(ramps(tmp_path / "own.png", 48, 64))  # for the tab that is open
    page.wait_for_function("() => document.querySelector('#classes-sample').value === 'own'")
    assert page.input_value("#sample") == "0"
    page.click("#tab-studio")
    assert "tab=studio" in page.url
    assert page.is_visible("canvas.paint")
    other = opened(tmp_path / "site", f"#{link}").shown()
    assert other.page.inner_text("h1") == "Classes"
    assert other.page.input_value("#classes-sample") == "1"
    check_layout(other, 360)
