"""Uploading, against a local stand-in that answers the few calls which an upload makes."""

import base64
import ipaddress
import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub.constants
import pytest
from formats.models import ENCODER_ALONE, read_weights, weights_of, written
from runs import tiny

import unmask
from unmask.commands import convert
from unmask.errors import ResourceError, SettingsError
from unmask.formats.hub import push

HERE = str(ipaddress.ip_address(socket.INADDR_LOOPBACK))
TOKEN = "hf_of_a_test"


class StandIn(ThreadingHTTPServer):
    """Keeps what is sent; knows one token."""

    def __init__(self) -> None:
        super().__init__((HERE, 0), Answers)
        self.created: list[str] = []
        self.files: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return f"http://{HERE}:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        if self.has_token():
            self.answer(200, {"id": "me/mine", "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.has_token():
            return
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            self.server.created.append(name)
            self.answer(200, {"url": f"{self.server.address}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            mode = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self.answer(200, {"files": [{"path": name, **mode} for name in names]})
        elif "/commit/" in self.path:
            self.keep(body)
            url = f"{self.server.address}/me/mine/commit/{'0' * 40}"
            self.answer(200, {"success": True, "commitOid": "0" * 40, "commitUrl": url})
        else:
            self.answer(404, {"error": f"not known here: {self.path}"})

    def has_token(self) -> bool:
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not known:
            self.answer(401, {"error": "Invalid username or password."})
        return known

    def keep(self, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.server.files[line["value"]["path"]] = content

    def answer(self, status: int, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setenv("NO_PROXY", HERE)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with StandIn() as found:
        thread = Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(weights_of(ENCODER_ALONE), tmp_path / "mine", "huggingface").parent


def test_all_files_arrive(server: StandIn, folder: Path, tmp_path: Path) -> None:
    address = push(folder, "me/mine", server.address, TOKEN)
    assert address == f"{server.address}/me/mine"
    assert server.created == ["me/mine"]
    assert server.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "back").mkdir()
    for name, content in server.files.items():
        (tmp_path / "back" / name).write_bytes(content)
    assert read_weights(tmp_path / "back").spec == ENCODER_ALONE


def test_weights_arrive_with_the_picture_and_the_link_of_their_card(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def push_here(folder: Path, repo: str) -> str:
        return push(folder, repo, server.address, TOKEN)

    monkeypatch.setattr(convert, "push", push_here)
    made = unmask.convert(
        written(weights_of(), tmp_path / "mine", "unmask"),
        tmp_path / "files",
        to="unmask",
        images=tiny.write_images(tmp_path / "photos", 3),
        page="https://example.org/page/",
        push="me/mine",
    )
    assert made.pushed == f"{server.address}/me/mine"
    assert server.files == {path.name: path.read_bytes() for path in (tmp_path / "files").iterdir()}
    assert "model.safetensors" in server.files
    card = server.files["README.md"].decode()
    assert "(reconstructions.png)" in card
    assert "[Try it in the browser](https://example.org/page/)" in card
    assert server.files["reconstructions.png"].startswith(b"\x89PNG")


def test_wrong_token(server: StandIn, folder: Path) -> None:
    with pytest.raises(
        ResourceError, match=r"not uploaded: the server needs a token .* `hf auth login"
    ):
        push(folder, "me/mine", server.address, "hf_wrong")
    assert server.files == {}


def test_server_that_is_not_there(server: StandIn, folder: Path) -> None:
    gone = ThreadingHTTPServer((HERE, 0), Answers)
    gone.server_close()
    with pytest.raises(
        ResourceError, match=r"could not be uploaded to me/mine .* `hf upload me/mine"
    ):
        push(folder, "me/mine", f"http://{HERE}:{gone.server_port}", TOKEN)


def test_name_that_is_none(server: StandIn, folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"--push a/b/c is not a valid name of a repository"):
        push(folder, "a/b/c", server.address, TOKEN)
