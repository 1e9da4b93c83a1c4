"""Completion at Tab: commands, flags, kinds, choices and recipes, from the table of flags."""

from collections.abc import Iterable

from unmask.console.aliases import aliases_of
from unmask.console.flag_table import Choice, Flag, every_flag, recipe_root, recipes_for, table

_PATCHES = {"vit-h": 14}
"""The usual patch size of a model, where it is not 16."""

SCRIPTS = {
    "bash": """_unmask() {
    local IFS=$'\\n'
    COMPREPLY=($(unmask _complete bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
}
complete -o bashdefault -o default -F _unmask unmask
""",
    "zsh": """_unmask() {
    local -a found
    found=("${(@f)$(unmask _complete zsh "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then compadd -- $found; else _files; fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit; compinit -i }
compdef _unmask unmask
""",
    "fish": """function __unmask
    set -l found (unmask _complete fish (commandline -cp) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c unmask -f -a '(__unmask)'
""",
}
"""The completion script of each shell; where nothing is found, file names are completed."""


def say_candidates(arguments: list[str], commands: Iterable[str]) -> int:
    """Print the candidates for the last word of a line, one a line; returns the exit status.

    Args:
        arguments: the name of the shell, and the line up to the cursor.
        commands: the names of the commands.
    """
    shell, line = (*arguments, "", "")[:2]
    words = line.split(" ")[1:]
    words = [word for word in words[:-1] if word] + words[-1:]
    current = words[-1] if words else ""
    # bash takes what follows : and = for a word of its own
    done = max(current.rfind(":"), current.rfind("=")) + 1 if shell == "bash" else 0
    for candidate in candidates(words, commands):
        print(candidate[done:])
    return 0


def candidates(words: list[str], commands: Iterable[str]) -> list[str]:
    """What the last word may become; nothing where file names are meant.

    Args:
        words: the words after `unmask`, up to the cursor; the last may be empty.
        commands: the names of the commands.
    """
    current = words[-1] if words else ""
    if len(words) < 2:
        return _starting([*commands, "help"], current)
    command = words[0]
    if command == "help":
        return _starting([*commands, "recipes"], current)
    if command not in table()["commands"]:
        return []
    name, equals, _ = current.partition("=")
    if equals and name.startswith("--"):
        return _starting([f"{name}={value}" for value in _values(command, name[2:])], current)
    if current.startswith("-"):
        return _starting(_flags(command, words), current)
    if words[-2].startswith("--") and (values := _values(command, words[-2][2:])):
        return _starting(values, current)
    return _starting(_kinds(command), current) if current else []


def _starting(names: Iterable[str], start: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(start)]


def _flags(command: str, words: list[str]) -> list[str]:
    """The flags of a command, without those of kinds other than the chosen ones."""
    chosen = dict(word.split(":", 1) for word in words if ":" in word and word[0] != "-")
    fitting = [
        f"--{each.path}"
        for each in every_flag(command)
        if isinstance(each, Flag)
        and not each.positional
        and all(
            chosen.get(path, kind) == kind
            for path, kind in (under.split(":", 1) for under in each.under)
        )
    ]
    plain = [flag for flag in fitting if "." not in flag]
    short = [f"--{name}" for name in aliases_of(command)]
    return [*plain, *short, *fitting, "--help", "--help-all"]


def _values(command: str, name: str) -> list[str]:
    """The values that a flag may have, if they can be listed."""
    root = recipe_root(command)
    if name == "recipe" and root is not None:
        return list(recipes_for(root))
    if name == "model":
        return [f"{model}{_PATCHES.get(model, 16)}" for model in table()["models"]]
    path = "objective.masking" if name == "masking" else name
    for each in every_flag(command):
        if each.path == path:
            return list(each.kinds if isinstance(each, Choice) else each.choices)
    return []


def _kinds(command: str) -> list[str]:
    return [
        f"{each.path}:{kind}"
        for each in every_flag(command)
        if isinstance(each, Choice)
        for kind in each.kinds
    ]
