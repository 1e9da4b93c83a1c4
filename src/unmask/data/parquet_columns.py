"""Which columns of a Parquet file hold the images and their labels, and what the choice passes over."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from unmask.data.arrow_files import arrow_file
from unmask.data.label_values import LABEL_NAMES, NOT_CLASSES, name_rank
from unmask.errors import DataError, first_line
from unmask.files import parse_json

# runs depend on the order, so new names come last
_IMAGE_NAMES = (
    *("image", "img", "jpg", "png", "bytes"),
    *("images", "picture", "photo", "jpeg", "pixels", "pixel_values"),
)
_PLACES = ("objects", "bbox", "bboxes", "boxes", "annotations", "segmentation")
"""Names of columns of boxes, as in Hugging Face's sets for detection."""

_PATH_NAMES = ("file_name", "path", "image_path")

_IMAGE_FEATURES = (None, "Image")  # a struct of bytes and path may also be a sound or a video
_LISTS = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
_TEXTS = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
_NUMBERS = ("boolean", "integer", "floating", "decimal", "null")


class Columns(NamedTuple):
    """The columns of images and labels. Those of all files of a set must be equal."""

    image: str
    nested: bool
    """Whether the image column is a struct with bytes."""
    label: str | None
    several: bool
    """Whether each label is a list of classes."""
    class_names: tuple[str, ...]
    label_is_text: bool = False

    @property
    def image_path(self) -> str:
        """Path of the bytes in the schema."""
        return f"{self.image}.bytes" if self.nested else self.image

    def in_words(self) -> str:
        """For the message about two files that differ."""
        label = f"labels {self.label}" if self.label else "no labels"
        label += " (lists)" if self.several else ""
        label += " (text)" if self.label_is_text else ""
        classes = f" of {len(self.class_names)} classes" if self.class_names else ""
        return f"images {self.image}{' (a struct)' if self.nested else ''}, {label}{classes}"


class Layout(NamedTuple):
    """The columns of a file, and what a user should know of their choice."""

    columns: Columns
    notes: tuple[str, ...]


def layout_of(file: Path) -> Layout:
    """Find the columns of a file.

    Raises:
        DataError: if it is not Parquet, no column has images, or two columns have the same name.
    """
    schema = schema_of(file)
    features, notes = _features(schema, file)
    image, image_notes = _image_column(file, schema, features)
    label, label_notes = _label_column(schema, features, image)
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if odd := [name for name in (image, label) if name in twice]:
        raise DataError(f"{file} has several columns called {odd[0]}; rename all but one")
    kind = pa.null() if label is None else schema.field(label).type
    class_names = () if label is None else _class_names(features.get(label))
    columns = Columns(
        image,
        pa.types.is_struct(schema.field(image).type),
        label,
        is_list(kind),
        class_names,
        # whether texts are names or numbers matters only where the schema names the classes
        is_text(kind) and bool(class_names),
    )
    return Layout(columns, (*notes, *image_notes, *label_notes, *_places(schema, label)))


def _places(schema: pa.Schema, label: str | None) -> tuple[str, ...]:
    """A note on columns of boxes, which are not read."""
    names = [name for name in schema.names if name.lower() in _PLACES and name != label]
    if not names:
        return ()
    return (
        f"boxes in column {names[0]} are not read: they are from folders, in the formats of COCO, YOLO and Pascal VOC",
    )


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists, of any of Arrow's kinds."""
    return _is(kind, _LISTS)


def is_text(kind: pa.DataType) -> bool:
    """Whether values are text or bytes, maybe in lists or as a dictionary."""
    kind = kind.value_type if is_list(kind) else kind
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return _is(kind, _TEXTS)


def _is(kind: pa.DataType, names: tuple[str, ...]) -> bool:
    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)


def schema_of(file: Path) -> pa.Schema:
    """The schema of a file; raises DataError if it is not Parquet."""
    if file.exists() and not file.is_file():
        raise DataError(f"{file} is not a regular file")
    try:
        with arrow_file(file) as opened:
            return pq.read_schema(opened)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DataError(
            f"{file} is not a Parquet file, or truncated ({first_line(error)})"
        ) from None


def _features(schema: pa.Schema, file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Hugging Face's description of the columns, empty without one; and a note if it cannot be used."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}, ()
    try:
        value = parse_json(text, f"the huggingface note of {file.name}")
    except DataError as error:
        return {}, (f"{error}; it is not used",)
    for key in ("info", "features"):
        value = value.get(key, {}) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        return {}, (
            f"the huggingface note of {file.name} has no features by column; it is not used",
        )
    return value, ()


def _feature_type(features: dict[str, Any], column: str) -> object:
    feature = features.get(column)
    return feature.get("_type") if isinstance(feature, dict) else None


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_bytes(kind.field(place).type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return _is(kind, ("binary", "large_binary", "binary_view"))


def _image_column(
    file: Path, schema: pa.Schema, features: dict[str, Any]
) -> tuple[str, tuple[str, ...]]:
    """The column of images: marked in the schema, or called like one, or the first that fits."""
    fitting = [
        field.name
        for field in schema
        if _holds_bytes(field.type)
        and _feature_type(features, field.name) in _IMAGE_FEATURES
        and (
            field.name.lower() not in LABEL_NAMES or _feature_type(features, field.name) == "Image"
        )
    ]
    if not fitting:
        raise DataError(_no_images(file, schema))

    def preference(name: str) -> tuple[bool, int]:
        return _feature_type(features, name) != "Image", name_rank(name, _IMAGE_NAMES)

    image, *others = sorted(dict.fromkeys(fitting), key=preference)
    notes: list[str] = []
    if others:
        notes.append(f"images from column {image}; {_listed(others)} bytes too")
    unread = [
        field
        for field in schema
        if field.name not in fitting
        and name_rank(field.name, _IMAGE_NAMES) < name_rank(image, _IMAGE_NAMES)
    ]
    if unread:
        field = unread[0]
        notes.append(
            f"images from column {image}; column {field.name} of type {field.type} is not read as images"
        )
    return image, tuple(notes)


def _no_images(file: Path, schema: pa.Schema) -> str:
    """Why no column has images, with the way to give those that the names suggest."""
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    message = f"{file} has no image column, only {columns}; "
    for field in schema:
        if field.name.lower() not in _IMAGE_NAMES + _PATH_NAMES:
            continue
        if is_list(field.type) and not is_text(field.type):
            return (
                message + f"{field.name} holds numbers: store encoded bytes, such as PNG, instead"
            )
        if is_list(field.type):
            return message + f"{field.name} holds lists: store one image per row"
        if is_text(field.type):
            return message + (
                f"{field.name} seems to hold paths: give the folder of these files as DATA, and this file as "
                "--labels-file, with the paths in a column file_name"
            )
    return (
        message
        + "an image column must have encoded bytes, or a struct of bytes and path. Name it image"
    )


def _label_column(
    schema: pa.Schema, features: dict[str, Any], image: str
) -> tuple[str | None, tuple[str, ...]]:
    """The column of labels: one class as the schema marks it, or called so, or marked lists; None without one."""
    fields = [field for field in schema if field.name != image]
    candidates = [
        field
        for field in fields
        if field.name.lower() in LABEL_NAMES or _class_names(features.get(field.name))
    ]
    notes = [
        f"column {field.name} of type {short(field.type)} is {NOT_CLASSES}"
        for field in candidates
        if not is_label(field.type)
    ]
    usable = [field.name for field in candidates if is_label(field.type)]

    def preference(name: str) -> tuple[bool, int]:
        return _feature_type(features, name) != "ClassLabel", name_rank(name, LABEL_NAMES)

    if not usable:
        return None, tuple(notes)
    label, *others = sorted(dict.fromkeys(usable), key=preference)
    if others:
        notes.append(f"labels from column {label}; {_listed(others)} labels too")
    return label, tuple(notes)


def is_label(kind: pa.DataType) -> bool:
    """Whether values can be classes or names: text, numbers, or lists of them."""
    kind = kind.value_type if is_list(kind) else kind
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return _is(kind, _TEXTS + _NUMBERS)


def _class_names(feature: Any) -> tuple[str, ...]:
    """The class names of a column, or of the elements of its lists."""
    if isinstance(feature, list):  # older versions of `datasets` describe lists in this way
        feature = feature[0] if feature else None
    if isinstance(feature, dict) and "feature" in feature:
        feature = feature["feature"]
    names = feature.get("names") if isinstance(feature, dict) else None
    fits = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if fits and names else ()


def _listed(names: list[str]) -> str:
    return f"{', '.join(names)} {'holds' if len(names) == 1 else 'hold'}"


def short(kind: pa.DataType) -> str:
    """A type in a message."""
    text = str(kind)
    return text if len(text) <= 60 else text[:60] + "..."
