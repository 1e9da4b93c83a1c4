"""`flags.json` holds what the specs say, and gives the same values as they do."""

import dataclasses
import runpy
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from unmask.cli import COMMANDS
from unmask.console.command_line import split
from unmask.console.everyday import EVERYDAY
from unmask.console.flag_table import Choice, Flag, every_flag, flags_of, table
from unmask.console.flag_values import read
from unmask.errors import SettingsError
from unmask.ranges import outside
from unmask.recipes import RECIPES, TOKENIZERS, TRANSFERS
from unmask.spec import from_json, to_json

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "flags.py"))


def test_the_table_is_up_to_date(script: dict[str, Any]) -> None:
    written = script["as_text"](script["table"]())
    assert written == script["FILE"].read_text(), "run `python scripts/flags.py`"


def test_every_command_has_flags_and_a_page() -> None:
    assert table()["commands"].keys() == EVERYDAY.keys() == COMMANDS.keys()


@pytest.mark.parametrize(
    ("command", "name"),
    [("pretrain", name) for name in RECIPES]
    + [("finetune", name) for name in TRANSFERS]
    + [("tokenizer", name) for name in TOKENIZERS],
)
def test_a_recipe_in_the_table_has_the_values_of_the_recipe(command: str, name: str) -> None:
    """Every flag's default, as printed in the help, is the recipe's value."""
    recipe = {**RECIPES, **TRANSFERS, **TOKENIZERS}[name].recipe
    whole = to_json(recipe)
    values = {"recipe": table()["recipes"][name]["values"]}
    for each in flags_of(command, values):
        if each.keys[0] != "recipe":
            continue
        value: Any = whole
        for key in each.keys[1:]:
            value = value[key]
        if isinstance(each, Choice):
            assert each.kind == value["kind"], each.path
        else:
            default = list(each.default) if isinstance(each.default, list | tuple) else each.default
            assert default == (list(value) if isinstance(value, list | tuple) else value), each.path


@pytest.mark.parametrize("name", RECIPES)
def test_without_flags_a_command_line_is_the_recipe(name: str) -> None:
    arguments = import_module("unmask.commands.pretrain").Arguments
    start = arguments(recipe=RECIPES[name].recipe)
    values = read("pretrain", split(["photos"]), to_json(start))
    assert from_json(arguments, values) == arguments(data="photos", recipe=RECIPES[name].recipe)


def test_a_flag_is_a_switch_in_all_commands_or_in_none() -> None:
    """So a command line can be split before its command and kinds are known."""
    switches: dict[str, set[bool]] = {}
    for command in table()["commands"]:
        for flag in every_flag(command):
            if isinstance(flag, Flag) and not flag.positional:
                switches.setdefault(flag.path, set()).add(flag.type == "bool")
    assert [path for path, found in switches.items() if len(found) > 1] == []


@pytest.mark.parametrize(
    ("kind", "numbers"), [("multi-crop", "1 0.1 0.5"), ("two-crops", "1 1e-1")]
)
def test_a_value_of_several_numbers_ends_before_the_images(kind: str, numbers: str) -> None:
    words = f"views:{kind} --views.blur-probabilities {numbers} photos".split()
    line = split(words)
    assert line.words == ["photos"]
    values = read("pretrain", line, {"recipe": table()["recipes"]["dino-ti4"]["values"]})
    given = [float(number) for number in numbers.split()]
    assert values["recipe"]["views"]["blur_probabilities"] == given


@pytest.mark.parametrize("numbers", ["0.5", "0.5,0.9"])
def test_any_number_of_values_has_commas_between_them(numbers: str) -> None:
    line = split(["--schedule.milestones", numbers, "photos"])
    assert line.words == ["photos"]
    arguments = import_module("unmask.commands.pretrain").Arguments
    start = to_json(arguments(recipe=RECIPES["mae-ti4"].recipe))
    recipe = from_json(arguments, read("pretrain", line, start)).recipe
    assert recipe.schedule.milestones == tuple(map(float, numbers.split(",")))


CODES = {"tokenizer.codes", "objective.target.tokenizer.codes"}
"""Powers of two; the spec names the nearest one."""

FREE = {"seed", "no-data", *CODES}
"""Numbers that may have any value."""


def test_every_number_has_a_range() -> None:
    """So a number that cannot be is answered at once, by the flag as it was typed."""
    without = {
        flag.path
        for command in table()["commands"]
        for flag in every_flag(command)
        if isinstance(flag, Flag) and flag.type in ("int", "float") and not flag.ranges
    }
    assert without == FREE


@pytest.mark.parametrize("name", ["Recipe", "RandomMasking", "WarmupCosine", "AdamW", "ViT"])
def test_the_ranges_are_those_of_the_specs(name: str) -> None:
    """A number that the table refuses, the spec refuses too."""
    every = every_spec(RECIPES["mae-ti4"].recipe)
    start = next(spec for spec in every if type(spec).__name__ == name)
    refused = 0
    for field, entry in table()["specs"][name].items():
        for interval, usual in entry.get("ranges", ()) if entry.get("type") != "size" else ():
            for value in (-1, 0, 1, 2, 70_000):
                number = float(value) if entry["type"] == "float" else value
                if not outside(field, number, interval, usual):
                    continue
                refused += 1
                with pytest.raises(SettingsError, match=f"^{field} must "):
                    dataclasses.replace(start, **{field: (number,) if "many" in entry else number})
    assert refused


def every_spec(spec: Any) -> Iterator[Any]:
    """A spec and all below it."""
    yield spec
    for field in dataclasses.fields(spec):
        if dataclasses.is_dataclass(value := getattr(spec, field.name)):
            yield from every_spec(value)
