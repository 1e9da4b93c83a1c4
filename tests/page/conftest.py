"""Pages of tiny runs, a server for them, and a real Chromium; skipped where there is none."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from commands.test_bands_command import write_scenes
from runs import tiny

from unmask.commands import page as command
from unmask.page.server import address_of, open_server
from unmask.runs.folder import RunFolder

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class Site(NamedTuple):
    """A page and what it was made of."""

    folder: Path
    runs: tuple[RunFolder, ...]
    images: Path


class Served(NamedTuple):
    """A page in a browser."""

    page: Any
    """Playwright's page."""
    requests: list[str]
    """The addresses that it asked for."""

    def shown(self) -> "Served":
        """Wait until all that was asked for is rebuilt."""
        self.page.wait_for_function(
            """() => {
              const states = [...document.querySelectorAll('main > :not([hidden]) section')].map((one) => one.dataset.state);
              return states.includes('shown') && !states.includes('working');
            }""",
            timeout=60_000,
        )
        return self

    def pixels(self, view: str, run: int = 0) -> list[int]:
        """Red, green and blue of a picture, row by row."""
        return self.page.evaluate(
            """([view, run]) => {
              const canvas = document.querySelectorAll('section')[run].querySelector(`canvas[data-view=${view}]`);
              const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
              return [...data].filter((_, i) => i % 4 < 3);
            }""",
            [view, run],
        )

    def hidden(self) -> list[bool]:
        """The mask, from the link in the address."""
        return self.page.evaluate(
            """async () => {
              const {read} = await import('./masks.js');
              const text = new URLSearchParams(location.hash.slice(1)).get('mask');
              return read(text, 16);
            }"""
        )

    def drop(self, file: Path) -> None:
        """Drop a file on the page."""
        self.page.evaluate(
            """([name, bytes]) => {
              const dataTransfer = new DataTransfer();
              dataTransfer.items.add(new File([new Uint8Array(bytes)], name));
              document.dispatchEvent(new DragEvent('drop', {dataTransfer}));
            }""",
            [file.name, list(file.read_bytes())],
        )

    def message(self) -> str:
        """What the page says."""
        return self.page.inner_text(".message:visible")


Open = Callable[..., Served]


def check_layout(served: Served, width: int) -> None:
    """At a width of the window: no scrolling sideways, labels for all controls and canvases, and contrast; no request leaves."""
    page = served.page
    origin = page.evaluate("location.origin")
    assert served.requests
    assert all(url.startswith((origin, "data:", "blob:")) for url in served.requests)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    bare = page.evaluate(
        "[...document.querySelectorAll('input, select')].filter((one) => !one.labels.length).map((one) => one.id)"
    )
    assert bare == []
    assert page.evaluate("[...document.querySelectorAll('canvas')].every((one) => one.ariaLabel)")
    # text against its ground, as WCAG 2 asks (4.5)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(CONTRAST) >= 4.5


CONTRAST = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (rgb) => rgb.map((one) => one / 255)
    .map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, i) => sum + one * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = light(numbers(getComputedStyle(document.body).backgroundColor));
  const words = 'p, figcaption, h2, footer, th, td, caption, label, [role=tab]';
  const worst = [...document.querySelectorAll(words)].filter((one) => one.checkVisibility()).map((one) => {
    const ink = light(numbers(getComputedStyle(one).color));
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
  });
  return Math.min(...worst);
}"""


@pytest.fixture(scope="session", autouse=True)
def _with_npm() -> None:
    if shutil.which("npm") is None:
        pytest.skip("there is no npm to fetch onnxruntime-web")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("page") / "photos")


@pytest.fixture(scope="session")
def site(photos: Path) -> Site:
    """Two runs on the same pictures side by side; the second has other weights."""
    root = photos.parent
    runs = tuple(tiny.finished_run(root / name, photos, seed=n) for n, name in enumerate("ab"))
    folder = root / "site"
    write_site(folder, *(run.root for run in runs), "--samples", 3)
    return Site(folder, runs, photos)


def write_site(folder: Path, *words: object) -> dict[str, Any]:
    """Let `unmask page` write a page; its page.json."""
    given = [*map(str, words), "--out", str(folder), "--threads", "1"]
    assert command.main(given) == 0
    return json.loads((folder / "page.json").read_text())


@pytest.fixture(scope="session")
def bands_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A run on 13 bands of float32 with missing values."""
    root = tmp_path_factory.mktemp("bands-page")
    scenes = write_scenes(root / "scenes")
    run = tiny.finished_run(root / "run", scenes)
    folder = root / "site"
    write_site(folder, run.root, "--samples", 2)
    return Site(folder, (run,), scenes)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Open]:
    """`opened(site.folder, link="#...")`: the page in a new window, as `--serve` serves it."""
    servers, contexts = [], []

    def open_page(folder: Path, link: str = "", **window: Any) -> Served:
        server = open_server(folder, 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, **window)
        contexts.append(context)
        page, requests = context.new_page(), []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address_of(server) + link)
        return Served(page, requests)

    yield open_page
    for context in contexts:
        context.close()
    for server in servers:
        server.shutdown()
        server.server_close()
