"""No file that others see tells where it was written."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ["src", "docs", "tests", "examples", "benchmarks", "studies", ".ci", "scripts"]
KINDS = {
    ".py",
    ".md",
    ".toml",
    ".lock",
    ".txt",
    ".json",
    ".csv",
    ".cff",
    ".yml",
    ".yaml",
    ".sh",
    "",
}

FOLDERS = ["work", "home", "root", "Users", "mnt", "workspace"]
HOSTS = ["artifactory", "nexus", "localhost", r"127\.0\.0\.1", r"\.internal\b", r"/simple\b"]
TELLTALE = re.compile(rf"(?<![\w.<>*-])/(?:{'|'.join(FOLDERS)})/[\w.-]|" + "|".join(HOSTS))


def files() -> Iterator[Path]:
    """Every text file that could be published, this one apart."""
    top = [path for path in ROOT.iterdir() if path.is_file()]
    below = [path for place in PLACES for path in (ROOT / place).rglob("*")]
    for path in sorted(top + below):
        hidden = "__pycache__" in path.parts or not path.is_file() or path == Path(__file__)
        if (
            not hidden
            and path.suffix in KINDS
            and path.name not in (".git", "uv.lock", "pylock.toml")
        ):
            yield path


def test_no_path_or_host_of_a_machine() -> None:
    found = []
    for path in files():
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if hit := TELLTALE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {hit.group()}")
    assert found == []


@pytest.mark.parametrize(
    "line", ["see /" + "home/me/x.png", "index = https://" + "nexus" + ".example/pypi"]
)
def test_the_search_would_find_them(line: str) -> None:
    assert TELLTALE.search(line)


def test_there_are_files_to_search() -> None:
    names = {path.name for path in files()}
    assert {"README.md", "pyproject.toml", "vit.py", "test_words.py"} - names == {"test_words.py"}


def test_pins_name_no_host() -> None:
    pins = ROOT / "requirements.lock"
    if pins.exists():
        assert "://" not in pins.read_text()
