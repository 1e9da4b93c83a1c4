"""A folder of vectors: its manifest, its parts and its lock."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from unmask.errors import DataError, ResourceError, RunError, number_of
from unmask.files import is_unfinished
from unmask.locks import Taken, locked
from unmask.spec import digest
from unmask.vectors.manifest import MANIFEST, Generation, Manifest, read_manifest
from unmask.vectors.parts import Facts, part_path, read_facts

LOCK = "_lock"
UNUSABLE = "_unusable.csv"
_ENDING = ".parquet"


class VectorsFolder:
    """Vectors on disk, for readers and writers; what is not a part begins with an underscore."""

    def __init__(self, root: Path | str) -> None:
        """Nothing is read before it is asked for."""
        self.root = Path(root)

    @property
    def manifest(self) -> Manifest:
        """See `read_manifest`."""
        return read_manifest(self.root)

    def missing(self, generation: Generation) -> list[int]:
        """The numbers of the parts of a generation that are not there."""
        numbers = range(generation.first_part, generation.first_part + generation.parts)
        return [number for number in numbers if not part_path(self.root, number).exists()]

    def facts(self, manifest: Manifest) -> list[Facts]:
        """The footers of all parts that are there, in order.

        Raises:
            DataError: if a part is damaged, is not of this folder, or holds vectors of another encoder.
        """
        numbers = {
            part_path(self.root, number).name
            for generation in manifest.generations
            for number in range(generation.first_part, generation.first_part + generation.parts)
        }
        found = sorted(
            path for path in self.root.glob(f"*{_ENDING}") if not path.name.startswith((".", "_"))
        )
        parts: list[Facts] = []
        for path in found:
            facts = read_facts(path)
            if path.name not in numbers or facts.encoding != manifest.encoding.hash:
                why = (
                    "is not one of its parts"
                    if path.name not in numbers
                    else "holds vectors of another encoder or preprocessing"
                )
                raise DataError(
                    f"{path} {why}, and vectors of two encoders cannot be compared; move the file elsewhere"
                )
            parts.append(facts)
        return parts

    def check_free(self) -> None:
        """Refuse a folder for new vectors that holds other things.

        Raises:
            RunError: with what to do instead.
        """
        if self.root.exists() and not self.root.is_dir():
            raise RunError(f"{self.root} is a file; choose a new folder with --out")
        if self.root.exists() and any(
            path.name != LOCK and not is_unfinished(path) for path in self.root.iterdir()
        ):
            raise RunError(
                f"{self.root} is neither empty nor a folder of vectors (no {MANIFEST}); choose a new folder with --out"
            )

    @contextmanager
    def lock(self) -> Generator[str]:
        """Keep other writers out; yields a note if the file system has no locks.

        Raises:
            RunError: if another process writes into the folder.
            ResourceError: if the folder cannot be written.
        """
        with ExitStack() as stack:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                note = stack.enter_context(locked(self.root / LOCK))
            except Taken as holder:
                raise RunError(
                    f"{self.root} is being written by {holder}; wait for it or stop it, or choose another folder with --out"
                ) from None
            except OSError as error:
                raise ResourceError(
                    f"{self.root} cannot be written ({error.strerror}); choose another folder with --out"
                ) from None
            yield note


def complete_words(manifest: Manifest, parts: list[Facts]) -> str | None:
    """What is missing in a folder, in words; None if it is complete."""
    wanted = sum(generation.parts for generation in manifest.generations)
    if len(parts) == wanted:
        return None
    there = sum(part.rows for part in parts)
    whole = sum(generation.pictures for generation in manifest.generations)
    return f"holds {number_of(there, 'vector')} of {number_of(whole, 'picture')} so far"


def state_of(parts: list[Facts]) -> str:
    """A hash of the contents of all parts."""
    return digest([[part.path.name, part.rows, part.checksum] for part in parts])
