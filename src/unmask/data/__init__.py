"""Reading images from files, and making batches of them."""

from typing import Annotated

from unmask.data.folder import Folder
from unmask.data.held import Held
from unmask.data.in_memory import Digits
from unmask.data.labels_file import LabelsFile
from unmask.data.parquet import Parquet
from unmask.data.shards import Shards
from unmask.data.tiff import Tiff
from unmask.spec import Kind

AnySource = (
    Annotated[Folder, Kind("folder")]
    | Annotated[Digits, Kind("digits")]
    | Annotated[Shards, Kind("shards")]
    | Annotated[Parquet, Kind("parquet")]
    | Annotated[Tiff, Kind("tiff")]
    | Annotated[LabelsFile, Kind("labels-file")]
    | Annotated[Held, Kind("held")]
)

__all__ = ["AnySource", "Digits", "Folder", "Held", "LabelsFile", "Parquet", "Shards", "Tiff"]
