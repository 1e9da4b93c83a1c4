"""Files for pyarrow, opened by us: it refuses paths that are not valid text, and takes them as bytes."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def arrow_file(path: Path) -> pa.OSFile:
    """A file that pyarrow can read.

    Raises:
        OSError: if it cannot be opened.
    """
    return pa.OSFile(os.fsencode(path))


def parquet_metadata(path: Path) -> pq.FileMetaData:
    """The footer of a Parquet file.

    Raises:
        pa.ArrowException: if it is not a Parquet file.
        OSError: if it cannot be opened.
    """
    with arrow_file(path) as file:
        return pq.read_metadata(file)
