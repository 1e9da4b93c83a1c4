"""Put onnxruntime-web into wheels, where npm can fetch it; without npm, `unmask page` gets it on the user's machine."""

import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_NPM = "src/unmask/page/npm.py"
_SECONDS = 60


class RuntimeHook(BuildHookInterface):
    """See the head of the file. Nothing here makes a build fail."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to a wheel; an editable installation gets none."""
        if version != "standard":
            return
        # by its path, because the package itself cannot be imported here
        npm = runpy.run_path(str(Path(self.root) / _NPM))
        self._folder = Path(self.directory) / ".onnxruntime-web"
        try:
            npm["fetch"](self._folder, _SECONDS, "--fetch-retries=0", "--fetch-timeout=30000")
        except npm["NotFetchedError"] as error:
            print(
                f"the wheel has no onnxruntime-web, because npm could not fetch it: {error}",
                file=sys.stderr,
            )
            return
        for file in sorted(self._folder.iterdir()):
            build_data["force_include"][str(file)] = f"unmask/page/onnxruntime-web/{file.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was fetched; it is in the wheel."""
        if version == "standard":
            shutil.rmtree(self._folder, ignore_errors=True)
