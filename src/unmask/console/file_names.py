"""Names of files for results about images, from the names that the images have in their source."""

from pathlib import PurePosixPath


class FreeNames:
    """Gives each image the name of a file without an ending, different from all before."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, name: str) -> str:
        """The parts of an image's path joined by two underscores; rows of a file keep their number."""
        path = PurePosixPath(name.replace(":", "-"))
        path = path if ":" in name else path.with_suffix("")
        flat = "__".join(part for part in path.parts if part != "/")
        free, number = flat, 1
        while free in self._taken:
            number += 1
            free = f"{flat}-{number}"
        self._taken.add(free)
        return free
