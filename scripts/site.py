"""The documentation site: README, docs, studies and benchmarks as they lie in the tree, and the API from its docstrings.

    python scripts/site.py --out site
    python -m http.server --directory site

Needs the extra `docs`. The pages keep their places, so a link that works in the tree works on the site; a source file that a page
links to is copied beside it, and a linked folder leads to its page. A link or a heading that does not exist is an error.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/**/*.md",
    "studies/*.md",
    "benchmarks/*.md",
)
MARKER = ".unmask-site"
"""A file that says that a folder was written here."""

_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s]+)(#[^)]*)?\)")


def pages() -> list[Path]:
    """The pages of the site."""
    return sorted({page for pattern in PAGES for page in ROOT.glob(pattern)})


def links(page: Path, text: str) -> Iterator[tuple[str, Path]]:
    """The links of a page to other files of the tree, as they are written and where they lead."""
    for found in _LINK.finditer(text):
        written = found.group(2)
        if "://" not in written and not written.startswith("mailto:"):
            yield written, (page.parent / written).resolve()


def stage(source: Path) -> list[str]:
    """Copy the pages and what they link to; the links that lead nowhere."""
    broken: list[str] = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for written, target in links(page, text):
            if not target.exists():
                broken.append(f"{page.relative_to(ROOT)}: {written}")
            elif target.suffix != ".md":
                text = with_link(text, written, page, target, source)
        place = source / page.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_name("index.md" if place.name == "README.md" else place.name).write_text(
            text.replace("README.md", "index.md"), encoding="utf-8"
        )
    return broken


def with_link(text: str, written: str, page: Path, target: Path, source: Path) -> str:
    """A page whose link to a file or folder works on the site; the file is copied."""
    inside = target.relative_to(ROOT)
    if target.is_dir():
        listing = inside / "index.md"
        if not (target / "README.md").exists():
            write_listing(target, source / listing)
        leads = os.path.relpath(listing, page.parent.relative_to(ROOT))
        return re.sub(rf"\]\({re.escape(written)}\)", f"]({leads})", text)
    place = source / inside
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(target, place)
    return text


def write_listing(folder: Path, page: Path) -> None:
    """A page that lists the files of a folder with their first lines; the files lie beside it."""
    page.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"# {folder.relative_to(ROOT).as_posix()}", ""]
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        shutil.copy(file, page.parent / file.name)
        first = re.match(r'"""(.+?)"*$', file.read_text(encoding="utf-8", errors="replace"), re.M)
        lines.append(f"- [{file.name}]({file.name})" + (f": {first.group(1)}" if first else ""))
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def is_site(folder: Path) -> bool:
    """Whether a folder is empty or an earlier site, so that it may be replaced."""
    if not folder.is_dir():
        return False
    return (folder / MARKER).exists() or not any(folder.iterdir())


def main() -> None:
    """Build the site."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("site"))
    args = parser.parse_args()
    if importlib.util.find_spec("zensical") is None:
        sys.exit("the site needs zensical and mkdocstrings: pip install 'unmask[docs]'")
    if args.out.exists() and not is_site(args.out):
        sys.exit(
            f"{args.out} holds other files; choose a new folder for --out, or one that an earlier site is in"
        )
    with tempfile.TemporaryDirectory() as name:
        build = Path(name)
        if broken := stage(build / "docs"):
            sys.exit("links to nothing:\n" + "\n".join(broken))
        config = (ROOT / "zensical.toml").read_text(encoding="utf-8")
        (build / "zensical.toml").write_text(
            config.replace('paths = ["src"]', f'paths = ["{ROOT.as_posix()}/src"]'),
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        if subprocess.run(command, cwd=build).returncode:
            sys.exit("the site was not built")
        shutil.rmtree(args.out, ignore_errors=True)
        (build / "site" / MARKER).touch()
        shutil.copytree(build / "site", args.out)
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
