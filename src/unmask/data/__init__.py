"""Reading images from files, and making batches of them."""

from typing import Annotated

from unmask.data.coco import Coco
from unmask.data.folder import Folder
from unmask.data.ground_map import GroundMap
from unmask.data.held import Held
from unmask.data.in_memory import Digits
from unmask.data.instance_maps import InstanceMaps
from unmask.data.labels_file import LabelsFile
from unmask.data.maps import Maps
from unmask.data.parquet import Parquet
from unmask.data.shards import Shards
from unmask.data.tiff import Tiff
from unmask.data.voc import Voc
from unmask.data.yolo import Yolo
from unmask.spec import Kind

AnySource = (
    Annotated[Folder, Kind("folder")]
    | Annotated[Digits, Kind("digits")]
    | Annotated[Shards, Kind("shards")]
    | Annotated[Parquet, Kind("parquet")]
    | Annotated[Tiff, Kind("tiff")]
    | Annotated[LabelsFile, Kind("labels-file")]
    | Annotated[GroundMap, Kind("ground-map")]
    | Annotated[Held, Kind("held")]
    | Annotated[Maps, Kind("maps")]
    | Annotated[InstanceMaps, Kind("instance-maps")]
    | Annotated[Coco, Kind("coco")]
    | Annotated[Yolo, Kind("yolo")]
    | Annotated[Voc, Kind("voc")]
)

__all__ = [
    "AnySource",
    "Coco",
    "Digits",
    "Folder",
    "GroundMap",
    "Held",
    "InstanceMaps",
    "LabelsFile",
    "Maps",
    "Parquet",
    "Shards",
    "Tiff",
    "Voc",
    "Yolo",
]
