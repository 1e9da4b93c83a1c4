"""Fetch onnxruntime-web with npm.

The build hook loads this file by its path, without the package: it imports the standard library alone.
"""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

VERSION = "1.30.0"
"""Of onnxruntime-web."""

SHA256 = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""The files that a page needs of that version (the build for WebAssembly alone, without WebGPU), and their hashes."""

PACKAGE = f"onnxruntime-web@{VERSION}"
"""As npm calls it."""


class NotFetchedError(Exception):
    """Why the files could not be fetched."""


def fetch(destination: Path, seconds: float, *flags: str) -> None:
    """Let npm fetch the package, and put the files into a folder, which is replaced.

    Args:
        destination: appears once all files are there.
        seconds: how long npm may take.
        flags: more for `npm pack`.

    Raises:
        NotFetchedError: if there is no npm, it fails, or the files are others or cannot be written.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise NotFetchedError("npm is not on PATH")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".npm-") as folder:
            archive = _packed(npm, Path(folder), seconds, flags)
            new = Path(folder) / "files"
            new.mkdir()
            _unpack(archive, new)
            shutil.rmtree(destination, ignore_errors=True)
            new.rename(destination)
    except (OSError, KeyError, EOFError, zlib.error, tarfile.TarError) as error:
        lines = str(error).strip().splitlines()
        raise NotFetchedError(lines[0] if lines else type(error).__name__) from None


def _packed(npm: str, folder: Path, seconds: float, flags: tuple[str, ...]) -> Path:
    """The archive of the package."""
    command = [npm, "pack", PACKAGE, "--silent", *flags, "--pack-destination", str(folder)]
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
            cwd=folder,
        )
    except subprocess.TimeoutExpired:
        raise NotFetchedError(f"no answer in {seconds:.0f} seconds") from None
    if ended.returncode != 0:
        lines = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
        raise NotFetchedError(lines[0] if lines else f"status {ended.returncode}")
    archives = list(folder.glob("*.tgz"))
    if len(archives) != 1:
        raise NotFetchedError(f"npm wrote {len(archives)} archives instead of one")
    return archives[0]


def _unpack(archive: Path, folder: Path) -> None:
    """The files of an archive whose contents are those of the release."""
    with tarfile.open(archive) as package:
        for name, wanted in SHA256.items():
            member = package.extractfile(f"package/dist/{name}")
            if member is None:
                raise NotFetchedError(f"its {name} is not a file")
            content = member.read()
            if hashlib.sha256(content).hexdigest() != wanted:
                raise NotFetchedError(f"its {name} has another SHA-256 than that of the release")
            (folder / name).write_bytes(content)
