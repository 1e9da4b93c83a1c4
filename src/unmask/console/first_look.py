"""What a command answers before torch is imported: its help, and what is wrong with its flags."""

from unmask.console.command_line import Line, split
from unmask.console.flag_table import Values, recipe_root, recipes_for, table
from unmask.console.flag_values import check, read
from unmask.console.help_text import help_of
from unmask.console.places import check_out, check_places
from unmask.console.study_list import study_list
from unmask.console.verbosity import is_first_process
from unmask.errors import SettingsError, closest, typed

_OTHER_KINDS = {"pretrain": "pretraining", "finetune": "fine-tuning", "tokenizer": "a tokenizer"}


def answered(command: str, arguments: list[str]) -> bool:
    """Print the help if it is asked for, and check the flags; whether the command is done with that.

    A recipe from a file, and the settings of another run, are read later, with torch.

    Raises:
        SettingsError: with the flag that is wrong and what to type instead.
    """
    if command not in table()["commands"]:
        return False
    line = split(arguments, command)
    start = _start(command, line)
    if line.help:
        if start is None:
            return False
        print(help_of(command, start, every=line.help_all))
        return True
    check(command, line)
    if command == "study" and ("list" in line.flags or not line.words):
        print(study_list())
        return True
    # fine-tuning may change the task of a recipe for the labels that it finds
    root = recipe_root(command)
    if root is None or (start and root != "finetune"):
        read(command, line, start or {})
    for path in line.flags.get("out", []):
        check_out(command, path)
    if is_first_process():  # it prepares the run for all
        check_places(command, line)
    return False


def _start(command: str, line: Line) -> Values | None:
    """What flags start from: the named recipe, or nothing; None if that is not known yet."""
    root = recipe_root(command)
    if root is None:
        return {}
    if "like" in line.flags:
        return None
    names = line.flags.get("recipe")
    if not names or "resume" in line.flags:
        return {}
    if ".py" in names[0]:
        return None
    return {"recipe": _recipe(root, names[0])}


def _recipe(root: str, name: str) -> Values:
    """The values of a recipe by name."""
    known = recipes_for(root)
    if name in known:
        return known[name]["values"]
    other = table()["recipes"].get(name)
    if other is not None:
        raise SettingsError(
            f"{name} is a recipe for `unmask {other['for']}`, not for {_OTHER_KINDS[root]}"
        )
    near = closest(name, known)
    meant = f"did you mean {near!r}? " if near else ""
    raise SettingsError(f"unknown recipe {name!r}; {meant}`unmask help recipes` lists all")


_MEANT = {
    "pretrain": "train learn fit",
    "finetune": "fine-tune tune classify transfer",
    "predict": "infer inference classify",
    "evaluate": "eval test score validate probe knn linear",
    "reconstruct": "rebuild visualize visualise show plot",
    "convert": "export import load-weights",
    "bench": "benchmark speed profile",
    "pack": "shard webdataset",
    "page": "studio web browser serve html site",
    "embed": "encode vectors features embeddings vectorize",
    "search": "find query neighbours neighbors retrieve similar",
    "locate": "localize localise geolocate position where",
    "duplicates": "dedup deduplicate dupes leaks",
    "study": "ablate ablation",
    "help recipes": "recipes recipe list models",
}
"""What other programs call a command."""


def closest_command(wrong: str, known: dict[str, str], rest: list[str]) -> SettingsError:
    """The error for an unknown command, with the nearest one; `rest` is what follows it."""
    if wrong.startswith("-") and (named := [word for word in rest if word in known]):
        command, words = named[0], [wrong, *rest]
        words.remove(command)
        return SettingsError(f"the command comes first; did you mean: {typed(command, *words)}")
    meant = next((right for right, others in _MEANT.items() if wrong in others.split()), None)
    near = meant or closest(wrong, known)
    question = f"did you mean {near!r}? " if near else ""
    return SettingsError(f"unknown command {wrong!r}; {question}`unmask --help` lists the commands")
