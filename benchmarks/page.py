"""How long the mask studio takes in a real Chromium: to its first picture, and to repaint after a patch was painted.

The weights are random, which costs the same. `python benchmarks/page.py --images FOLDER` needs Chromium and playwright.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from unmask.commands import page as command
from unmask.contracts import Size
from unmask.data.statistics import IMAGENET
from unmask.formats import FORMATS, write_weights
from unmask.formats.model import FORMAT, ModelSpec, Weights, split
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.page.server import Handler, address_of, open_server
from unmask.recipes import RECIPES

REPAINTS = 30


def weights_of(size: int, patch: int, depth: int) -> Weights:
    """Random weights of an encoder 192 wide, with a decoder of two blocks."""
    recipe = RECIPES["mae-ti16"].recipe
    decoder = SelfAttentionDecoder(embed_dim=192, depth=2, num_heads=3)
    spec = ModelSpec(
        format=FORMAT,
        encoder=replace(recipe.encoder, patch_size=patch, depth=depth),
        objective=replace(recipe.objective, decoder=decoder),
        image_size=Size(size, size),
        channels=3,
        statistics=IMAGENET,
        origin="random weights",
    )
    return Weights(spec, *split(spec.build_objective().state_dict()))


def first_picture(page: Page, address: str) -> float:
    """Seconds from opening the page to the first rebuilt picture."""
    started = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("section[data-state=shown]", timeout=120_000)
    return time.perf_counter() - started


def repaints(page: Page) -> list[float]:
    """Milliseconds from a painted patch to its picture, each measured inside the page."""
    return page.evaluate(
        """async (count) => {
          const canvas = document.querySelector('canvas.paint'), numbers = document.querySelector('.numbers');
          canvas.focus();
          const press = (key) => canvas.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
          const times = [];
          for (let i = 0; i < count; i++) {
            press(i % 7 === 6 ? 'ArrowDown' : 'ArrowRight');
            const done = new Promise((resolve) => {
              const observer = new MutationObserver(() => {
                if (numbers.textContent.includes('patches hidden')) { observer.disconnect(); resolve(); }
              });
              observer.observe(numbers, {childList: true, characterData: true, subtree: true});
            });
            const began = performance.now();
            press(' ');
            await done;
            times.push(performance.now() - began);
            await new Promise((resolve) => setTimeout(resolve, 50));
          }
          return times;
        }""",
        REPAINTS,
    )


def processor_ms(page: Page, act: Callable[[], object]) -> float:
    """Milliseconds of processor time that the page's main thread spends on something; other work does not change it."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "TaskDuration")

    before = spent()
    act()
    return 1000 * (spent() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument(
        "--one-thread", action="store_true", help="as on servers without isolation headers"
    )
    args = parser.parse_args()
    if args.one_thread:
        Handler.end_headers = SimpleHTTPRequestHandler.end_headers
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        weights = weights_of(args.size, args.patch, args.depth)
        file = write_weights(weights, root / "weights", FORMATS["unmask"], "")
        words = ["--images", args.images, "--samples", "1", "--dtype", args.dtype]
        command.main([str(file), "--out", str(root / "page"), *words])
        server = open_server(root / "page", 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            starts = []
            for _ in range(3):
                page = browser.new_context().new_page()
                starts.append(first_picture(page, address_of(server)))
            times: list[float] = []
            spent = processor_ms(page, lambda: times.extend(repaints(page))) / REPAINTS
            about = page.inner_text("#about")
            browser.close()
        server.shutdown()
        size = sum(path.stat().st_size for path in (root / "page" / "models").iterdir())
    print(
        json.dumps(
            {
                "about": about,
                "model_mb": round(size / 1e6, 1),
                "first_picture_s": [round(one, 2) for one in starts],
                "repaint_ms_of_processor": round(spent, 1),
                "repaint_ms_median": round(statistics.median(times), 1),
                "repaint_ms_quartiles": [round(q, 1) for q in statistics.quantiles(times)[::2]],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
