"""`unmask page`: what it says, and mistakes; what the page does is tested in tests/page."""

import contextlib
import hashlib
import ipaddress
import json
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import types
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.said import Unmask
from runs import tiny
from safetensors.torch import load_file

from unmask.errors import ResourceError, RunError
from unmask.page import npm, runtime, site
from unmask.page.runtime import FILES
from unmask.page.server import address_of, open_server
from unmask.runs.folder import RunFolder


@pytest.mark.slow
def test_it_writes_a_folder_and_replaces_an_earlier_page(
    unmask: Unmask, trained: RunFolder, packed: Path, tmp_path: Path
) -> None:
    flags = ["--runtime", packed.parent, "--samples", "2"]
    said = unmask("page", trained.root, "--out", "page", "--dtype", "float16", *flags)
    assert said.status == 0, said.err
    assert re.search(
        r"model trained: 0\.\d MB, largest difference to unmask \d\.\de-\d\d", said.out
    )
    assert "2 images of the runs' own will be readable by all who get the page" in said.all
    assert "written page: index.html and what it needs, no request leaves it" in said.out
    index = json.loads(Path("page/page.json").read_text())
    (run,) = index["models"]
    assert Path("page", run["file"]).stat().st_size == run["bytes"]
    views = [one["views"]["0"] for one in index["samples"]]
    assert [Path("page", one["file"]).stat().st_size for one in views] == [
        3 * one["height"] * one["width"] for one in views
    ]
    assert run["description"]["weights"] == "float16"
    for file in Path("page").rglob("*"):
        assert not file.is_file() or str(tmp_path.parent).encode() not in file.read_bytes(), file
    assert "MIT License" in Path("page/runtime/onnxruntime-LICENSE.txt").read_text()
    before = run["file"]
    with contextlib.chdir("page"):  # in which a shell may stand
        said = unmask("page", trained.root, "--out", ".", "--runtime", packed, "--samples", "0")
    assert said.status == 0, said.err
    assert not Path("page", before).exists()
    assert "readable" not in said.out
    assert sorted(path.name for path in Path().iterdir()) == ["page"]


@pytest.mark.slow
def test_each_folder_has_an_encoder_of_its_own(
    unmask: Unmask, trained: RunFolder, images: Path, packed: Path
) -> None:
    """One at its place in a file of several models, another that was moved."""
    unmask("convert", trained.root, "theirs", "--to", "huggingface")
    tensors = load_file("theirs/model.safetensors")
    torch.save({"student": tensors, "teacher": tensors}, "theirs/two.pth")
    other = tiny.finished_run(Path("other"), images, seed=5)
    said = unmask("embed", "theirs/two.pth:student", images, "--out", "vectors")
    assert said.status == 0, said.err
    said = unmask("odd", other.root, images, images, "--out", "memory", "--memory", "9")
    assert said.status == 0, said.err
    other.root.rename("moved")
    words = ["vectors", "memory", "--runtime", packed, "--samples", "0"]
    said = unmask("page", *words)
    assert "the encoder of memory is not at" in said.err
    assert "say where it is with --encoder" in said.err
    said = unmask("page", *words, "--encoder", "moved")
    assert said.status == 0, said.err


@pytest.mark.slow
def test_a_served_page_ends_with_ctrl_c(trained: RunFolder, packed: Path, tmp_path: Path) -> None:
    words = ["page", trained.root, "--out", tmp_path / "page", "--samples", "0", "--threads", "1"]
    words += ["--runtime", packed, "--serve", "--port", "0"]
    # a process that a shell started in the background ignores SIGINT, and so do its children
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from unmask.cli import main; main()"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        line = next(line for line in lines if line.startswith("serving"))
        found = re.search(r"http://[\d.]+:\d+/", line)
        assert found is not None
        with urllib.request.urlopen(f"{found[0]}page.json") as answer:
            assert [one["name"] for one in json.load(answer)["models"]] == ["trained"]
        process.send_signal(signal.SIGINT)
        assert "stopped" in process.stdout.read()
    assert process.returncode == 0


class TestBadInput:
    """One sentence each, before anything is written."""

    def test_no_run(self, unmask: Unmask) -> None:
        said = unmask("page")
        assert "which run? `unmask page runs/NAME --out page`" in said.err

    def test_an_encoder_that_nothing_needs(self, unmask: Unmask, trained: RunFolder) -> None:
        said = unmask("page", trained.root, "--encoder", trained.root)
        assert (
            "--encoder is for folders of `unmask embed` and `unmask odd`, and none is" in said.err
        )

    def test_a_folder_with_other_files(
        self, unmask: Unmask, trained: RunFolder, packed: Path
    ) -> None:
        Path("mine").mkdir()
        Path("mine/thesis.txt").write_text("years of work")
        said = unmask("page", trained.root, "--out", "mine", "--runtime", packed)
        assert (
            said.err
            == "unmask: mine holds other files, such as thesis.txt; give a new folder, or that of an earlier page"
        )
        said = unmask("page", trained.root, "--out", "mine/thesis.txt", "--runtime", packed)
        assert said.err == "unmask: mine/thesis.txt is a file; give a folder"
        assert Path("mine/thesis.txt").read_text() == "years of work"

    @pytest.mark.parametrize("index", ["{}", "[]", "not JSON", '{"runs": []}'])
    def test_a_page_json_of_something_else(
        self, unmask: Unmask, trained: RunFolder, packed: Path, index: str
    ) -> None:
        Path("mine/.git").mkdir(parents=True)
        Path("mine/.git/HEAD").write_text("ref")
        Path("mine/page.json").write_text(index)
        said = unmask("page", trained.root, "--out", "mine", "--runtime", packed)
        assert (
            said.err
            == "unmask: mine holds other files, such as .git; give a new folder, or that of an earlier page"
        )
        assert Path("mine/.git/HEAD").read_text() == "ref"

    def test_an_earlier_page_with_other_files(
        self, unmask: Unmask, trained: RunFolder, packed: Path, tmp_path: Path
    ) -> None:
        site.write_page([], [], tmp_path / "mine", packed, "float32")
        site.write_page(
            [], [], tmp_path / "mine", packed, "float32"
        )  # its own files alone are replaced
        (tmp_path / "mine/samples").mkdir()
        (tmp_path / "mine/samples/notes.txt").write_text("years of work")
        said = unmask("page", trained.root, "--out", tmp_path / "mine", "--runtime", packed)
        assert said.err == (
            f"unmask: {tmp_path / 'mine'} holds other files, such as samples; give a new folder, or that of an earlier page"
        )
        assert (tmp_path / "mine/samples/notes.txt").exists()

    def test_an_encoder_alone(self, unmask: Unmask, trained: RunFolder, packed: Path) -> None:
        encoder = tiny.newest(trained).folder / "encoder.safetensors"
        said = unmask("page", encoder, "--out", "page", "--runtime", packed)
        assert said.status == 1
        assert "cannot be shown on a page, because it rebuilds no pixels" in said.err
        assert "--to onnx` exports its encoder" in said.err
        assert not Path("page").exists()

    def test_weights_without_a_run(self, unmask: Unmask, trained: RunFolder, packed: Path) -> None:
        weights = tiny.newest(trained).folder / "model.safetensors"
        said = unmask("page", weights, "--out", "page", "--runtime", packed)
        assert "does not say which images it saw; give some with --images FOLDER" in said.err

    def test_a_taken_port(self, unmask: Unmask, trained: RunFolder, packed: Path) -> None:
        server = open_server(Path(), 0)
        port = server.server_address[1]
        said = unmask("page", trained.root, "--runtime", packed, "--serve", "--port", port)
        assert said.status == 1
        assert f"--port {port} is taken by another program; choose another, or --port 0" in said.err
        server.server_close()
        said = unmask("page", trained.root, "--port", "70000")
        assert "port" in said.err
        assert "65535" in said.err

    def test_a_folder_without_the_runtime(self, unmask: Unmask, trained: RunFolder) -> None:
        said = unmask("page", trained.root, "--runtime", "nowhere")
        assert said.err.startswith("unmask: --runtime nowhere lacks ort.wasm.min.mjs, ")

    def test_a_missing_package(
        self, unmask: Unmask, trained: RunFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnx", None)
        said = unmask("page", trained.root)
        assert "unmask page needs the package onnx; install it with" in said.err


class TestRuntime:
    """Where onnxruntime-web comes from."""

    def test_no_npm(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "which", lambda name: None)
        with pytest.raises(
            ResourceError, match="npm is not on PATH to fetch it; install npm, or give"
        ):
            runtime.fetch_with_npm(tmp_path / "cache")

    def test_npm_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _npm(tmp_path, "echo 'npm ERR! network' >&2; exit 1", monkeypatch)
        with pytest.raises(
            ResourceError, match=r"npm could not fetch .* \(npm ERR! network\); try"
        ):
            runtime.fetch_with_npm(tmp_path / "cache")
        assert not (tmp_path / "cache").exists()

    def test_npm_gives_another_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with tarfile.open(tmp_path / "other.tgz", "w:gz") as archive:
            archive.add(__file__, "package/dist/other.mjs")
        _npm(tmp_path, f"cp {tmp_path}/other.tgz .", monkeypatch)
        with pytest.raises(ResourceError, match="npm could not fetch"):
            runtime.fetch_with_npm(tmp_path / "cache")

    def test_npm_fills_the_cache_once(
        self, tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with tarfile.open(tmp_path / "right.tgz", "w:gz") as archive:
            archive.add(packed, "package/dist")
        _npm(tmp_path, f"cp {tmp_path}/right.tgz .", monkeypatch)
        monkeypatch.setattr(runtime, "PACKAGED", tmp_path / "none")
        with pytest.raises(ResourceError, match=r"ort.wasm.min.mjs has another SHA-256"):
            runtime.fetch_with_npm(tmp_path / "cache")
        own = {name: hashlib.sha256(name.encode()).hexdigest() for name in FILES}
        monkeypatch.setattr(npm, "SHA256", own)
        monkeypatch.setattr(runtime, "cache_folder", lambda: tmp_path / "cache")
        folder = runtime.find_runtime(None)
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
        _npm(tmp_path, "exit 1", monkeypatch)
        assert runtime.find_runtime(None) == folder
        assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [folder.name]


def test_the_earlier_page_stays_if_the_new_one_cannot_take_its_place(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "web" / "page"
    site.write_page([], [], folder, packed, "float32")
    (folder / "page.json").write_text((folder / "page.json").read_text() + "\n")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == folder / "page.json" and ".writing-" in str(self):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(ResourceError, match=r"cannot be written [(]No space left on device"):
        site.write_page([], [], folder, packed, "float32")
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["page"]


@pytest.mark.parametrize("out", [".", "link"])
@pytest.mark.parametrize("is_mount", [False, True])
def test_a_folder_is_filled_and_stays_the_same(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, is_mount: bool
) -> None:
    folder = tmp_path / "web" / "page"
    folder.mkdir(parents=True)
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(folder)
    rename = Path.rename

    def within_a_disk(self: Path, target: Path) -> Path:
        if (folder in self.parents) != (folder in target.parents):
            raise OSError(18, "Invalid cross-device link")
        return rename(self, target)

    if is_mount:
        monkeypatch.setattr(Path, "is_mount", lambda self: self == folder)
        monkeypatch.setattr(Path, "rename", within_a_disk)
    monkeypatch.chdir(folder if out == "." else link.parent)
    number = folder.stat().st_ino
    for _ in range(2):
        site.write_page([], [], Path(out), packed, "float32")
        listed = json.loads((folder / "page.json").read_text())["files"]
        there = {
            file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()
        }
        assert there == {"page.json", *listed}
        assert folder.stat().st_ino == number
        assert link.is_symlink()
        assert [path.name for path in folder.parent.iterdir()] == ["page"]
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match=r"holds other files, such as thesis\.txt"):
        site.write_page([], [], Path(out), packed, "float32")


def test_a_link_to_a_folder_that_is_not_there_yet(packed: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "web" / "page")
    site.write_page([], [], link, packed, "float32")
    assert link.is_symlink()
    assert (tmp_path / "web/page/index.html").is_file()


def _npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of this name in place of npm."""
    program = folder / "bin" / "npm"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))


def _hook(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The build hook, for a wheel in a folder."""
    # what it needs of hatchling, which only builds install
    interface = types.ModuleType("interface")
    vars(interface)["BuildHookInterface"] = object
    monkeypatch.setitem(sys.modules, "hatchling.builders.hooks.plugin.interface", interface)
    root = Path(__file__).parents[2]
    made = runpy.run_path(str(root / "hatch_build.py"))["RuntimeHook"]()
    made.root, made.directory = str(root), str(folder)
    return made


def test_a_wheel_holds_the_runtime_and_a_page_takes_it_from_there(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "right.tgz", "w:gz") as archive:
        archive.add(packed, "package/dist")
    _npm(tmp_path, f"cp {tmp_path}/right.tgz .", monkeypatch)
    made = _hook(tmp_path, monkeypatch)
    run_path = runpy.run_path

    def with_these_hashes(path: str) -> dict[str, Any]:
        names = run_path(path)
        names["SHA256"].update({one: hashlib.sha256(one.encode()).hexdigest() for one in FILES})
        return names

    monkeypatch.setattr(runpy, "run_path", with_these_hashes)
    build: dict[str, dict[str, str]] = {"force_include": {}}
    made.initialize("editable", build)
    assert build == {"force_include": {}}
    made.initialize("standard", build)
    assert sorted(build["force_include"].values()) == [
        f"unmask/page/onnxruntime-web/{name}" for name in sorted(FILES)
    ]
    # as an installation of that wheel has them
    installed, cache = tmp_path / "site-packages", tmp_path / "cache"
    packaged = installed / runtime.PACKAGED.relative_to(runtime.PACKAGED.parents[2])
    for source, place in build["force_include"].items():
        for target in (
            installed / place,
            cache / f"onnxruntime-web-{npm.VERSION}" / Path(place).name,
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    monkeypatch.setattr(runtime, "PACKAGED", packaged)
    monkeypatch.setattr(runtime, "cache_folder", lambda: cache)
    assert runtime.find_runtime(None) == packaged
    made.finalize("standard", build, "")
    assert not (tmp_path / ".onnxruntime-web").exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "npm is not on PATH"),
        ("echo 'npm ERR! network' >&2; exit 1", "npm could not fetch it: npm ERR! network"),
        ("exit 1", "npm could not fetch it: status 1"),
        ("exit 0", "npm wrote 0 archives instead of one"),
        ("touch a.tgz b.tgz", "npm wrote 2 archives instead of one"),
        ("printf '\\037\\213\\010\\000' > a.tgz", "npm could not fetch it"),
        ("cp ../right.tgz .", "ort.wasm.min.mjs has another SHA-256"),
    ],
)
def test_a_wheel_is_built_without_the_runtime(
    script: str | None,
    said: str,
    tmp_path: Path,
    packed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with tarfile.open(tmp_path / "right.tgz", "w:gz") as archive:
        archive.add(packed, "package/dist")
    if script is None:
        monkeypatch.setattr(shutil, "which", lambda name: None)
    else:
        _npm(tmp_path, script, monkeypatch)
    build: dict[str, dict[str, str]] = {"force_include": {}}
    made = _hook(tmp_path, monkeypatch)
    made.initialize("standard", build)
    assert build == {"force_include": {}}
    assert said in capsys.readouterr().err
    made.finalize("standard", build, "")
    assert not (tmp_path / ".onnxruntime-web").exists()
    assert not list(tmp_path.glob(".npm-*"))


def test_types_and_headers_of_the_server(tmp_path: Path) -> None:
    wanted_types = {
        "index.html": "text/html; charset=utf-8",
        "a.mjs": "text/javascript; charset=utf-8",
        "a.js": "text/javascript; charset=utf-8",
        "a.wasm": "application/wasm",
        "a.onnx": "application/octet-stream",
    }
    for name in wanted_types:
        (tmp_path / name).write_text("x")
    server = open_server(tmp_path, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for name, wanted in wanted_types.items():
            with urllib.request.urlopen(address_of(server) + name) as answer:
                assert answer.headers["Content-Type"] == wanted
                assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
                assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert ipaddress.ip_address(server.server_address[0]).is_loopback
    finally:
        server.shutdown()
        server.server_close()
