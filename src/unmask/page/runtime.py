"""Where the page gets onnxruntime-web: from this package, a folder, the user's cache, or npm."""

import shutil
from pathlib import Path

from unmask.data.cache import cache_folder
from unmask.errors import ResourceError, SettingsError
from unmask.page.npm import PACKAGE, SHA256, VERSION, NotFetchedError, fetch

FILES = tuple(SHA256)
"""What a page needs of it."""

PACKAGED = Path(__file__).parent / "onnxruntime-web"
"""Filled when a wheel is built on a machine with npm; not in a source tree."""

NOTICES = Path(__file__).parent / "notices"
"""Licence and third-party notices of onnxruntime."""

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
    if shutil.which("npm") is None:
        raise ResourceError(
            f"the page needs onnxruntime-web {VERSION}, which is not in this installation, and npm is not on PATH to fetch it; "
            "install npm, or give --runtime a folder with " + ", ".join(FILES)
        )
    try:
        fetch(destination, _SECONDS)
    except NotFetchedError as error:
        raise ResourceError(
            f"npm could not fetch {PACKAGE} ({error}); try again with a connection, or give --runtime a folder with "
            + ", ".join(FILES)
        ) from None


def copy_runtime(source: Path, destination: Path) -> None:
    """Copy the three files, and licence and notices beside them."""
    destination.mkdir()
    for file in (*(source / name for name in FILES), *sorted(NOTICES.iterdir())):
        shutil.copyfile(file, destination / file.name)


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
