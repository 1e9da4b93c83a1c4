"""Put onnxruntime-web into wheels, where npm can fetch it; without npm, `unmask page` gets it on the user's machine."""

import ast
import hashlib
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_RUNTIME = "src/unmask/page/runtime.py"
_SECONDS = 60
_FAILURES = (
    OSError,
    KeyError,
    ValueError,
    EOFError,
    zlib.error,
    subprocess.SubprocessError,
    tarfile.TarError,
)


class RuntimeHook(BuildHookInterface):
    """See the head of the file. Nothing here makes a build fail."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to a wheel; an editable installation gets none."""
        if version != "standard":
            return
        wanted = _constants(Path(self.root) / _RUNTIME)
        self._folder = Path(self.directory) / ".onnxruntime-web"
        try:
            files = _fetched(wanted["VERSION"], wanted["SHA256"], self._folder)
        except _FAILURES as error:
            print(
                f"the wheel has no onnxruntime-web, because npm could not fetch it: {error}",
                file=sys.stderr,
            )
            return
        for file in files:
            build_data["force_include"][str(file)] = f"unmask/page/onnxruntime-web/{file.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was fetched; it is in the wheel."""
        if version == "standard":
            shutil.rmtree(self._folder, ignore_errors=True)


def _constants(file: Path) -> dict[str, Any]:
    """The constants of the module that finds these files; the package itself cannot be imported here."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("VERSION", "SHA256")
    }


def _fetched(version: str, hashes: dict[str, str], folder: Path) -> list[Path]:
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("npm is not on PATH")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [
        npm,
        "pack",
        f"onnxruntime-web@{version}",
        "--silent",
        "--fetch-retries=0",
        "--fetch-timeout=30000",
        "--pack-destination",
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS, cwd=folder)
    archives = list(folder.glob("*.tgz"))
    if len(archives) != 1:
        raise OSError(f"npm wrote {len(archives)} archives instead of one")
    with tarfile.open(archives[0]) as package:
        for name, wanted in hashes.items():
            member = package.extractfile(f"package/dist/{name}")
            if member is None:
                raise KeyError(name)
            content = member.read()
            if hashlib.sha256(content).hexdigest() != wanted:
                raise ValueError(f"its {name} has another SHA-256 than that of the release")
            (folder / name).write_bytes(content)
    return [folder / name for name in hashes]
