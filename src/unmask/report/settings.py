"""The settings of a run as a flat table, and which of them differ between runs."""

from collections.abc import Mapping
from typing import Any

from unmask.runs.run import Run
from unmask.spec import to_json

_LEFT_OUT = ("spec_version", "fingerprint", "statistics.values", "learned_before")


def settings(run: Run) -> dict[str, str]:
    """Every setting by its path in `spec.json`, without the words `job.recipe.`."""
    return {
        name.removeprefix("job.").removeprefix("recipe."): value
        for name, value in _flat(to_json(run)).items()
        if name not in _LEFT_OUT
    }


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Leaves of nested dictionaries by their path; the kind of a part stands for the part."""
    leaves: dict[str, str] = {}
    for name, value in values.items():
        path = above.removesuffix(".") if name == "kind" else f"{above}{name}"
        if isinstance(value, Mapping):
            leaves |= _flat(value, f"{path}.")
        else:
            leaves[path] = _in_words(value)
    return leaves


def _in_words(value: Any) -> str:
    match value:
        case list():
            return ", ".join(map(_in_words, value))
        case bool():
            return "yes" if value else "no"
        case float():
            short = f"{value:.6g}"
            return short if float(short) == value else repr(value)
        case None:
            return "none"
        case _:
            return str(value)


def differing(runs: list[dict[str, str]]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The settings that differ, with a value for each run, and those that are the same for all."""
    names = list(dict.fromkeys(name for run in runs for name in run))
    rows = {name: [run.get(name, "") for run in runs] for name in names}
    differ = {name: values for name, values in rows.items() if len(set(values)) > 1}
    return differ, {name: values[0] for name, values in rows.items() if name not in differ}
