"""How the commands are called: in this process, in a folder of their own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands.said import Said, Unmask, plain
from runs import tiny

from unmask import cli
from unmask.console.verbosity import VERBOSITY
from unmask.page.runtime import FILES
from unmask.runs.folder import RunFolder


@pytest.fixture
def unmask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Unmask]:
    """`unmask("pretrain", folder, ...)`: run a command line in an empty folder."""

    def run(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["unmask", *map(str, words)])
        capsys.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Said(status, plain(out), plain(err), out)

    # One core: watching the others takes time, and several threads in each of several test processes stall each other.
    monkeypatch.setattr("unmask.console.hardware.cores", lambda: 1)
    monkeypatch.setattr("unmask.console.hardware.free_cores", lambda: 1)
    monkeypatch.setenv(VERBOSITY, "normal")  # --quiet changes it
    threads = torch.get_num_threads()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield run
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve colour images."""
    return tiny.write_images(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of ten images."""
    return tiny.write_classes(tmp_path_factory.mktemp("data") / "animals")


@pytest.fixture(scope="session")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run on the images; nothing may write to it."""
    return tiny.finished_run(tmp_path_factory.mktemp("run") / "trained", images)


@pytest.fixture(scope="session")
def recipe() -> list[str]:
    """Flags that make `unmask pretrain` take three steps of milliseconds on twelve images."""
    flags = {"recipe": f"{tiny.__file__}:RECIPE", "epochs": 1, "threads": 1, "workers": 0}
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A folder with something in place of onnxruntime-web."""
    folder = tmp_path / "ort" / "dist"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text(name)
    return folder
