"""Specs: frozen dataclasses, converted to JSON and back strictly, and checks of their fields.

A union of specs is a set of kinds. Each member is written `Annotated[Spec, Kind("name")]`, and its JSON has the entry
`"kind": "name"`. Unknown kinds and fields are errors that name the closest match, and so are wrong types. Nothing that a
file names is ever imported.
"""

import hashlib
import json
import types
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import cattrs
from cattrs.cols import is_namedtuple
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError

from unmask.errors import SettingsError, did_you_mean
from unmask.ranges import brief, outside

T = TypeVar("T")

MOST_BLOCKS = 1_000
"""Largest depth of a module, see `sized`."""

MOST_CODES = 2**20
"""Largest number of codes or prototypes, see `sized`."""

EARLIER_DEFAULT = "earlier default"
"""Key in the metadata of a field whose default has changed: the first default, which hashes of settings leave out."""


@dataclass(frozen=True)
class Kind:
    """The public name of a member of a union of specs."""

    name: str


def kinds(union: Any) -> dict[str, type]:
    """The members of a union of specs by name, without None; empty for any other type."""
    named: dict[str, type] = {}
    for member in get_args(union) if get_origin(union) in (Union, types.UnionType) else (union,):
        if member is types.NoneType:
            continue
        cls, *marks = get_args(member) if get_origin(member) is Annotated else (member,)
        names = [mark.name for mark in marks if isinstance(mark, Kind)]
        if not names:
            return {}
        named[names[0]] = cls
    return named


def kind_of(union: Any, spec: Any) -> str:
    """The name of a spec in its union; the name of its class if it is not a member."""
    return next((n for n, cls in kinds(union).items() if cls is type(spec)), type(spec).__name__)


def within(spec: Any, interval: str, *names: str, usual: str = "") -> None:
    """Check that fields of a spec lie in an interval, written as in mathematics.

    See `ranges.outside`. A field that is None is not checked, and of several values each is. `scripts/flags.py` reads these
    calls, so that the command line is checked before this module is imported; so their arguments are constants.

    Raises:
        SettingsError: with the field's name, its value and the bounds.
    """
    for name in names:
        value = getattr(spec, name)
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None and (refusal := outside(name, one, interval, usual)):
                raise SettingsError(refusal)


def sized(spec: Any, *names: str, most: int = 65_536, usual: str = "") -> None:
    """Check fields that say how large a module is: at least 1, and at most far more than any sensible model has.

    The upper bound is for files: they may hold any number, and a module is built from it.

    Raises:
        SettingsError: see `within`.
    """
    within(spec, "[1, inf)", *names, usual=usual)
    within(spec, f"(-inf, {most}]", *names, usual=usual)


def to_json(spec: Any) -> dict[str, Any]:
    """A spec as a dictionary of JSON values."""
    return _converter.unstructure(spec)


def digest(values: Any) -> str:
    """Short hash of JSON values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def from_json(cls: type[T], data: Any) -> T:
    """The spec that a dictionary of JSON values describes.

    Raises:
        SettingsError: for an unknown kind or field or a wrong type, with its path and the closest match.
    """
    if not isinstance(data, dict):
        raise SettingsError(f"expected an object with the fields of {cls.__name__}, got {data!r}")
    try:
        return _converter.structure(data, cls)
    except SettingsError:
        raise
    except (BaseValidationError, ForbiddenExtraKeysError, TypeError, ValueError, KeyError) as error:
        explained = SettingsError(_explain(error, cls.__name__))
        explained.keys = _keys(error)
        raise explained from None


def _keys(error: BaseException) -> tuple[str, ...]:
    """Where the spec of the first leaf in a tree of cattrs errors lies."""
    if not isinstance(error, BaseValidationError):
        return ()
    leaf = error.exceptions[0]
    names = (getattr(note, "name", None) for note in getattr(leaf, "__notes__", ()))
    return (*(name for name in names if name), *_keys(leaf))


def _explain(error: BaseException, path: str) -> str:
    """The message of the first leaf in a tree of cattrs errors, with its path."""
    if isinstance(error, SettingsError):
        return str(error)
    if isinstance(error, ForbiddenExtraKeysError):
        extra = sorted(error.extra_fields)[0]
        spec: Any = error.cl  # pyright: ignore[reportAttributeAccessIssue]
        known = [field.name for field in fields(spec)]
        return f"unknown field {extra!r} in {path}; {did_you_mean(extra, known)}"
    if isinstance(error, BaseValidationError):
        leaf = error.exceptions[0]
        for note in getattr(leaf, "__notes__", ()):
            if name := getattr(note, "name", None):
                path = f"{path}.{name}"
        return _explain(leaf, path)
    if isinstance(error, KeyError):
        return f"field {error.args[0]!r} is missing in {path.rpartition('.')[0]}"
    return f"{path}: {error}"


def _structure_kind(union: Any) -> Callable[[Any, Any], Any]:
    named, or_none = kinds(union), types.NoneType in get_args(union)

    def structure(data: Any, _: Any) -> Any:
        if data is None and or_none:
            return None
        if not isinstance(data, dict) or "kind" not in data:
            raise SettingsError(
                f"expected an object with a kind ({', '.join(named)}), got {data!r}"
            )
        kind = data["kind"]
        if kind not in named:
            raise SettingsError(f"unknown kind {kind!r}; {did_you_mean(str(kind), named)}")
        values = {key: value for key, value in data.items() if key != "kind"}
        return _converter.structure(values, named[kind])

    return structure


def _unstructure_kind(union: Any) -> Callable[[Any], dict[str, Any] | None]:
    names = {cls: name for name, cls in kinds(union).items()}
    or_none = types.NoneType in get_args(union)

    def unstructure(value: Any) -> dict[str, Any] | None:
        if value is None and or_none:
            return None
        if type(value) not in names:
            raise SettingsError(
                f"{type(value).__name__} has no public name, so it cannot be written to spec.json; "
                f"known here: {', '.join(names.values())}"
            )
        return {"kind": names[type(value)], **_converter.unstructure(value)}

    return unstructure


def _strict(cls: type) -> Callable[[Any, Any], Any]:
    """Refuse values of another JSON type; a whole number may stand for a float."""

    def structure(data: Any, _: Any) -> Any:
        if cls is float and type(data) is int:
            if data.bit_length() > _FLOAT_BITS:
                raise TypeError(f"expected a float, got {brief(data)}")
            return float(data)
        if type(data) is not cls:
            raise TypeError(f"expected {cls.__name__}, got {data!r}")
        return data

    return structure


def _structure_named_tuple(data: Any, cls: Any) -> Any:
    if not isinstance(data, list) or len(data) != len(cls._fields):
        raise TypeError(f"expected a list of {len(cls._fields)} numbers, got {data!r}")
    hints = cls.__annotations__
    return cls(*(_converter.structure(v, hints[f]) for v, f in zip(data, cls._fields, strict=True)))


_FLOAT_BITS = 1023
"""An integer of so many bits is still a finite float."""

_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_structure_hook_func(is_namedtuple, _structure_named_tuple)
_converter.register_unstructure_hook_func(is_namedtuple, list)
_converter.register_structure_hook_factory(lambda cls: bool(kinds(cls)), _structure_kind)
_converter.register_unstructure_hook_factory(lambda cls: bool(kinds(cls)), _unstructure_kind)
_converter.register_unstructure_hook(float, float)  # so that 2 and 2.0 have the same JSON and hash
for _cls in (int, float, str, bool):
    _converter.register_structure_hook(_cls, _strict(_cls))
