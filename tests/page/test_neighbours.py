"""The tab of a folder of vectors in a real Chromium: the neighbours of Python, in the same order."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from page.conftest import Open, Served, check_layout, write_site
from runs import tiny

from unmask.commands import embed, page, search
from unmask.page import neighbours as tab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Embedded(NamedTuple):
    """A page with a folder of vectors."""

    folder: Path
    vectors: Path
    images: Path
    index: dict[str, Any]


def made(root: Path, *flags: str) -> Path:
    """A folder of vectors of labelled pictures."""
    images = tiny.write_classes(root / "animals")
    for file in sorted(images.rglob("*.png")):  # samples are known by their names alone
        file.rename(file.with_name(f"{file.parent.name}-{file.name}"))
    run = tiny.finished_run(root / "run", images)
    words = [str(run.root), str(images), "--out", str(root / "vectors"), "--threads", "1", *flags]
    assert embed.main(words) == 0
    return root / "vectors"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    root = tmp_path_factory.mktemp("neighbours")
    vectors = made(root)
    index = write_site(root / "site", vectors, "--samples", 3)
    return Embedded(root / "site", vectors, root / "animals", index)


def shown(served: Served) -> list[tuple[str, float]]:
    """Name and score of each neighbour, in the order of the page."""
    return served.page.evaluate(
        "() => [...document.querySelectorAll('.neighbours li')].map((one) => [one.dataset.name, Number(one.dataset.value)])"
    )


def in_python(vectors: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """What `unmask search` says of a picture."""
    capsys.readouterr()
    assert search.main([str(vectors), str(image), "--k", "12", "--json", "--threads", "1"]) == 0
    return json.loads(capsys.readouterr().out)["queries"][0]["neighbours"]


def assert_same(found: list[tuple[str, float]], ours: list[Any]) -> None:
    assert [name for name, _ in found] == [one["name"] for one in ours]
    np.testing.assert_allclose([score for _, score in found], [o["score"] for o in ours], atol=1e-4)


def test_a_sample_has_the_neighbours_of_python(
    embedded: Embedded, opened: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, sample in enumerate(embedded.index["samples"]):
        served = opened(embedded.folder, f"#sample={number}").shown()
        file = next(embedded.images.rglob(sample["name"]))
        ours = in_python(embedded.vectors, file, capsys)
        assert len(ours) == 12
        assert_same(shown(served), ours)
        assert ours[0]["name"].endswith(sample["name"])  # a picture is nearest to itself
        label = served.page.inner_text(".neighbours li:first-child span")
        assert label == f"1.000 {ours[0]['label']}"


def test_a_thumbnail_is_that_of_its_picture(embedded: Embedded, opened: Open) -> None:
    """The nearest picture is the sample itself, so its thumbnail is what the model sees, but for JPEG."""
    served = opened(embedded.folder, "#sample=1").shown()
    thumbnail = served.page.evaluate(
        """() => {
          const canvas = document.querySelector('.neighbours canvas');
          const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          return [...data].filter((_, i) => i % 4 < 3);
        }"""
    )
    seen = served.pixels("picture")
    assert len(thumbnail) == len(seen)
    assert np.abs(np.array(thumbnail) - seen).mean() < 12


def test_class_tokens_in_half_precision_and_no_whitening(
    opened: Open, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = made(tmp_path, "--pooling", "class", "--dtype", "float16", "--whitened", "0")
    index = write_site(tmp_path / "site", vectors, "--samples", 1)
    served = opened(tmp_path / "site").shown()
    file = next((tmp_path / "animals").rglob(index["samples"][0]["name"]))
    ours = in_python(vectors, file, capsys)
    np.testing.assert_allclose(
        [score for _, score in shown(served)], [one["score"] for one in ours], atol=1e-3
    )
    assert shown(served)[0][0] == ours[0]["name"]


def test_more_pictures_than_a_page_holds(
    embedded: Embedded,
    opened: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tab, "MOST", 5)
    write_site(tmp_path / "site", embedded.vectors, "--samples", 1)
    words = " ".join("".join(capfd.readouterr()).split())
    assert "vectors has 20 pictures, and a page holds 5 of them, evenly spaced" in words
    served = opened(tmp_path / "site").shown()
    assert "5 of 20 pictures" in served.page.inner_text(".facts")
    assert len(shown(served)) == 5


def test_pictures_that_are_gone(
    embedded: Embedded, opened: Open, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Names and scores stay, and so does the encoder if it lies elsewhere now."""
    root = tmp_path / "moved"
    made(root)
    shutil.move(root / "animals", root / "elsewhere")
    shutil.move(root / "run", tmp_path / "other")
    words = [str(root / "vectors"), "--out", str(tmp_path / "site"), "--threads", "1"]
    assert page.main([*words, "--samples", "0", "--encoder", str(tmp_path / "other")]) == 0
    said = " ".join("".join(capfd.readouterr()).split())
    assert "20 pictures of vectors cannot be read where `unmask embed` found them" in said
    served = opened(tmp_path / "site")
    served.page.wait_for_function(
        "() => document.querySelector('.message:not(#message)')?.textContent.includes('no sample')"
    )
    file = next((root / "elsewhere").rglob("dogs-03.png"))
    served.page.set_input_files("#neighbours-file", file)
    served.page.wait_for_function("() => document.querySelectorAll('.neighbours li').length === 12")
    assert shown(served)[0][1] > 0.5


@pytest.mark.parametrize("name", ["vectors.bin", "pictures.json"])
def test_an_incomplete_file_is_said(
    embedded: Embedded, opened: Open, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(embedded.folder, tmp_path / "site")
    (model,) = embedded.index["models"]
    file = folder / model["files"][name]
    file.write_bytes(file.read_bytes()[:-8])
    page = opened(folder).page
    page.wait_for_function(
        "() => document.body.textContent.includes('is incomplete; write the page again')"
    )
    assert model["files"][name] in page.inner_text("section")


def test_a_damaged_sheet_of_thumbnails_is_grey(
    embedded: Embedded, opened: Open, tmp_path: Path
) -> None:
    folder = shutil.copytree(embedded.folder, tmp_path / "site")
    (model,) = embedded.index["models"]
    (folder / model["files"]["thumbnails-0.jpg"]).write_bytes(b"no picture")
    served = opened(folder).shown()
    assert len(shown(served)) == 12
    middle = served.page.evaluate(
        "() => [...document.querySelector('.neighbours canvas').getContext('2d').getImageData(2, 2, 1, 1).data]"
    )
    assert middle == [128, 128, 128, 255]


@pytest.mark.parametrize("width", [1280, 360])
def test_layout_and_labels(embedded: Embedded, opened: Open, width: int) -> None:
    check_layout(opened(embedded.folder).shown(), width)
