"""Write src/unmask/console/flags.json: all flags, kinds and recipes, so that help and errors need no torch.

    python scripts/flags.py

Run it after a change of a flag, a kind, a field's docstring or a recipe; tests/commands/test_flag_table.py fails until then.
"""

import ast
import inspect
import json
import textwrap
import types
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from unmask.cli import COMMANDS
from unmask.contracts import Size
from unmask.encoders.vit import VIT_B16, VIT_H14, VIT_L16, VIT_S16, VIT_TI16, ViT
from unmask.recipes import RECIPES, TOKENIZERS, TRANSFERS
from unmask.spec import Kind, kind_of, kinds, sized, to_json, within
from unmask.study.ablations import STUDIES
from unmask.study.study import SCALES

FILE = Path(__file__).parent.parent / "src" / "unmask" / "console" / "flags.json"

Spec = dict[str, dict[str, Any]]


def table() -> dict[str, Any]:
    """Commands and specs with their fields, recipes with the values that differ from a spec's defaults, and studies."""
    specs: dict[str, Spec] = {}
    commands: dict[str, Spec] = {}
    for name in COMMANDS:
        arguments = getattr(import_module(f"unmask.commands.{name}"), "Arguments", None)
        if arguments is not None:
            commands[name] = _fields(arguments, specs)
    recipes: dict[str, Any] = {}
    for root, command, named in (
        ("Recipe", "pretrain", RECIPES),
        ("Transfer", "finetune", TRANSFERS),
        ("Tokenizing", "tokenizer", TOKENIZERS),
    ):
        for name, entry in named.items():
            values = _differences(root, to_json(entry.recipe), specs)
            recipes[name] = {"for": command, "source": entry.source, "values": values}
    shapes = (VIT_TI16, VIT_S16, VIT_B16, VIT_L16, VIT_H14)
    return {
        "commands": commands,
        "specs": dict(sorted(specs.items())),
        "recipes": recipes,
        "models": dict(
            zip(("vit-ti", "vit-s", "vit-b", "vit-l", "vit-h"), map(_shape, shapes), strict=True)
        ),
        "studies": {
            name: {
                "title": study.title,
                "source": study.source,
                "variations": [variation.name for variation in study.variations],
            }
            for name, study in STUDIES.items()
        },
        "scales": {name: scale.about for name, scale in SCALES.items()},
    }


def _shape(encoder: ViT) -> dict[str, int]:
    return {name: getattr(encoder, name) for name in ("embed_dim", "depth", "num_heads")}


def as_text(content: dict[str, Any]) -> str:
    """The table as JSON with one entry a line."""
    parts = []
    for section, entries in content.items():
        lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in entries.items())
        parts.append(f"{json.dumps(section)}: {{\n{lines}\n}}")
    return "{" + ",\n".join(parts) + "}\n"


def _fields(cls: type, specs: dict[str, Spec]) -> Spec:
    hints, texts, ranges = get_type_hints(cls, include_extras=True), _docstrings(cls), _ranges(cls)
    return {
        field.name: {
            "help": texts[field.name],
            **_described(field, hints[field.name], specs),
            **({"ranges": ranges[field.name]} if field.name in ranges else {}),
        }
        for field in fields(cls)
    }


def _ranges(cls: type) -> dict[str, list[tuple[str, str]]]:
    """The intervals that `within` and `sized` check in `__post_init__`, and in functions that it passes itself to."""
    ranges: dict[str, list[tuple[str, str]]] = {}
    check = cls.__dict__.get("__post_init__")
    for spec, interval, names, usual in _checked(check) if check else ():
        for name in names if spec == "" else (spec,):
            if (interval, usual) not in ranges.setdefault(name, []):
                ranges[name].append((interval, usual))
    return ranges


def _checked(function: Any) -> Iterator[tuple[str, str, list[str], str]]:
    """(field that holds the values, empty for the spec itself; interval; names; end of the message) of each check."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(tree, ast.FunctionDef)
    # tests check types with wrappers
    known, itself = inspect.unwrap(function).__globals__, tree.args.args[0].arg
    for statement in tree.body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or not call.args:
            continue
        holder, called = ast.unparse(call.args[0]), known.get(call.func.id)
        if holder.partition(".")[0] != itself:
            continue
        if called not in (within, sized):
            if inspect.isfunction(called) and len(call.args) == 1 and not call.keywords:
                yield from _checked(called)
            continue
        values = [_value(argument, known) for argument in call.args[1:]]
        named = {each.arg: _value(each.value, known) for each in call.keywords}
        usual = named.get("usual", "")
        if called is within:
            yield holder.partition(".")[2], values[0], values[1:], usual
            continue
        most = named.get("most", inspect.signature(sized).parameters["most"].default)
        for interval in ("[1, inf)", f"(-inf, {most}]"):
            yield holder.partition(".")[2], interval, values, usual


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    """The value of a constant expression, in a module that knows these names."""
    return eval(compile(ast.Expression(node), "<check>", "eval"), known)


def _described(field: Any, hint: Any, specs: dict[str, Spec]) -> dict[str, Any]:
    """What the command line knows of a field: its name there, its type and its default."""
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    described: dict[str, Any] = {}
    for mark in marks:
        if "Positional" in str(mark):
            described["positional"] = True
        if not isinstance(mark, Kind):
            given = {"name": getattr(mark, "name", None), "help": getattr(mark, "help", None)}
            described |= {key: value for key, value in given.items() if value is not None}
    if len(named := kinds(hint)) == 1:
        (member,) = named.values()
        described["spec"] = _spec(member, specs)
    elif named:
        described["kinds"] = {name: _spec(member, specs) for name, member in named.items()}
    elif is_dataclass(plain := getattr(hint, "__origin__", hint)):
        described["spec"] = _spec(plain, specs)
    else:
        described |= _type(get_args(hint)[0] if marks else hint)
    value = _default(field)
    if value is not MISSING:
        described["default"] = _as_json(value, hint)
    return described


def _type(hint: Any) -> dict[str, Any]:
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    optional = {"optional": True} if types.NoneType in members else {}
    inner = next(member for member in members if member is not types.NoneType)
    if get_origin(inner) is Literal:
        return {"choices": list(get_args(inner)), **optional}
    if get_origin(inner) is tuple:
        parts = get_args(inner)
        many = {"many": True} if parts[-1] is Ellipsis else {"values": len(parts)}
        return {"type": parts[0].__name__, **many}
    if inner in (int, float, str, bool, Size):
        return {"type": inner.__name__.lower(), **optional}
    raise TypeError(f"no flag can have the type {hint}")


def _default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _as_json(value: Any, hint: Any) -> Any:
    if len(kinds(hint)) > 1:
        return None if value is None else {"kind": kind_of(hint, value), **to_json(value)}
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(value)
    return list(value) if isinstance(value, tuple) else value


def _spec(cls: type, specs: dict[str, Spec]) -> str:
    name = cls.__name__
    if name not in specs:
        specs[name] = _fields(cls, specs)
    return name


def _differences(spec: str, values: dict[str, Any], specs: dict[str, Spec]) -> dict[str, Any]:
    """The values without those that a spec has by default."""
    kept: dict[str, Any] = {}
    for name, field in specs[spec].items():
        value = values[name]
        if "default" in field and field["default"] == value:
            continue
        if "kinds" in field and value is not None:
            inner = _differences(field["kinds"][value["kind"]], value, specs)
            kept[name] = {"kind": value["kind"], **inner}
        elif "spec" in field:
            kept[name] = _differences(field["spec"], value, specs)
        else:
            kept[name] = value
    return kept


def _docstrings(cls: type) -> dict[str, str]:
    """The docstrings of the fields; of a type with a help text of its own, that text."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    texts: dict[str, str] = {}
    for node, after in zip(tree.body, tree.body[1:], strict=False):
        text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and text:
            texts[node.target.id] = " ".join(str(ast.literal_eval(after.value)).split())
    return texts


if __name__ == "__main__":
    FILE.write_text(as_text(table()), encoding="utf-8")
