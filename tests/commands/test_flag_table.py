"""`flags.json` holds what the specs say, and gives the same values as they do."""

import runpy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from unmask.cli import COMMANDS
from unmask.console.command_line import split
from unmask.console.everyday import EVERYDAY
from unmask.console.flag_table import Choice, Flag, every_flag, flags_of, table
from unmask.console.flag_values import read
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
