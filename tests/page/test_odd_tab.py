"""The tab of a memory of normal images in a real Chromium: heat and score of Python."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from page.conftest import Open, Served, check_layout, write_site
from PIL import Image
from runs import tiny

from unmask.commands import odd
from unmask.contracts import Size
from unmask.data.views import SquashedImage
from unmask.errors import SettingsError
from unmask.evaluation import odd_file
from unmask.evaluation.vectors import tokens_at
from unmask.page.odd import MOST, check_size
from unmask.pictures.heat import with_heat
from unmask.pictures.sheet import to_rgb
from unmask.runs.model import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHOWN = "document.querySelector('.answer [data-value]')"


class Remembered(NamedTuple):
    """A page with a memory."""

    folder: Path
    memory: Path
    test: Path
    index: dict[str, Any]


def made(root: Path, *flags: str) -> Remembered:
    """A memory of ramps, and a page with samples of others."""
    normal = tiny.write_images(root / "normal", 16)
    test = tiny.write_images(root / "test", 6, seed=9)
    for file in sorted(test.iterdir())[::2]:  # a stain
        with Image.open(file) as image:
            image.paste((255, 0, 255), (2, 3, 6, 7))
            image.save(file)
    run = tiny.finished_run(root / "run", normal)
    words = [str(run.root), str(normal), str(test), "--out", str(root / "memory"), "--threads", "1"]
    assert odd.main([*words, "--memory", "60", *flags]) == 0
    index = write_site(root / "site", root / "memory", "--samples", 3)
    return Remembered(root / "site", root / "memory", test, index)


@pytest.fixture(scope="module")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> Remembered:
    return made(tmp_path_factory.mktemp("odd"), "--image-size", "12")


def score(served: Served) -> float:
    return float(served.page.evaluate(f"{SHOWN}.dataset.value"))


def assert_same(one: Remembered, opened: Open) -> None:
    """Score, verdict and heat of all samples."""
    with (one.memory / "scores.csv").open() as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    kept = odd_file.load(one.memory / odd_file.FILE)
    model = load(kept.encoder)
    hottest: list[float] = []
    for number, sample in enumerate(one.index["samples"]):
        served = opened(one.folder, f"#sample={number}").shown()
        row = rows[sample["name"]]
        assert score(served) == pytest.approx(float(row["score"]), rel=1e-3)
        verdict = {"yes": "odd", "no": "normal"}[row["odd"]]
        assert served.page.inner_text(".verdict") == verdict
        (view,) = SquashedImage()(model.read(one.test / sample["name"]), kept.size)
        with torch.inference_mode():
            tokens = tokens_at(model.encoder, view[None], kept.memory.rule.block)[1]
            heat = kept.memory.heat(kept.memory.map(kept.memory.distances(tokens)[0], kept.size))
        ours = np.array(to_rgb(with_heat(model.spec.statistics.stretched(view), heat))).astype(int)
        theirs = np.array(served.pixels("heat")).reshape(ours.shape)
        assert np.abs(theirs - ours).max() <= 3
        hottest.append(float(heat.max()))
    assert max(hottest) > 0.2


def test_a_sample_has_heat_and_score_of_python(remembered: Remembered, opened: Open) -> None:
    assert len(remembered.index["samples"]) == 3  # of what `unmask odd` looked at
    assert_same(remembered, opened)


def test_aligned_places_and_neighbourhoods(opened: Open, tmp_path: Path) -> None:
    flags = ["--aligned", "1", "--around", "3", "--positions=false"]
    assert_same(made(tmp_path, *flags), opened)


def test_a_picture_of_ones_own_is_squashed(
    remembered: Remembered, opened: Open, tmp_path: Path
) -> None:
    served = opened(remembered.folder, "#sample=0").shown()
    before = score(served)
    wide = tiny.write_images(tmp_path / "wide", 1, size=(6, 40)) / "00.png"
    served.page.set_input_files("#odd-file", wide)
    served.page.wait_for_function("() => document.querySelector('#odd-sample').value === 'own'")
    served.shown()
    model = load(remembered.memory.parent / "run")
    size = odd_file.load(remembered.memory / odd_file.FILE).size
    ours = SquashedImage()(model.read(wide), size)[0].permute(1, 2, 0).numpy()
    shown = np.array(served.pixels("picture")).reshape(ours.shape)
    assert np.abs(shown - ours.astype(int)).max() <= 8
    assert score(served) != before


def test_the_largest_memory_of_a_page(remembered: Remembered) -> None:
    """Vectors, the mask of aligned places, and what a browser computes count."""
    memory = odd_file.load(remembered.memory / odd_file.FILE).memory
    rows = MOST // (4 * 64)
    fits = memory._replace(vectors=torch.zeros(rows, 64), grid=Size(2, 2))
    check_size("a", fits, "float32")
    aligned = fits._replace(rule=replace(memory.rule, aligned=1))
    with pytest.raises(SettingsError, match=r"a takes 65 MiB, and a page holds 64; use --dtype"):
        check_size("a", aligned, "float32")
    check_size("a", aligned, "float16")
    pairs = fits._replace(grid=Size(9, 9))
    with pytest.raises(SettingsError, match=r"a compares 21,233,664 pairs of patches, and a page"):
        check_size("a", pairs, "float16")


@pytest.mark.parametrize("width", [1280, 360])
def test_layout_and_labels(remembered: Remembered, opened: Open, width: int) -> None:
    check_layout(opened(remembered.folder).shown(), width)
