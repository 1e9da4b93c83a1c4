"""Help texts, from the table of flags: the everyday flags of a command on one page, or all flags under all kinds."""

import textwrap
from collections.abc import Iterable, Iterator

from unmask.console.aliases import about_alias, aliases_of, stands_for
from unmask.console.everyday import EVERYDAY
from unmask.console.flag_table import (
    REQUIRED,
    Choice,
    Flag,
    Values,
    every_flag,
    flags_of,
    recipe_root,
)

WIDTH = 80
_FROM_RECIPE = " (recipe's)"
_COLUMN = 24
"""Where the text of a flag begins."""


def help_of(command: str, start: Values, *, every: bool = False) -> str:
    """The help of a command: one page, or with `every` the whole tree.

    Args:
        command: the command.
        start: the values that flags start from; without `recipe`, that is chosen from the images.
        every: whether to list all flags under all kinds.
    """
    return "\n".join(_tree(command, start) if every else _page(command, start))


def _usage(command: str, flags: list[Flag | Choice]) -> str:
    words = [each.metavar for each in flags if isinstance(each, Flag) and each.positional]
    return " ".join(["usage: unmask", command, *words, "[flags]"])


def _page(command: str, start: Values) -> Iterator[str]:
    page = EVERYDAY[command]
    flags = flags_of(command, start)
    words = [each for each in flags if isinstance(each, Flag) and each.positional]
    yield _usage(command, flags)
    yield ""
    yield from textwrap.wrap(page.about, WIDTH)
    yield ""
    yield from (f"  {line}" for line in page.examples)
    yield ""
    named = {each.path: each for each in flags if not (isinstance(each, Flag) and each.positional)}
    for word in words:
        yield from _row(word.metavar, _brief(word.help))
    for name in page.flags:
        flag = named.get(name)
        if flag is None:
            if "recipe" not in start or stands_for(name) in named:
                yield from _alias(command, name, start, named)
        elif isinstance(flag, Flag):
            default = _default(flag, start)
            yield from _row(f"--{name} {flag.metavar}", _brief(flag.help) + default)
    yield ""
    yield f"`unmask {command} --help-all` lists all flags; -q says less, -v says more."
    if recipe_root(command) and "recipe" not in start:
        yield f"(recipe's): set by the recipe. `unmask {command} --recipe NAME --help` shows the"
        yield "numbers of one; `unmask help recipes` lists them."


def _tree(command: str, start: Values) -> Iterator[str]:
    """All flags: first those of the command itself, then each choice with the flags of its kinds."""
    present = flags_of(command, start)
    yield _usage(command, present)
    yield ""
    yield from textwrap.wrap(EVERYDAY[command].about, WIDTH)
    yield ""
    defaults = {each.path: each for each in present}
    chosen = {f"{each.path}:{each.kind}" for each in present if isinstance(each, Choice)}
    if aliases := aliases_of(command):
        yield "short names:"
        for name in aliases:
            yield from _alias(command, name, start, defaults)
        yield ""
    every = sorted(every_flag(command), key=_is_dotted)  # flags without a dot come first
    first: dict[str, str] = {}  # where a kind with these flags was listed
    skipped: set[tuple[str, ...]] = set()
    opened: set[tuple[str, ...]] = set()
    for each in every:
        if any(each.under[:depth] in skipped for depth in range(1, len(each.under) + 1)):
            continue
        indent = "  " * len(each.under)
        if each.under and each.under not in opened:
            opened.add(each.under)
            content = "".join(
                f"{flag.path} {flag.help}" for flag in every if flag.under == each.under
            )
            place = first.setdefault(f"{each.under[-1]} {content}", " ".join(each.under[:-1]))
            if place != " ".join(each.under[:-1]):
                skipped.add(each.under)
                yield f"{indent}{each.under[-1]}: as under {place}"
                continue
            yield f"{indent}{each.under[-1]}"
        if isinstance(each, Choice):
            kind = getattr(defaults.get(each.path), "kind", None) if "recipe" in start else None
            yield from _choice(each, kind if set(each.under) <= chosen else None, indent)
            continue
        known = defaults.get(each.path)
        flag = known if isinstance(known, Flag) and set(each.under) <= chosen else each
        label = flag.metavar if flag.positional else f"--{flag.path} {flag.metavar}"
        yield from _row(label, flag.help + _default(flag, start), indent)
    if chosen:
        yield ""
        yield f"A kind is chosen by its word: unmask {command} ... PATH:KIND --PATH.FLAG VALUE"


def _is_dotted(each: Flag | Choice) -> bool:
    return isinstance(each, Choice) or "." in each.path


def _choice(choice: Choice, kind: str | None, indent: str) -> Iterator[str]:
    recipes = f" (recipe's: {kind})" if kind else ""
    text = f"{choice.path}:KIND  {choice.help} One of {', '.join(choice.kinds)}.{recipes}"
    yield ""
    yield from textwrap.wrap(
        text, WIDTH, initial_indent=indent + "  ", subsequent_indent=indent + "      "
    )


def _alias(
    command: str, name: str, start: Values, named: dict[str, Flag | Choice]
) -> Iterable[str]:
    label = f"--{name} {aliases_of(command)[name]}"
    flag = named.get(stands_for(name))
    default = ""
    if "recipe" not in start:
        default = _FROM_RECIPE
    elif isinstance(flag, Choice):
        default = f" (default: {flag.kind})"
    elif isinstance(flag, Flag) and name != "model":
        default = _default(flag, start)
    return _row(label, about_alias(name) + default)


def _row(label: str, text: str, indent: str = "") -> Iterator[str]:
    """A flag and its text, which begins in its own column, or on the next line after a long flag."""
    edge = indent + " " * _COLUMN
    lines = textwrap.wrap(text, WIDTH - len(edge)) or [""]
    head = f"{indent}  {label.strip()}"
    if len(head) + 2 > len(edge):
        yield head
        yield edge + lines[0]
    else:
        yield f"{head:{len(edge)}}{lines[0]}"
    yield from (edge + line for line in lines[1:])


def _brief(text: str) -> str:
    """The first sentence of a text."""
    first, end, _ = text.partition(". ")
    return first + ("." if end else "")


def _default(flag: Flag, start: Values) -> str:
    """What a help text says of a default."""
    value = _value(flag)
    if flag.keys[0] != "recipe" or len(flag.keys) == 1 or "recipe" in start:
        return value
    own = flag.under and flag.default is not REQUIRED
    return f"{value[:-1]}, or the recipe's)" if own and value else _FROM_RECIPE


def _value(flag: Flag) -> str:
    if flag.default is REQUIRED:
        return "" if flag.positional else " (required)"
    if flag.type == "bool":
        return f" (default: yes; --{flag.path}=false)" if flag.default else ""
    if flag.default is None or flag.positional or flag.many:
        return ""
    value = flag.default
    if flag.type == "size":
        height, width = value
        value = height if height == width else f"{height}x{width}"
    elif isinstance(value, (list, tuple)):
        value = " ".join(f"{each:g}" for each in value)  # pyright: ignore[reportUnknownVariableType]
    elif isinstance(value, float):
        value = f"{value:g}"
    return f" (default: {value})"
