"""Lines broken to the width of a terminal, between words only. Imports nothing heavy, so that errors are answered at once."""

import re
import textwrap

# headings of ten columns, such as "images    ", those of notes and of errors, names in a list, and indents; wrapped lines
# continue below what follows them
_HEADING = re.compile(
    r"warning: |note: |unmask: |(?=.{9} \S)(?:\S{1,8} {2,}|\S{9} | {10})|  \S+ {2,}(?=\S)| +(?:- )?"
)
# lines that hold a command to be pasted stay whole
_COMMAND = re.compile(r"(?:^|: +)unmask [a-z]")
_QUOTED = re.compile(r"`[^`\n]*`")
_NO_BREAK = "\0"  # in no message, because the system's paths cannot hold it


def wrapped(text: str, width: int) -> str:
    """Lines of at most `width` columns, broken between words only; words to be pasted are never broken."""
    return "\n".join(_wrapped_line(line, width) for line in text.split("\n"))


def wrapped_error(text: str, width: int) -> str:
    """As `wrapped`, for errors: commands in backquotes, and one at the end after a colon, stay whole."""
    text = _QUOTED.sub(lambda quoted: quoted.group().replace(" ", _NO_BREAK), text)
    before, colon, command = text.rpartition(": unmask ")
    text = (
        before + colon.replace("unmask ", f"unmask{_NO_BREAK}") + command.replace(" ", _NO_BREAK)
        if colon
        else text
    )
    return "\n".join(_fill(line, width) for line in text.split("\n")).replace(_NO_BREAK, " ")


def _wrapped_line(line: str, width: int) -> str:
    return line if len(line) <= width or _COMMAND.search(line) else _fill(line, width)


def _fill(line: str, width: int) -> str:
    heading = _HEADING.match(line)
    start = heading.group() if heading else ""
    return textwrap.fill(
        line[len(start) :],
        width,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
