"""A server of static files on this machine, for looking at a page."""

import socket
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from unmask.errors import SettingsError

HOST = socket.inet_ntoa(socket.INADDR_LOOPBACK.to_bytes(4))
"""This machine, which no other can reach."""


class Handler(SimpleHTTPRequestHandler):
    """Files with the types that browsers insist on, and the headers that allow threads."""

    # registries of some systems have other types for these, or none
    extensions_map: ClassVar[dict[str, str]] = {  # pyright: ignore[reportIncompatibleVariableOverride] - as http.server says
        **SimpleHTTPRequestHandler.extensions_map,
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".mjs": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".wasm": "application/wasm",
        ".onnx": "application/octet-stream",
        ".bin": "application/octet-stream",
    }

    def end_headers(self) -> None:
        """Isolated, so that WebAssembly may use threads; and asked again after each change."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""


def open_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder, for this machine alone; it answers once `serve_forever` is called.

    Args:
        folder: with index.html.
        port: 0 for any free one.

    Raises:
        SettingsError: if the port is taken, or may not be used.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(Handler, directory=str(folder)))
    except PermissionError:
        raise SettingsError(
            f"--port {port} may not be used by this user; take one from 1024 on"
        ) from None
    except OSError:
        raise SettingsError(
            f"--port {port} is taken by another program; choose another, or --port 0 for any free one"
        ) from None


def address_of(server: ThreadingHTTPServer) -> str:
    """Where a browser finds the page."""
    return f"http://{HOST}:{server.server_address[1]}/"
