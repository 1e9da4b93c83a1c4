"""Pages of tiny runs, a server for them, and a real Chromium; skipped where there is none."""

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
              const states = [...document.querySelectorAll('section')].map((one) => one.dataset.state);
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

    def message(self) -> str:
        """What the page says."""
        return self.page.inner_text("#message")


Open = Callable[..., Served]


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
    words = [str(run.root) for run in runs]
    assert command.main([*words, "--out", str(folder), "--samples", "3", "--threads", "1"]) == 0
    return Site(folder, runs, photos)


@pytest.fixture(scope="session")
def bands_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A run on 13 bands of float32 with missing values."""
    root = tmp_path_factory.mktemp("bands-page")
    scenes = write_scenes(root / "scenes")
    run = tiny.finished_run(root / "run", scenes)
    folder = root / "site"
    assert (
        command.main([str(run.root), "--out", str(folder), "--samples", "2", "--threads", "1"]) == 0
    )
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
