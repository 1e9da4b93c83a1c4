"""The documentation site is built without a warning, and its pages are found from its index."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from docs.pages import ROOT

import unmask

SCRIPT = ROOT / "scripts" / "site.py"


def build(out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True)


def test_other_files_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("dear")
    refused = build(tmp_path)
    assert refused.returncode == 1
    assert "holds other files" in refused.stderr
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.slow
def test_the_site_is_built(tmp_path: Path) -> None:
    site = tmp_path / "site"
    built = build(site)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "No issues found" in built.stdout + built.stderr
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        place = page.relative_to(ROOT).with_suffix("").as_posix()
        assert (site / place / "index.html").exists()
        assert re.search(rf'href="(\./)?{place}/"', home), f"zensical.toml does not list {place}"
    for fetched in re.findall(r'(?:src|href)="(https?://[^"]+)"', home):
        assert not re.search(r"fonts\.|cdn|\.js$|\.css$", fetched), fetched
    api = (site / "docs/api/index.html").read_text(encoding="utf-8")
    for name in set(unmask.__all__) - {"RECIPES", "TRANSFERS", "__version__"}:  # values
        assert f'id="unmask.{name}"' in api, name


def test_readme_and_the_site_list_the_same_pages_under_the_same_names() -> None:
    """Every page of docs is there once, in the same sections and order."""
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    site = {
        section: [
            (name, path.replace("index.md", "README.md"))
            for entry in entries
            for name, path in entry.items()
        ]
        for part in nav
        for section, entries in part.items()
        if section != "Home"
    }
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## Documentation\n")[1]
    readme = {
        section: re.findall(r"\[([^]]+)\]\(([^)]+)\)", links)
        for section, links in re.findall(r"^- \*\*(.+)\*\*: (.+)$", text, re.M)
    }
    assert readme == site
    listed = [path for entries in site.values() for _, path in entries]
    pages = {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(path for path in listed if path.startswith("docs/")) == sorted(pages)


def test_every_study_is_reached_from_their_index() -> None:
    index = (ROOT / "studies" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "studies").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name
