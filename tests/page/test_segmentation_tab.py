"""The tab of segmentations in a real Chromium: the class maps of Python."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from commands.test_geotiff_command import HEIGHT, WIDTH, scene
from jaxtyping import Int
from numpy.typing import NDArray
from page.conftest import Open, Served, check_layout, write_site
from PIL import Image
from reference.dense import write_map
from runs import tiny_transfer

import unmask
from unmask.commands import finetune
from unmask.contracts import Size
from unmask.data.mixing import UNMIXED
from unmask.data.noise import Noise
from unmask.data.scaled_views import FittedImage, ScaleJitter, WholeImage
from unmask.data.views import MarginCrop, SquashedImage
from unmask.errors import SettingsError
from unmask.page.segmentation import MOST_VALUES, MOST_WINDOWS, check_size, segmentation
from unmask.pictures.colors import class_colors
from unmask.recipes.finetune import Transfer
from unmask.tasks import Segment
from unmask.tasks.sliding import corners
from unmask.tasks.upernet import UperNet
from unmask.training.optimizers import AdamW
from unmask.training.schedules import WarmupCosine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAMES = "red", "green", "blue"
RECIPE = replace(
    tiny_transfer.TRANSFER,
    task=Segment(head=UperNet(channels=8, dropout=0.0), stride=0.6),
    views=ScaleJitter(least=0.5, most=1.5, side="shortest"),
    test_views=FittedImage(side="shortest"),
    mixing=UNMIXED,
    noise=Noise(),
    optimizer=AdamW(beta2=0.99),
    schedule=WarmupCosine(base_lr=0.5, warmup_epochs=1),
    image_size=Size(16, 24),
    batch_size=4,
    epochs=8,
)


class Tuned(NamedTuple):
    """A page with two segmentations of the same pictures."""

    folder: Path
    runs: tuple[Path, ...]
    images: Path
    json: dict[str, Any]
    """What page.json says."""


def write_coloured(root: Path) -> Path:
    """Pictures of several sizes and shapes in two noisy colours with a slanted border, and their class maps."""
    random = np.random.default_rng(0)
    for number in range(20):
        split = "train" if number < 16 else "val"
        height, width = 19 + 7 * (number % 4), 77 - 11 * (number % 4)
        rows, columns = np.mgrid[0:height, 0:width]
        first, second = random.permutation(3)[:2]
        classes = np.where(columns + rows < width * random.uniform(0.4, 0.9), first, second)
        levels = 180 * np.eye(3)[classes] + random.integers(0, 60, (height, width, 3))
        for folder, values in (("images", levels), ("masks", classes)):
            file = root / folder / split / f"{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(file)
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return root


def tuned_run(root: Path, images: Path, recipe: Transfer) -> Path:
    run = tiny_transfer.begin(root, images, recipe)
    tiny_transfer.go_on(run)
    return run.root


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    root = tmp_path_factory.mktemp("segmentation")
    images = write_coloured(root / "coloured")
    averaged = replace(RECIPE.task, averaged="probabilities", stride=0.4)
    # in the second one, some pictures are lower than a window
    other = replace(RECIPE, task=averaged, test_views=WholeImage(longest_side=48), epochs=2)
    runs = tuned_run(root / "covering", images, RECIPE), tuned_run(root / "whole", images, other)
    index = write_site(root / "site", *runs, "--samples", 4)
    return Tuned(root / "site", runs, images, index)


def class_map(served: Served, size: tuple[int, ...], run: int = 0) -> Int[NDArray[Any], "h w"]:
    """The classes of the pixels by their colours; -1 where the map is transparent."""
    pixels = np.array(served.pixels("map", run)).reshape(*size, 3)
    colors = np.array(class_colors(len(NAMES)))
    is_color = (pixels[:, :, None] == colors).all(-1)
    return np.where(is_color.any(-1), is_color.argmax(-1), -1)


def shares(served: Served, run: int = 0) -> dict[str, float]:
    """By class, in the order of the legend."""
    section = served.page.locator("main section:visible").nth(run)
    return {
        row.locator("th").inner_text().strip(): float(
            row.locator("td").get_attribute("data-value") or ""
        )
        for row in section.locator(".answer tr").all()
    }


def as_python(classes: torch.Tensor) -> dict[str, float]:
    """Shares of the classes that occur, the largest first."""
    counts = torch.bincount(classes.flatten(), minlength=len(NAMES))
    order = counts.argsort(descending=True, stable=True).tolist()
    return {NAMES[k]: float(counts[k]) / classes.numel() for k in order if counts[k]}


def test_a_sample_has_the_class_map_of_python(tuned: Tuned, opened: Open) -> None:
    """In the picture's own size, of several windows, by two runs below one another."""
    assert len(tuned.json["samples"]) == 4
    models = [unmask.load(run) for run in tuned.runs]
    several: set[int] = set()
    seen: set[int] = set()
    for number, sample in enumerate(tuned.json["samples"]):
        served = opened(tuned.folder, f"#tab=segmentation&sample={number}").shown()
        for run, model in enumerate(models):
            (ours,) = model.segment(tuned.images / "images" / "val" / sample["name"])
            theirs = class_map(served, tuple(ours.classes.shape), run)
            assert (theirs == ours.classes.numpy()).mean() >= 0.999
            wanted = as_python(ours.classes)
            assert shares(served, run) == pytest.approx(wanted, abs=0.001)
            assert list(shares(served, run)) == list(wanted)
            seen |= set(np.unique(theirs).tolist())
        section = served.page.locator("main section:visible").first
        verdict = section.locator(".verdict").inner_text()
        (ours,) = models[0].segment(tuned.images / "images" / "val" / sample["name"])
        first, share = next(iter(as_python(ours.classes).items()))
        assert verdict.startswith(f"{first} {share:.0%}".replace("%", " %"))
        size = sample["views"]["0"]
        step = tuned.json["models"][0]["step"]
        places = corners(Size(size["height"], size["width"]), RECIPE.image_size, Size(*step))
        several.add(len(places))
        word = "window" if len(places) == 1 else "windows"
        assert f"{len(places)} {word} of 16 x 24 pixels" in section.locator(".numbers").inner_text()
    assert max(several) > 2
    assert seen == {0, 1, 2}


def test_a_picture_of_ones_own(tuned: Tuned, opened: Open, tmp_path: Path) -> None:
    """Decoded and resized by the browser: nearly all pixels have the class of Python."""
    rows, columns = np.mgrid[0:50, 0:90]
    levels = np.stack([4 * rows, 255 - 2 * columns, 2 * columns], -1).clip(0, 255).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "own.png")
    served = opened(tuned.folder).shown()
    served.page.set_input_files("#segmentation-file", tmp_path / "own.png")
    served.page.wait_for_function(
        "() => document.querySelector('#segmentation-sample').value === 'own'"
    )
    served.shown()
    (ours,) = unmask.load(tuned.runs[0]).segment(tmp_path / "own.png")
    assert (class_map(served, (50, 90)) == ours.classes.numpy()).mean() >= 0.97
    assert "sample=" not in served.page.url


def test_opacity_and_boxes(tuned: Tuned, opened: Open) -> None:
    """By keyboard; a link carries the opacity."""
    served = opened(tuned.folder, "#tab=segmentation&sample=1&opacity=0.3").shown()
    page = served.page
    opacity = "getComputedStyle(document.querySelector('canvas.map')).opacity"
    assert float(page.evaluate(opacity)) == pytest.approx(0.3)
    page.focus("#segmentation-opacity")
    page.keyboard.press("ArrowRight")
    assert float(page.evaluate(opacity)) == pytest.approx(0.35)
    assert "sample=1&opacity=0.35" in page.url
    before = served.pixels("map")
    box = page.locator("main section:visible").first.locator("input[type=checkbox]").first
    name = box.locator("xpath=..").inner_text().strip()
    box.focus()
    page.keyboard.press("Space")
    after = served.pixels("map")
    color = class_colors(len(NAMES))[NAMES.index(name)]
    gone = np.array(before).reshape(-1, 3) != np.array(after).reshape(-1, 3)
    was = (np.array(before).reshape(-1, 3) == color).all(1)
    assert was.any()
    assert np.array_equal(gone.any(1), was)
    page.keyboard.press("Space")
    assert served.pixels("map") == before
    label = page.locator("canvas.map").first.get_attribute("aria-label")
    assert label.startswith("class map by covering: ")
    assert f"{name} " in label


def test_bands_with_missing_values(opened: Open, tmp_path: Path) -> None:
    """As in the files of `unmask predict`: no class where no band has a value."""
    for number in range(6):
        scene(tmp_path / "data" / "images" / f"{number}.tif")
        classes = np.full((HEIGHT, WIDTH), number % 2, np.uint8)
        classes[:, 12:] = 2
        write_map(tmp_path / "data" / "masks" / f"{number}.png", classes)
    words = "--recipe segment-ti8 --task.head.channels 8 --epochs 4 --image-size 16 --encoder.patch-size 4 --encoder.embed-dim 24"
    words += " --encoder.depth 4 --encoder.num-heads 3 --threads 1 --workers 0 --batch-size 2"
    run = tmp_path / "run"
    given = ["scratch", str(tmp_path / "data"), "--out", str(run), *words.split()]
    assert finetune.main(given) == 0
    index = write_site(tmp_path / "site", run, "--samples", 1)
    served = opened(tmp_path / "site").shown()
    (ours,) = unmask.load(run).segment(tmp_path / "data" / "images" / index["samples"][0]["name"])
    theirs = class_map(served, (HEIGHT, WIDTH))
    # scenes have no values in their first three columns; the view that is stored is larger, so the edge is not exact
    assert (theirs[:, :2] == -1).all()
    assert (theirs[:, 4:] == ours.classes.numpy()[:, 4:]).mean() >= 0.999


def test_a_picture_with_too_many_windows(tuned: Tuned, opened: Open, tmp_path: Path) -> None:
    """A run that would need too many refuses it before it is resized, another takes it; the limits are on the page."""
    served = opened(tuned.folder, "#tab=segmentation&sample=1").shown()
    assert f"overlapping windows: at most {MOST_WINDOWS}, and 512 MiB" in served.page.inner_text(
        "#panel-segmentation"
    )
    before = served.pixels("map")
    Image.new("RGB", (4000, 4)).save(tmp_path / "line.png")
    served.page.set_input_files("#segmentation-file", tmp_path / "line.png")
    # the second run takes it, because it makes it smaller
    served.page.wait_for_function(
        "() => document.querySelector('#segmentation-sample').value === 'own'"
    )
    served.shown()
    first, second = served.page.locator("main section:visible").all()
    assert "covering would take" in first.inner_text()
    assert f"windows for this picture, and the page takes at most {MOST_WINDOWS}" in (
        first.inner_text()
    )
    assert not first.locator(".answer").is_visible()
    assert second.locator(".answer").is_visible()
    served.page.select_option("#segmentation-sample", "1")
    served.page.wait_for_function("() => location.hash.includes('sample=1')")
    assert served.shown().pixels("map") == before


def test_a_newer_choice_ends_the_windows_of_an_earlier_one(tuned: Tuned, opened: Open) -> None:
    served = opened(tuned.folder, "#tab=segmentation&sample=0").shown()
    wanted = {
        number: opened(tuned.folder, f"#tab=segmentation&sample={number}").shown().pixels("map")
        for number in (1, 3)
    }
    for number in (1, 3):
        served.page.evaluate(
            """(number) => {
              const select = document.querySelector('#segmentation-sample');
              for (const value of ['2', '0', String(number)]) { select.value = value; select.onchange(); }
            }""",
            number,
        )
        served.page.wait_for_function(f"() => location.hash.includes('sample={number}')")
        assert served.shown().pixels("map") == wanted[number]


def test_sizes_of_what_models_see(tuned: Tuned, opened: Open) -> None:
    page = opened(tuned.folder).page
    size = Size(16, 24)
    views = {"fitted longest": FittedImage(), "fitted shortest": FittedImage(side="shortest")}
    views |= {"longest 20": WholeImage(longest_side=20)}
    for name, view in views.items():
        kind, _, value = name.partition(" ")
        for whole in (Size(16, 24), Size(32, 80), Size(5, 40), Size(7, 3), Size(1000, 3)):
            wanted = list(view.geometry(whole, size).resized)
            theirs = page.evaluate(
                """async ([height, width, kind, value]) => (await import('./pixels.js'))
                  .seenSize({height, width}, {height: 16, width: 24}, {[kind]: value})""",
                [*whole, kind, int(value) if kind == "longest" else value],
            )
            assert theirs == wanted, (name, whole)


def test_views(tuned: Tuned, tmp_path: Path) -> None:
    """Squashed pictures are made; crops are refused, because their maps would not be those of the pictures."""
    squashed = replace(RECIPE, test_views=SquashedImage(), epochs=1)
    run = tuned_run(tmp_path / "squashed", tuned.images, squashed)
    assert segmentation(str(run), "squashed").facts["view"] == {}
    cropped = replace(RECIPE, test_views=MarginCrop(), epochs=1)
    run = tiny_transfer.begin(tmp_path / "cropped", tuned.images, cropped).root
    with pytest.raises(
        SettingsError, match=r"by MarginCrop, and a page makes FittedImage, SquashedImage and Whole"
    ):
        segmentation(str(run), "cropped")


def test_the_most_classes_of_a_window() -> None:
    check_size("a", 128, MOST_VALUES // 128)
    with pytest.raises(SettingsError, match=r"a gives 157,286,400 scores for a window, and a page"):
        check_size("a", 150, 1024 * 1024)


@pytest.mark.parametrize("width", [1280, 360])
def test_layout_and_labels(tuned: Tuned, opened: Open, width: int) -> None:
    check_layout(opened(tuned.folder).shown(), width)
