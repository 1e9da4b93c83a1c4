"""What users may rely on: public names, flags, documented fields, recipes with their sources."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import unmask
from unmask import cli
from unmask.commands import pretrain
from unmask.recipes import RECIPES, Named, Recipe

ROOT = Path(unmask.__file__).parent

FLAGS = {
    "--recipe",
    "--out",
    "--resume",
    "--like",
    "--init",
    "--data-kind",
    "--channels",
    "--no-data",
    "--frames",
    "--bands",
    "--statistics",
    "--epochs",
    "--minutes",
    "--hours",
    "--batch-size",
    "--image-size",
    "--seed",
    "--workers",
    "--threads",
    "--device",
    "--precision",
    "--micro-batch",
    "--shard",
    "--decode",
    "--save-every-minutes",
    "--max-set-aside",
    "--lr",
    "--mask-ratio",
    "--masking",
    "--model",
    "--patch-size",
    "--no-report",
    "--track",
    "--tile-metres",
    "--tile-overlap",
    "--crs",
    "--corners",
    "--tms",
    "--map-zoom",
}
"""The promised flags of `unmask pretrain`. What is promised stays; think hard before adding one."""


def test_public_names_are_those_that_can_be_imported() -> None:
    for name in unmask.__all__:
        assert getattr(unmask, name) is not None
    offered = {name for name in unmask.__all__ if not name.startswith("_")}
    assert offered == set(unmask._HOMES)
    modules = {path.stem for path in ROOT.iterdir()}
    plain = {name for name in vars(unmask) if not name.startswith("_")}
    known = {"TYPE_CHECKING", "Any", "jaxtyping"}  # the last is put there by the shape checks
    assert plain - modules - offered <= known
    assert len(set(unmask.__all__)) == len(unmask.__all__) <= 25
    assert dir(unmask) == sorted(unmask.__all__)


def test_the_type_checker_and_python_find_public_names_in_the_same_modules() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    homes = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
        if alias.name != "import_module"
    }
    assert homes == unmask._HOMES


def test_commands_are_functions_with_documented_arguments() -> None:
    import unmask.evaluation  # must not stand in the way of unmask.evaluate

    assert unmask.evaluation.__name__ == "unmask.evaluation"
    for name in ("convert", "evaluate", "finetune", "predict", "pretrain", "reconstruct"):
        function = getattr(unmask, name)
        signature = inspect.signature(function)
        assert signature.return_annotation not in (inspect.Signature.empty, None)
        for argument in signature.parameters.values():
            assert argument.annotation is not inspect.Parameter.empty
            assert f"        {argument.name}: " in function.__doc__, (name, argument.name)


def test_unknown_public_name() -> None:
    with pytest.raises(AttributeError, match="'unmask' has no attribute 'laod'"):
        unmask.laod  # noqa: B018


def top_level_flags(text: str) -> set[str]:
    """The flags without a dot in a help text."""
    return set(re.findall(r"(?m)^\W+(--[a-z][a-z-]+)(?=\s)", text))


def test_promised_flags_of_pretrain(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        pretrain.main(["--help-all"])
    assert ended.value.code == 0
    assert top_level_flags(capsys.readouterr().out) == FLAGS
    assert len(FLAGS) <= 39


def test_every_command_is_a_file_with_a_main() -> None:
    files = {path.stem for path in (ROOT / "commands").glob("*.py")}
    assert set(cli.COMMANDS) <= files
    for name in cli.COMMANDS:
        tree = ast.parse((ROOT / "commands" / f"{name}.py").read_text())
        assert "main" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_help_imports_neither_torch_nor_tyro() -> None:
    script = (
        "import sys; sys.argv = ['unmask', '--help']; from unmask.cli import main; main(); "
        "print(sorted({'torch', 'tyro', 'numpy', 'rich', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *said, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    listed = cli.COMMANDS.keys() - cli.UNLISTED.keys()
    assert all(any(line.strip().startswith(name) for line in said) for name in listed)


def specs() -> list[tuple[str, ast.ClassDef]]:
    """Every keyword-only frozen dataclass, with its place."""
    found = []
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and any(
                "dataclass(" in ast.unparse(mark) and "kw_only=True" in ast.unparse(mark)
                for mark in node.decorator_list
            ):
                found.append((f"{file.relative_to(ROOT).as_posix()}:{node.name}", node))
    return found


@pytest.mark.parametrize("spec", [node for _, node in specs()], ids=[name for name, _ in specs()])
def test_every_field_of_every_spec_has_a_docstring(spec: ast.ClassDef) -> None:
    assert "frozen=True" in ast.unparse(spec.decorator_list[0])
    assert ast.get_docstring(spec)
    bare = []
    for node, after in zip(spec.body, [*spec.body[1:], None], strict=True):
        told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(node, ast.AnnAssign) and not told:
            bare.append(ast.unparse(node.target))
    assert bare == []


def test_specs_are_found_at_all() -> None:
    names = {name.rpartition(":")[2] for name, _ in specs()}
    assert {"ViT", "MAE", "RandomMasking", "Recipe", "Run", "Hardware", "Arguments"} <= names


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_source_and_an_expected_score(name: str) -> None:
    named: Named[Recipe] = RECIPES[name]
    assert len(named.source) > 3
    assert len(named.expected) > 10


def test_every_recipe_has_a_docstring() -> None:
    tree = ast.parse((ROOT / "recipes" / "mae.py").read_text())
    for node, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("MAE_"):
            assert isinstance(after, ast.Expr), ast.unparse(node.targets[0])
            assert isinstance(after.value, ast.Constant)
