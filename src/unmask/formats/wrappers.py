"""Tensors inside of what training scripts wrap around a model: entries of a file, and words before every name.

A script may save `{"model": tensors, "model_ema": tensors}`, and a wrapped model's names begin with `module.`, `backbone.` or
`teacher.`. One entry and one such beginning are read; where there are several, the choice is said, and `FILE:WORD` reads another.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from unmask.errors import DataError, listed

_FIRST = (
    *("teacher", "target_encoder", "model", "state_dict", "model_state_dict", "module"),
    *("net", "network", "encoder", "backbone", "base_encoder", "online_encoder", "student"),
    *("model_ema", "state_dict_ema", "ema", "ema_state_dict", "momentum_encoder", "weights"),
)
"""Words for models in files of several, the preferred ones first: a teacher is what its method's authors evaluate."""

_MARKS = (
    "encoder.mean",  # ours
    "vit.embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.weight",
)
"""Names of one tensor that each layout has, with the longest first."""

_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Words that torch puts anywhere into the names of compiled or wrapped parts."""


class Content(NamedTuple):
    """Named tensors, and what a user should know of how they were found."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def unwrapped(path: Path, content: Any, word: str = "", *, strip: bool = True) -> Content:
    """The tensors of the model in a file's content, with the names that they have in the model.

    Args:
        path: for messages.
        content: what the file holds.
        word: the entry or beginning to read; empty for the usual one.
        strip: whether to take away what stands before the names.

    Raises:
        DataError: if there are no tensors, or none that the word chooses.
    """
    content, entries, used = _entry(content, word)
    tensors = {str(k): t for k, t in content.items() if isinstance(t, Tensor)}
    if not tensors:
        raise DataError(
            f"{path} has no named tensors; unmask expects a state dict, at the top or in an entry such as "
            "'model' or 'state_dict'"
        )
    if not strip:
        return Content(tensors)
    tensors, beginnings, used = _stripped(tensors, word, used)
    if word and not used:
        there = listed([*entries.others, *beginnings.others]) or "no parts to choose from"
        raise DataError(f"{path} has no part {word!r}; it has {there}")
    return Content(tensors, (*entries.notes(path), *beginnings.notes(path)))


class _Choice(NamedTuple):
    """One of several parts of a file."""

    kind: str
    chosen: str = ""
    others: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def notes(self, path: Path) -> list[str]:
        """Lines for the user: what was chosen and how to choose otherwise, and what was left out."""
        lines: list[str] = []
        if self.chosen and len(self.others) > 1:
            other = next(name for name in self.others if name != self.chosen)
            words = [
                word for word in other.split(".") if word and word not in self.chosen.split(".")
            ]
            lines.append(
                f"of the {self.kind} {listed(self.others)}, {self.chosen} is read; {path}:{(words or [other])[0]} "
                "reads another"
            )
        if self.left_out:
            lines.append(
                f"left out, because the names do not begin with {self.chosen}: {listed(self.left_out)}"
            )
        return lines


def _entry(content: Any, word: str) -> tuple[dict[Any, Any], _Choice, bool]:
    """The innermost entry with a model's tensors; whether the word chose it."""
    choice, used = _Choice("entries"), False
    while isinstance(content, dict):
        entries = [name for name in content if isinstance(name, str) and _holds(content[name])]
        if word in entries and not used:
            chosen, used = word, True
        elif known := [name for name in _FIRST if name in entries]:
            chosen = known[0]
        elif len(entries) == 1 and not _holds_directly(content):
            chosen = entries[0]
        else:
            return content, choice, used
        if len(entries) > len(choice.others):
            choice = _Choice("entries", chosen, tuple(entries))
        content = content[chosen]
    return {}, choice, used


def _holds_directly(content: dict[Any, Any]) -> bool:
    """Whether these are the tensors of a model; those of an optimizer have numbers for names."""
    return any(isinstance(t, Tensor) and "." in str(name) for name, t in content.items())


def _holds(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    inner = (entry[name] for name in _FIRST if isinstance(entry.get(name), dict))
    return _holds_directly(entry) or any(_holds_directly(part) for part in inner)


def _stripped(
    tensors: dict[str, Tensor], word: str, used: bool
) -> tuple[dict[str, Tensor], _Choice, bool]:
    """The tensors without the beginning that their names share; whether the word chose it."""
    plain = {_without_inner(name): tensor for name, tensor in tensors.items()}
    tensors = plain if len(plain) == len(tensors) else tensors
    beginnings = sorted(set(_beginnings(tensors)), key=_rank)
    wanted = [b for b in beginnings if word in b.split(".")] if word and not used else []
    if not wanted and (not beginnings or any(mark in tensors for mark in _MARKS)):
        return tensors, _Choice("names that begin with", others=tuple(beginnings)), used
    chosen = (wanted or beginnings)[0]
    inside = {n.removeprefix(chosen): t for n, t in tensors.items() if n.startswith(chosen)}
    left_out = tuple(name for name in tensors if not name.startswith(chosen))
    choice = _Choice("names that begin with", chosen, tuple(beginnings), left_out)
    return inside, choice, used or bool(wanted)


def _beginnings(tensors: Iterable[str]) -> Iterable[str]:
    """What stands before the names of whole models."""
    for name in tensors:
        mark = next((mark for mark in _MARKS if name.endswith(f".{mark}")), None)
        if mark is not None:
            yield name.removesuffix(mark)


def _rank(beginning: str) -> tuple[int, str]:
    words = [_FIRST.index(word) for word in beginning.split(".") if word in _FIRST]
    special = [
        rank for rank in words if _FIRST[rank] not in ("model", "module", "backbone", "encoder")
    ]
    return min(special or words or [len(_FIRST)]), beginning


def _without_inner(name: str) -> str:
    for word in _INSIDE:
        name = name.replace(word, "")
    return name
