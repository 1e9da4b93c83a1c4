"""The page in a real Chromium: the same pictures as Python, painting, files, links, and what goes wrong."""

import io
import shutil
import struct
import zlib
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from page.conftest import Open, Served, Site, check_layout, write_site
from PIL import Image
from runs import tiny

import unmask
from unmask.commands import pretrain
from unmask.commands.reconstruct import Reconstructed
from unmask.contracts import Size
from unmask.masking import BlockMasking, GridMasking, RandomMasking
from unmask.patches import patch_grid
from unmask.randomness import derive, generator
from unmask.runs.reconstruct import Reconstruction

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

VIEWS = ("masked", "rebuilt", "pasted", "original")


def as_shown(one: Reconstruction, bands: tuple[int, ...] = (0, 1, 2)) -> dict[str, NDArray[Any]]:
    """The pictures of a reconstruction, as levels [h w 3] that a screen shows."""
    versions = {view: one.statistics.stretched(getattr(one, view)) for view in VIEWS}
    return {
        view: pixels[list(bands)].nan_to_num(1.0).clamp(0, 1).mul(255).permute(1, 2, 0).numpy()
        for view, pixels in versions.items()
    }


def assert_same(
    served: Served, one: Reconstructed, run: int, bands: tuple[int, ...] = (0, 1, 2)
) -> None:
    if run == 0:
        assert served.hidden() == one.mask.removed[0].tolist()
    for view, levels in as_shown(one.reconstruction, bands).items():
        shown = np.array(served.pixels(view, run)).reshape(levels.shape)
        # one level for rounding of numbers, half a level for rounding to levels
        assert np.abs(shown - levels).max() <= 1.5, view


@pytest.mark.parametrize(
    ("kind", "ratio"), [("random", 0.75), ("random", 0.3), ("block", 0.5), ("grid", 0.75)]
)
@pytest.mark.parametrize("levels", ["neighbors", "true"])
def test_a_seed_gives_the_pictures_of_python(
    site: Site, opened: Open, kind: str, ratio: float, levels: Any
) -> None:
    link = f"#sample=1&masking={kind}&ratio={ratio}&seed=7&levels={levels}"
    served = opened(site.folder, link).shown()
    name = served.page.locator("#sample option").nth(1).inner_text()
    for number, run in enumerate(site.runs):
        (ours,) = unmask.reconstruct(
            run.root,
            site.images / name,
            masking=kind,
            ratio=ratio,
            seed=7,
            levels=levels,  # pyright: ignore[reportArgumentType]
        ).images
        assert_same(served, ours, number)
        said = served.page.locator(".numbers").nth(number).inner_text()
        assert f"error {ours.reconstruction.error:.1f}" in said.replace(
            f"error {ours.reconstruction.error:.2f}", f"error {ours.reconstruction.error:.1f}"
        )
        assert ("true ones" in said) == (levels == "true")


def test_masks_of_all_seeds_are_those_of_python(site: Site, opened: Open) -> None:
    page = opened(site.folder).page
    maskings = {"random": RandomMasking, "block": BlockMasking}
    for grid in (Size(4, 4), Size(14, 14), Size(9, 23), Size(2, 3)):
        for kind, ratio in (("random", 0.75), ("random", 0.6), ("block", 0.4), ("block", 0.75)):
            for seed in (0, 1, 12345, 999_999_999):
                own = derive("image", seed, 0) % 2**31
                drawn = maskings[kind](ratio=ratio).sample(
                    1, grid, generator("cpu", "reconstruct", own)
                )
                theirs = page.evaluate(
                    """async ([kind, rows, columns, ratio, seed]) =>
                      (await import('./masks.js')).draw(kind, {rows, columns}, {ratio, seed})""",
                    [kind, grid.height, grid.width, ratio, seed],
                )
                assert theirs == drawn.removed[0].tolist(), (grid, kind, ratio, seed)
    drawn = GridMasking(stride=3).sample(1, Size(7, 5), torch.Generator())
    theirs = page.evaluate(
        "async () => (await import('./masks.js')).draw('grid', {rows: 7, columns: 5}, {stride: 3})"
    )
    assert theirs == drawn.removed[0].tolist()


def carried(mask: NDArray[Any], grid: tuple[int, int]) -> NDArray[Any]:
    """The mask on another grid, by counting pixels."""
    pixels = torch.from_numpy(mask.repeat(36, 0).repeat(36, 1))[None, None].float()
    return (torch.nn.functional.adaptive_avg_pool2d(pixels, grid)[0, 0] >= 0.5 - 1e-6).numpy()


def test_another_grid_hides_the_same_region(site: Site, opened: Open) -> None:
    """As Python carries over what was painted: a patch is hidden if at least half of it is."""
    random = np.random.default_rng(0)
    page = opened(site.folder).page
    for old, new in (((4, 6), (8, 12)), ((8, 8), (4, 4)), ((6, 4), (9, 3))):
        mask = random.random(old) < 0.5
        wanted = carried(mask, new).flatten()
        theirs = page.evaluate(
            """async ([mask, old, next]) => (await import('./masks.js')).carried(
              mask, {rows: old[0], columns: old[1]}, {rows: next[0], columns: next[1]})""",
            [mask.flatten().tolist(), old, new],
        )
        assert theirs == wanted.tolist()


def test_bands_are_chosen(bands_site: Site, opened: Open) -> None:
    served = opened(bands_site.folder, "#seed=3&bands=4,3,13").shown()
    assert served.page.input_value("#band-green") == "2"
    name = served.page.locator("#sample option").first.inner_text()
    (ours,) = unmask.reconstruct(
        bands_site.runs[0].root, bands_site.images / name, masking="random", ratio=0.75, seed=3
    ).images
    assert_same(served, ours, 0, (3, 2, 12))
    served.page.select_option("#band-red", label="9")
    assert_same(served.shown(), ours, 0, (8, 2, 12))
    assert "bands=9%2C3%2C13" in served.page.url


def test_bands_that_a_link_cannot_mean(bands_site: Site, opened: Open) -> None:
    links = ["#bands=1.5,2,3", "#bands=5", "#bands=4,5", "#bands=14,1,2", "#bands=0,1,2"]
    served = opened(bands_site.folder, links[0]).shown()
    for link in links:  # in the open page too
        chosen = [served.page.input_value(f"#band-{one}") for one in ("red", "green", "blue")]
        assert chosen == ["0", "1", "2"], link
        assert "bands=1%2C2%2C3" in served.page.url
        served.page.evaluate("(link) => { location.hash = link; }", link)
        served.page.wait_for_function("() => location.hash.includes('mask=')")
    assert "bands=1%2C2%2C3" in served.page.url


def test_a_picture_is_stored_for_each_run_in_its_own_size(
    site: Site, opened: Open, tmp_path: Path
) -> None:
    """Two runs of two sizes on the same pictures, which are offered once."""
    other = replace(tiny.RECIPE, image_size=Size(12, 12))
    runs = [site.runs[0], tiny.finished_run(tmp_path / "larger", site.images, recipe=other, seed=5)]
    index = write_site(tmp_path / "site", *(run.root for run in runs), "--samples", 2)
    assert [len(one["views"]) for one in index["samples"]] == [2, 2]
    served = opened(tmp_path / "site", "#sample=1&masking=block&ratio=0.6&seed=4").shown()
    file = site.images / index["samples"][1]["name"]
    mask = np.array(served.hidden()).reshape(4, 4)
    for number, run in enumerate(runs):
        model = unmask.load(run.root)
        grid = patch_grid(Size(*model.fit(file).shape[1:]), 2)
        assert grid == ((4, 4), (7, 5))[number]
        ours = model.reconstruct(file, carried(mask, grid))
        for view, levels in as_shown(ours).items():
            shown = np.array(served.pixels(view, number)).reshape(levels.shape)
            assert np.abs(shown - levels).max() <= 1.5, view


def test_other_bands_of_the_same_files(bands_site: Site, opened: Open, tmp_path: Path) -> None:
    """A run on 13 bands and one on three of them, and in another order."""
    words = f"--recipe {tiny.__file__}:RECIPE --channels 4,3,2 --epochs 1 --threads 1 --workers 0"
    three = tmp_path / "three"
    assert pretrain.main([str(bands_site.images), *words.split(), "--out", str(three)]) == 0
    index = write_site(tmp_path / "site", bands_site.runs[0].root, three, "--samples", 2)
    assert len(index["samples"]) == 2
    assert all(len(one["views"]) == 2 for one in index["samples"])
    served = opened(tmp_path / "site", "#sample=1&masking=grid&bands=1,2,3").shown()
    for number, run in enumerate((bands_site.runs[0].root, three)):
        file = bands_site.images / index["samples"][1]["name"]
        (ours,) = unmask.reconstruct(run, file, masking="grid").images
        assert_same(served, ours, number)


def place(page: Any, row: int, column: int) -> tuple[float, float]:
    """The middle of a patch of the first picture, in pixels of the window."""
    box = page.locator("canvas.paint").bounding_box()
    return box["x"] + (column + 0.5) * box["width"] / 4, box["y"] + (row + 0.5) * box["height"] / 4


def nothing_hidden(served: Served) -> None:
    served.shown().page.click("#clear")
    assert served.hidden() == [False] * 16
    assert served.message() == "Nothing is hidden: hide at least one patch."


def test_painting_with_the_mouse(site: Site, opened: Open) -> None:
    served = opened(site.folder)
    nothing_hidden(served)
    page = served.page
    page.mouse.move(*place(page, 0, 0))
    page.mouse.down()
    page.mouse.move(*place(page, 0, 3))  # in one step: the patches between are hidden too
    page.mouse.up()
    page.mouse.move(*place(page, 3, 3))  # not pressed any more
    assert [i for i, hidden in enumerate(served.hidden()) if hidden] == [0, 1, 2, 3]
    assert page.input_value("#masking") == "painted"
    served.shown()
    page.wait_for_function(
        "() => document.querySelector('.numbers').textContent.startsWith('4 of 16')"
    )
    # a stroke that begins on a hidden patch shows patches
    page.mouse.move(*place(page, 0, 1))
    page.mouse.down()
    page.mouse.move(*place(page, 2, 1))
    page.mouse.up()
    assert [i for i, hidden in enumerate(served.hidden()) if hidden] == [0, 2, 3]


def test_painting_with_a_finger(site: Site, opened: Open) -> None:
    served = opened(site.folder, has_touch=True, is_mobile=True)
    nothing_hidden(served)
    page = served.page
    page.locator("canvas.paint").scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *at: tuple[float, float]) -> None:
        points = [{"x": x, "y": y} for x, y in at]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", place(page, 1, 0))
    touch("touchMove", place(page, 2, 0))
    touch("touchMove", place(page, 3, 0))
    touch("touchEnd")
    assert [i for i, hidden in enumerate(served.hidden()) if hidden] == [4, 8, 12]
    assert page.evaluate("scrollY") == before
    page.touchscreen.tap(*place(page, 2, 2))
    assert served.hidden()[10]


def test_painting_with_the_keyboard(site: Site, opened: Open) -> None:
    served = opened(site.folder)
    nothing_hidden(served)
    page = served.page
    page.focus("canvas.paint")
    for key in ("ArrowDown", "ArrowRight", "Space", "ArrowRight", "Enter", "ArrowUp"):
        page.keyboard.press(key)
    assert [i for i, hidden in enumerate(served.hidden()) if hidden] == [5, 6]
    assert page.inner_text("#spoken") == "row 1, column 3, visible"
    for _ in range(9):
        page.keyboard.press("ArrowLeft")
    assert page.inner_text("#spoken") == "row 1, column 1, visible"
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert page.evaluate(FRAME) == pytest.approx(
        [0.5, 0, 0.75, 0.25], abs=0.03
    )  # of row 1, column 3
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.className") != "paint"
    assert page.evaluate(FRAME) is None
    # what has the focus is seen
    outline = page.evaluate(
        "(({outlineStyle, outlineWidth}) => [outlineStyle, outlineWidth])(getComputedStyle(document.activeElement))"
    )
    assert outline == ["solid", "3px"]


FRAME = """() => {
  const canvas = document.querySelector('canvas.paint'), {width, height} = canvas;
  const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
  const drawn = [...Array(width * height).keys()].filter((i) => data[4 * i + 3] > 0);
  const columns = drawn.map((i) => i % width), rows = drawn.map((i) => Math.floor(i / width));
  const span = (places, side) => [Math.min(...places) / side, (Math.max(...places) + 1) / side];
  const [[left, right], [top, bottom]] = [span(columns, width), span(rows, height)];
  return drawn.length ? [left, top, right, bottom] : null;
}"""
"""Left, top, right and bottom of what the painter draws, in shares of the picture."""


def test_everything_hidden_is_said(site: Site, opened: Open) -> None:
    served = opened(site.folder)
    nothing_hidden(served)
    served.page.click("#invert")
    assert served.message() == "Everything is hidden: leave at least one patch visible."


def test_pictures_of_another_mask_do_not_stay(site: Site, opened: Open) -> None:
    served = opened(site.folder).shown()
    assert any(served.pixels("rebuilt"))
    served.page.click("#clear")  # nothing is hidden, so nothing is rebuilt
    for run in range(2):
        for view in ("rebuilt", "pasted", "error"):
            assert not any(served.pixels(view, run)), view
        assert served.page.locator(".numbers").nth(run).inner_text() == "nothing to rebuild"
        assert served.pixels("masked", run) == served.pixels("original", run)
    served.page.select_option("#masking", "random")
    served.shown()
    assert any(served.pixels("rebuilt"))
    # in the very moment that a patch is painted
    at_once = served.page.evaluate(
        """() => {
          document.getElementById('invert').click();
          const canvas = document.querySelector('canvas[data-view=rebuilt]');
          const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          return [[...data].some(Boolean), document.querySelector('.numbers').textContent];
        }"""
    )
    assert at_once == [False, "rebuilding \u2026"]
    served.shown()
    assert any(served.pixels("rebuilt"))


def test_a_link_carries_mask_and_seed(site: Site, opened: Open) -> None:
    served = opened(site.folder, "#sample=2&seed=41")
    served.shown().page.mouse.click(*place(served.page, 0, 0))
    mask, link = served.hidden(), served.page.url.partition("#")[2]
    assert "seed=41" in link
    assert "masking=painted" in link
    other = opened(site.folder, f"#{link}").shown()
    assert other.hidden() == mask
    assert other.page.input_value("#sample") == "2"
    assert other.pixels("masked") == served.pixels("masked")


def test_a_changed_address_changes_the_open_page(site: Site, opened: Open) -> None:
    served = opened(site.folder, "#sample=1").shown()
    mask = np.arange(16).reshape(4, 4) % 3 == 0
    served.page.evaluate(
        """async (mask) => {
          const {written} = await import('./masks.js');
          location.hash = `sample=2&masking=painted&mask=${written(mask)}`;
        }""",
        mask.flatten().tolist(),
    )
    served.page.wait_for_function("() => document.querySelector('#sample').value === '2'")
    assert served.shown().hidden() == mask.flatten().tolist()
    name = served.page.locator("#sample option").nth(2).inner_text()
    ours = as_shown(unmask.load(site.runs[0].root).reconstruct(site.images / name, mask))
    for view in ("masked", "rebuilt"):
        shown = np.array(served.pixels(view)).reshape(ours[view].shape)
        assert np.abs(shown - ours[view]).max() <= 1.5, view


def test_the_link_is_copied(site: Site, opened: Open, tmp_path: Path) -> None:
    served = opened(site.folder, permissions=["clipboard-read", "clipboard-write"]).shown()
    served.page.click("#copy")
    said = "() => document.querySelector('#message').textContent.includes('link')"
    served.page.wait_for_function(said)
    assert served.message() == "The link is copied. It carries mask and seed."
    assert served.page.evaluate("navigator.clipboard.readText()") == served.page.url
    Image.new("RGB", (8, 8)).save(tmp_path / "own.png")
    served.page.set_input_files("#file", tmp_path / "own.png")
    served.page.wait_for_function("() => document.getElementById('sample').value === 'own'")
    served.page.click("#copy")
    served.page.wait_for_function(said)
    assert served.message().endswith("It carries mask and seed, but not your own picture.")
    served.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
    served.page.click("#copy")
    served.page.wait_for_function(said.replace("link", "address bar"))
    assert served.message().startswith("This browser does not let the page copy")


@pytest.mark.parametrize(
    "link",
    [
        "#mask=%%%&seed=-3&ratio=9&masking=nothing&sample=7.1",
        "#mask=AAAAAAAAAAAAAA&seed=1e99&bands=9,9,9",
        "#x",
    ],
)
def test_a_link_that_makes_no_sense(site: Site, opened: Open, link: str) -> None:
    served = opened(site.folder, link).shown()
    assert sum(served.hidden()) == 12
    assert "sample=0" in served.page.url


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG of this size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.txt", b"some words", "notes.txt is not a picture that this browser can read"),
        ("empty.png", b"", "empty.png is empty"),
        (
            "huge.png",
            png_header(20_000, 10_000),
            "huge.png has 200 megapixels, and a browser's memory",
        ),
        ("half.png", png_header(10, 10), "half.png is not a picture that this browser can read"),
    ],
)
def test_wrong_files(site: Site, opened: Open, name: str, content: bytes, said: str) -> None:
    served = opened(site.folder).shown()
    before = served.pixels("original")
    served.page.set_input_files(
        "#file", [{"name": name, "mimeType": "image/png", "buffer": content}]
    )
    served.page.wait_for_function("() => document.querySelector('#message').textContent !== ''")
    assert said in served.message()
    assert served.pixels("original") == before


def test_files_are_read_as_python_reads_them(site: Site, opened: Open, tmp_path: Path) -> None:
    """Floats beyond 0 to 1, no pixels, transparency, and sizes in WebP headers."""
    served = opened(site.folder).shown()
    np.save(tmp_path / "normal.npy", np.full((3, 8, 8), 1.5, np.float32))
    np.save(tmp_path / "missing.npy", np.full((3, 8, 8), np.nan, np.float32))
    np.save(tmp_path / "none.npy", np.zeros((3, 0, 8), np.float32))
    for name, said in (
        ("normal.npy", "normal.npy: floats must lie from 0 to 1"),
        ("missing.npy", "missing.npy: floats must lie from 0 to 1"),
        ("none.npy", "none.npy has the shape [3,0,8], which holds no pixels"),
    ):
        served.page.set_input_files("#file", tmp_path / name)
        served.page.wait_for_function(
            f"() => document.getElementById('message').textContent.startsWith('{name}')"
        )
        assert said in served.message()
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    served.page.set_input_files("#file", tmp_path / "clear.png")
    served.page.wait_for_function("() => document.getElementById('sample').value === 'own'")
    assert set(served.pixels("original")) == {255}
    for lossless in (False, True):
        Image.new("RGB", (37, 21)).save(tmp_path / "a.webp", lossless=lossless)
        counted = served.page.evaluate(
            "async (bytes) => (await import('./files.js')).pixelsOf(new Uint8Array(bytes))",
            list((tmp_path / "a.webp").read_bytes()),
        )
        assert counted == 37 * 21


def test_a_file_is_decoded_for_each_kind_of_model(site: Site, opened: Open) -> None:
    """A grey model and one of colours see the same picture; one of bands says why it does not."""
    served = opened(site.folder)
    red = served.page.evaluate(
        """async () => {
          const {openedFor} = await import('./files.js');
          const canvas = new OffscreenCanvas(2, 2), context = canvas.getContext('2d');
          context.fillStyle = '#f00';
          context.fillRect(0, 0, 2, 2);
          const file = new File([await canvas.convertToBlob()], 'red.png');
          const models = [[3, 'uint8'], null, [1, 'uint8'], [13, 'float32'], [3, 'uint8']]
            .map((one) => one && {channels: one[0], values: one[1]});
          const found = await openedFor(file, models);
          return [
            found.slice(0, 3).map((one) => one && [...one.values]), found[3].message, found[4] === found[0],
          ];
        }"""
    )
    grey = pytest.approx([76 / 255] * 4)
    assert red[0] == [[1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0], None, grey]
    assert "red.png: this model takes 13 bands of float32" in red[1]
    assert red[2]


def test_arrays_of_the_wrong_shape(bands_site: Site, opened: Open, tmp_path: Path) -> None:
    served = opened(bands_site.folder).shown()
    np.save(tmp_path / "five.npy", np.zeros((5, 8, 8), np.float32))
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    for name, said in (
        ("five.npy", "five.npy has the shape [5,8,8], and this model takes 13 bands"),
        ("words.npy", "words.npy holds <U1 that cannot be shown"),
        ("photo.png", "photo.png: this model takes 13 bands of float32; save them as a .npy array"),
    ):
        served.page.set_input_files("#file", tmp_path / name)
        served.page.wait_for_function(
            f"() => document.getElementById('message').textContent.startsWith('{name}')"
        )
        assert said in served.message()


def test_cut_arrays(bands_site: Site, opened: Open, tmp_path: Path) -> None:
    """Cut in the preamble, in the header, in the values; a header longer than a call has arguments is read."""
    content = io.BytesIO()
    np.save(content, np.full((13, 8, 8), 0.5, np.float32))
    whole = content.getvalue()
    header = whole[10:128].strip() + b" " * 300_000 + b"\n"
    long = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + whole[128:]
    served = opened(bands_site.folder).shown()
    for name, part in (
        ("magic.npy", whole[:7]),
        ("preamble.npy", whole[:9]),
        ("header.npy", whole[:60]),
        ("values.npy", whole[:-1]),
        ("long-header.npy", long[:200_000]),
        ("long-values.npy", long[:-1]),
    ):
        (tmp_path / name).write_bytes(part)
        served.page.set_input_files("#file", tmp_path / name)
        served.page.wait_for_function("() => document.querySelector('#message').textContent !== ''")
        assert served.message() == f"{name} is incomplete"
    (tmp_path / "long.npy").write_bytes(long)
    served.page.set_input_files("#file", tmp_path / "long.npy")
    served.page.wait_for_function("() => document.getElementById('sample').value === 'own'")


def test_an_array_is_shown_as_python_shows_it(bands_site: Site, opened: Open) -> None:
    """Of the model's size, so nothing is resized."""
    model = unmask.load(bands_site.runs[0].root)
    file = sorted(bands_site.images.iterdir())[3]
    array = model.fit(file).numpy()
    served = opened(bands_site.folder, "#seed=5").shown()
    place_of = bands_site.folder.parent / "own.npy"
    np.save(place_of, array)
    served.page.set_input_files("#file", place_of)
    served.page.wait_for_function("() => document.getElementById('sample').value === 'own'")
    (ours,) = unmask.reconstruct(
        bands_site.runs[0].root, file, masking="random", ratio=0.75, seed=5
    ).images
    assert_same(served.shown(), ours, 0)


def test_a_picture_of_ones_own(site: Site, opened: Open, tmp_path: Path) -> None:
    """What the browser decodes and resizes is near to what Python does."""
    rows, columns = np.mgrid[0:64, 0:64]
    levels = np.stack([2 * rows + columns, 3 * columns, 255 - 2 * rows], -1).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "own.png")
    served = opened(site.folder, "#seed=2").shown()
    served.page.set_input_files("#file", tmp_path / "own.png")
    served.page.wait_for_function("() => document.getElementById('sample').value === 'own'")
    ours = unmask.load(site.runs[0].root).fit(tmp_path / "own.png").permute(1, 2, 0).numpy()
    shown = np.array(served.pixels("original")).reshape(ours.shape)
    assert np.abs(shown - ours.astype(int)).max() <= 8


def test_a_dropped_file_is_shown(site: Site, opened: Open, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "red.png")
    served = opened(site.folder).shown()
    served.drop(tmp_path / "red.png")
    served.page.wait_for_function("() => document.getElementById('sample').value === 'own'")
    assert served.pixels("original")[:3] == [255, 0, 0]


def test_no_request_leaves_the_machine(site: Site, opened: Open) -> None:
    served = opened(site.folder).shown()
    served.page.click("#next-seed")
    served.shown()
    origin = served.page.evaluate("location.origin")
    assert len(served.requests) > 10
    assert all(url.startswith((origin, "data:", "blob:")) for url in served.requests)
    refused = served.page.evaluate(
        """() => new Promise((resolve) => {
          document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));
          fetch('http://0.0.0.1/').catch(() => setTimeout(() => resolve('not by its own policy'), 1000));
        })"""
    )
    assert refused == "connect-src"
    for file in site.folder.glob("*.*"):
        text = file.read_text()
        assert "https://" not in text
        assert "http://" not in text


def test_threads_need_isolation_and_the_page_says_so(
    site: Site, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = opened(site.folder).shown().page.inner_text("#about")
    assert "threads." in said or "1 thread." in said
    monkeypatch.setattr(
        "unmask.page.server.Handler.end_headers", SimpleHTTPRequestHandler.end_headers
    )
    said = opened(site.folder).shown().page.inner_text("#about")
    assert "1 thread, because the server sends no isolation headers" in said


def test_damaged_models_are_said(site: Site, opened: Open, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    shutil.copytree(site.folder, folder)
    first, second = sorted((folder / "models").iterdir())
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    served = opened(folder).shown()  # the other run is there
    said = served.page.locator(".numbers").first
    assert f"models/{first.name} is incomplete or from another page" in said.inner_text()
    second.write_bytes(bytes(len(second.read_bytes())))
    page = opened(folder).page
    page.wait_for_function(
        "() => document.body.textContent.includes('is damaged: onnxruntime cannot read it')"
    )
    first.unlink()
    page = opened(folder).page
    page.wait_for_function(
        "() => document.body.textContent.includes('is missing (the server answered 404)')"
    )


def test_opened_from_disk_it_says_what_to_do(site: Site, chromium: Any) -> None:
    page = chromium.new_page()
    page.goto((site.folder / "index.html").as_uri())
    page.wait_for_timeout(500)
    assert page.is_visible("#closed")
    assert "python -m http.server" in page.inner_text("#closed")
    assert not page.is_visible("#panel-studio")
    page.close()


@pytest.mark.parametrize("width", [1280, 360])
def test_layout_and_labels(site: Site, opened: Open, width: int) -> None:
    check_layout(opened(site.folder).shown(), width)
