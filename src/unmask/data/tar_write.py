"""A tar file written member by member, with its checksum taken on the way; equal contents give equal bytes."""

import os
import tarfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path


class ShardWriter:
    """A shard that is being written."""

    def __init__(self, path: Path) -> None:
        self.path, self.bytes = path, 0
        self._sum = sha256()
        self._file = path.open("wb")

    def add(self, name: str, data: bytes) -> int:
        """Append a member; returns where its bytes begin."""
        member = tarfile.TarInfo(name)  # without time, owner or place of origin
        member.size = len(data)
        self._write(member.tobuf(tarfile.USTAR_FORMAT))
        offset = self.bytes
        self._write(data)
        self._pad(tarfile.BLOCKSIZE)
        return offset

    def close(self) -> str:
        """End the file and see it to the disk; returns its SHA-256."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._pad(tarfile.RECORDSIZE)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._sum.hexdigest()

    def discard(self) -> None:
        """Give it up."""
        with suppress(OSError):  # what is in its buffer may find no room either
            self._file.close()
        self.path.unlink(missing_ok=True)

    def _pad(self, block: int) -> None:
        self._write(bytes(-self.bytes % block))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sum.update(data)
        self.bytes += len(data)
