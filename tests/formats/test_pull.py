"""`hf:OWNER/NAME`, against a local stand-in that answers what a download asks for."""

import hashlib
import ipaddress
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub.constants
import pytest
import torch
from formats.models import weights_of, written

import unmask
from unmask.errors import DataError, ResourceError, RunError, SettingsError
from unmask.formats.hub import pull
from unmask.runs import weights as runs

HERE = str(ipaddress.ip_address(socket.INADDR_LOOPBACK))
SHA = "0" * 40


class StandIn(ThreadingHTTPServer):
    """Repositories by their names, each a folder."""

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__((HERE, 0), Answers)
        self.repositories = repositories
        self.fetched: list[str] = []

    @property
    def address(self) -> str:
        return f"http://{HERE}:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: StandIn

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        folder = self.server.repositories.get(name)
        if folder is None:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif parts[0] == "api" and "tree" in parts:
            entries = [
                {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": SHA}
                for name in names_in(folder)
            ]
            self.send(200, json.dumps(entries).encode())
        elif parts[0] == "api":
            siblings = [{"rfilename": name} for name in names_in(folder)]
            self.send(200, json.dumps({"id": name, "sha": SHA, "siblings": siblings}).encode())
        else:
            name = "/".join(parts[4:])  # after OWNER/NAME/resolve/REVISION
            content = (folder / name).read_bytes()
            if self.command == "GET":
                self.server.fetched.append(name)
            mark = hashlib.sha256(content).hexdigest()
            self.send(200, content, {"X-Repo-Commit": SHA, "ETag": f'"{mark}"'})

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


def names_in(folder: Path) -> list[str]:
    """All files, also those in folders."""
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    weights = weights_of()
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "README.md").write_text("nothing here")
    repositories = {
        "me/mine": written(weights, tmp_path / "ours", "unmask").parent,
        "me/vit-mae": written(weights, tmp_path / "theirs", "huggingface").parent,
        "me/nothing": tmp_path / "none",
    }
    constants = huggingface_hub.constants
    monkeypatch.setenv("NO_PROXY", HERE)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with StandIn(repositories) as found:
        monkeypatch.setattr(runs, "pull", partial(pull, endpoint=found.address))
        thread = Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["me/mine", "me/vit-mae"])
def test_weights_of_the_hub_are_those_that_were_uploaded(server: StandIn, name: str) -> None:
    """In our own layout, and in that of transformers' ViTMAE."""
    model = unmask.load(f"hf:{name}")
    folder = server.repositories[name]
    ours = unmask.load(folder)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(images), ours(images))
    assert model.objective is not None
    assert model.about == f"hf:{name}"
    assert str(folder) not in model.spec.origin
    assert "README.md" not in server.fetched
    fetched = len(server.fetched)
    assert unmask.load(f"hf:{name}").spec == model.spec
    assert len(server.fetched) == fetched  # from the cache


def test_checkpoints_of_a_training_are_left_on_the_hub(server: StandIn) -> None:
    """Folders, what a trainer saves beside the weights, and other formats of the same weights."""
    folder = server.repositories["me/vit-mae"]
    (weights,) = folder.glob("*.safetensors")
    for name in ("checkpoint-5/model.safetensors", "checkpoint-5/optimizer.pt", "optimizer.pt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"large")
    for name in ("training_args.bin", "pytorch_model.bin", "another.safetensors"):
        (folder / name).write_bytes(b"large")
    assert unmask.load("hf:me/vit-mae").about == "hf:me/vit-mae"
    assert weights.name in server.fetched
    assert set(server.fetched) <= {weights.name, "config.json", "preprocessor_config.json"}


def test_a_file_of_any_name_beside_those_of_a_trainer(server: StandIn) -> None:
    folder = server.repositories["me/mine"]
    (weights,) = folder.glob("*.safetensors")
    weights.rename(folder / "mine.safetensors")
    (folder / "training_args.bin").write_bytes(b"large")
    assert unmask.load("hf:me/mine").about == "hf:me/mine"
    assert "training_args.bin" not in server.fetched


def test_without_a_connection_the_cache_is_used(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = unmask.load("hf:me/mine").spec
    gone = ThreadingHTTPServer((HERE, 0), Answers)
    gone.server_close()
    monkeypatch.setattr(runs, "pull", partial(pull, endpoint=f"http://{HERE}:{gone.server_port}"))
    assert unmask.load("hf:me/mine").spec == spec
    with pytest.raises(
        ResourceError, match=r"hf:me/other could not be downloaded .* try again with a connection"
    ):
        unmask.load("hf:me/other")


def test_one_sentence_each(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"hf:me/gone does not exist on the Hub, or is private"):
        unmask.load("hf:me/gone")
    with pytest.raises(DataError, match=r"hf:me/nothing holds no weights"):
        unmask.load("hf:me/nothing")
    for name in ("hf:mine", "hf:", "hf:a/b/c", "hf:a b/c"):
        with pytest.raises(SettingsError, match=r"not a valid name of a repository; use hf:OWNER"):
            unmask.load(name)
    with pytest.raises(SettingsError, match=r"hf:a\.\.b/c is not a valid name of a repository"):
        unmask.load("hf:a..b/c")
    with pytest.raises(RunError, match=r"or hf:OWNER/NAME"):
        unmask.load("nowhere")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ResourceError, match=r'hf:me/mine needs huggingface_hub; .*"unmask\[hub\]"'):
        unmask.load("hf:me/mine")


@pytest.mark.slow
def test_the_endpoint_of_the_environment(server: StandIn, tmp_path: Path) -> None:
    """In a process of its own, as huggingface_hub reads HF_ENDPOINT when it is imported."""
    own = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home")}
    code = "import unmask; print(unmask.load('hf:me/mine').spec.origin)"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **own, "HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.strip() == "a test", ended.stderr
