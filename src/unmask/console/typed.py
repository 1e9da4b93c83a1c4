"""DATA as a user types it, for commands that are printed to be pasted."""

from pathlib import Path

from unmask.data import AnySource, Digits, GroundMap, Held, InstanceMaps, LabelsFile, Maps, Tiff
from unmask.data.ground_map import GroundReading
from unmask.data.kinds import kind_of
from unmask.data.map_tables import USUALLY_IGNORED
from unmask.errors import typed
from unmask.spec import kind_of as public_name


def as_typed(data: AnySource) -> str:
    """DATA as a user types it, without quotes."""
    if isinstance(data, Held):
        return data.what
    return "digits" if isinstance(data, Digits) else data.path


def data_words(data: AnySource) -> list[str]:
    """DATA as words of a command line, with the flags that are needed to read it in the same way."""
    words = [as_typed(data)]
    if isinstance(data, LabelsFile):
        return [*data_words(data.data), "--labels-file", data.labels]
    if not isinstance(data, Digits | Held) and kind_of(data.path) != (
        kind := public_name(AnySource, data)
    ):
        words += ["--data-kind", kind]
    if isinstance(data, Maps | InstanceMaps) and data.ignored != USUALLY_IGNORED:
        words += ["--ignore", ",".join(map(str, data.ignored))]
    return words


def resume_words(command: str, root: Path, data: AnySource) -> str:
    """What continues a run: a command line, or a call for images that only a Python program holds."""
    if isinstance(data, Held):
        first = "None, " if command == "finetune" else ""
        return f"unmask.{command}({first}images, resume={str(root)!r})"
    return typed(command, "--resume", root)


def band_words(data: AnySource) -> list[str]:
    """The flags that say how multi-band images are read and maps are cut, for commands that take them."""
    inner = data.data if isinstance(data, LabelsFile) else data
    if not isinstance(inner, Tiff | GroundMap):
        return []
    flags = {
        "--channels": ",".join(map(str, inner.channels)),
        "--no-data": "" if inner.no_data is None else repr(inner.no_data),
    }
    if isinstance(inner, Tiff):
        flags |= {"--frames": inner.frames or "", "--bands": ",".join(inner.bands)}
    else:
        usual = GroundReading()
        flags |= {
            "--tile-metres": ",".join(f"{metres:g}" for metres in inner.tile_metres),
            "--tile-overlap": ""
            if inner.tile_overlap == usual.tile_overlap
            else repr(inner.tile_overlap),
            "--crs": inner.crs or "",
            "--corners": ",".join(map(repr, inner.corners)),
            "--map-zoom": "" if inner.map_zoom is None else str(inner.map_zoom),
        }
    words = [
        word
        for flag, value in flags.items()
        if value  # a value that begins with a minus would be taken for a flag
        for word in ([f"{flag}={value}"] if value.startswith("-") else [flag, value])
    ]
    return [*words, "--tms"] if isinstance(inner, GroundMap) and inner.tms else words
