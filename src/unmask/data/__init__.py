"""Files to batches."""

from typing import Annotated

from unmask.data.digits import Digits
from unmask.data.folder import Folder
from unmask.spec import Kind

AnySource = Annotated[Folder, Kind("folder")] | Annotated[Digits, Kind("digits")]

__all__ = ["AnySource", "Digits", "Folder"]
