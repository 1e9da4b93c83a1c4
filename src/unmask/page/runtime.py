"""Where the page gets onnxruntime-web: from this package, a folder, the user's cache, or npm."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

from unmask.data.cache import cache_folder
from unmask.errors import ResourceError, SettingsError, first_line

VERSION = "1.30.0"
"""Of onnxruntime-web."""

FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What a page needs of it: the build for WebAssembly alone, without WebGPU."""

SHA256 = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""Of the contents of these files in that version; what npm fetches must match."""

PACKAGED = Path(__file__).parent / "onnxruntime-web"
"""Filled when a wheel is built on a machine with npm; not in a source tree."""

NOTICES = Path(__file__).parent / "notices"
"""Licence and third-party notices of onnxruntime."""

_PACKAGE = f"onnxruntime-web@{VERSION}"
_SECONDS = 300


def find_runtime(given: str | None) -> Path:
    """A folder with the three files.

    Args:
        given: the user's folder; if there is none, this package, the cache and npm are tried.

    Raises:
        SettingsError: if the given folder lacks a file.
        ResourceError: if there is no npm, or it fails.
    """
    if given is not None:
        return _in_folder(Path(given).expanduser())
    cached = cache_folder() / f"onnxruntime-web-{VERSION}"
    for folder in (PACKAGED, cached):
        if _complete(folder):
            return folder
    fetch_with_npm(cached)
    return cached


def fetch_with_npm(destination: Path) -> None:
    """Let npm fetch the package, and keep the three files.

    Raises:
        ResourceError: if there is no npm, it fails, or the files cannot be written.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ResourceError(
            f"the page needs onnxruntime-web {VERSION}, which is not in this installation, and npm is not on PATH to fetch it; "
            "install npm, or give --runtime a folder with " + ", ".join(FILES)
        )
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".npm-") as folder:
            _packed(npm, Path(folder))
            archive = next(Path(folder).glob("*.tgz"))
            new = Path(folder) / "files"
            new.mkdir()
            with tarfile.open(archive) as package:
                for name in FILES:
                    member = package.extractfile(f"package/dist/{name}")
                    assert member is not None
                    content = member.read()
                    if hashlib.sha256(content).hexdigest() != SHA256[name]:
                        raise _failed(f"its {name} has another SHA-256 than that of the release")
                    (new / name).write_bytes(content)
            shutil.rmtree(destination, ignore_errors=True)
            new.rename(destination)
    except (OSError, KeyError, StopIteration, EOFError, zlib.error, tarfile.TarError) as error:
        raise _failed(first_line(error)) from None


def copy_runtime(source: Path, destination: Path) -> None:
    """Copy the three files, and licence and notices beside them."""
    destination.mkdir()
    for file in (*(source / name for name in FILES), *sorted(NOTICES.iterdir())):
        shutil.copyfile(file, destination / file.name)


def _packed(npm: str, folder: Path) -> None:
    command = [npm, "pack", _PACKAGE, "--silent", "--pack-destination", str(folder)]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired:
        raise _failed(f"no answer in {_SECONDS} seconds") from None
    if ended.returncode != 0:
        lines = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
        raise _failed(lines[0] if lines else f"status {ended.returncode}")


def _failed(reason: str) -> ResourceError:
    return ResourceError(
        f"npm could not fetch {_PACKAGE} ({reason}); try again with a connection, or give --runtime a folder with "
        + ", ".join(FILES)
    )


def _in_folder(folder: Path) -> Path:
    """The folder, or its `dist` if it is the npm package, or that package in a `node_modules`."""
    for place in (folder, folder / "dist", folder / "node_modules" / "onnxruntime-web" / "dist"):
        if _complete(place):
            return place
    missing = [name for name in FILES if not (folder / name).is_file()]
    raise SettingsError(
        f"--runtime {folder} lacks {', '.join(missing)}; give the folder of onnxruntime-web {VERSION} from npm, or its dist"
    )


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)
