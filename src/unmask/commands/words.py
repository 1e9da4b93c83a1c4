"""`unmask words`: predict the next character or hidden characters, with the image encoder's blocks."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import nn

from unmask.console.arguments import parse
from unmask.console.bars import State, watched
from unmask.console.hardware import Threads, use_threads
from unmask.console.screen import console
from unmask.contracts import StepReport
from unmask.errors import number_of
from unmask.randomness import generator
from unmask.runs.run import parameter_count
from unmask.spec import within
from unmask.text.models import (
    HiddenCharacters,
    HiddenCharactersModel,
    NextCharacter,
    NextCharacterModel,
    Reader,
)
from unmask.text.training import (
    BASE_LR,
    BATCH,
    Score,
    Text,
    built,
    hidden_scores,
    learn,
    next_scores,
    passages_of,
    read_text,
)

_SHOWN, _WRITTEN = 3, 160


_SPACE = "\N{OPEN BOX}"
"""A guessed space, which would look like no guess."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask words`."""

    text: tyro.conf.Positional[str | None] = None
    """A text file in UTF-8; a stored copy of this package's docstrings if not given."""

    objective: Literal["both", "next", "hidden"] = "both"
    """Training objective: the next character (GPT), hidden characters (BERT), or both, one after the other."""

    reader: Annotated[Reader, tyro.conf.arg(name="")] = Reader()
    """The Transformer."""

    hidden: Annotated[HiddenCharacters, tyro.conf.arg(name="")] = HiddenCharacters()
    """Which characters are hidden, and how."""

    steps: int = 1200
    """Training steps of 64 passages for each objective."""

    seed: int = 0
    """Seed of weights, passages and masks."""

    threads: Threads = None
    """CPU threads of torch."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "steps", "threads")


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "words")
    use_threads(args.threads)
    text = read_text(Path(args.text).expanduser() if args.text else None)
    console.print(
        f"text      {sum(map(len, text.train)):,} characters for training and {sum(map(len, text.test)):,} for "
        f"testing, {len(text.symbols)} symbols, in {text.where}"
    )
    if args.objective in ("both", "next"):
        _next(args, text)
    if args.objective in ("both", "hidden"):
        _hidden(args, text)
    return 0


def _next(args: Arguments, text: Text) -> None:
    model = built(args.reader, NextCharacter(), text, args.seed)
    assert isinstance(model, NextCharacterModel)
    length = args.reader.length
    console.print(
        "\nnext character, as in GPT: each position sees the text before it and predicts the next character"
    )
    for passage in passages_of(text.train, length, 1, args.seed, 0):
        for place in (length // 4, length // 2, length - 2):
            console.print(
                f"  sees  {text.written(passage[: place + 1])!r}  ->  {text.written(passage[place + 1 : place + 2])!r}"
            )
    _train(args, text, model, "next")
    _say(next_scores(model, text, length))
    beginning = passages_of(text.test, length // 2, 1, 3)[0]
    written = model.continued(beginning, _WRITTEN, generator("cpu", "written", args.seed))
    console.result(f"the model continues {text.written(beginning)!r}:")
    console.result(f"  {text.written(written[len(beginning) :])}")


def _hidden(args: Arguments, text: Text) -> None:
    model = built(args.reader, args.hidden, text, args.seed)
    assert isinstance(model, HiddenCharactersModel)
    length = args.reader.length
    last_tenth = "stay unchanged (BERT's rule)"
    if args.hidden.last == "same-passage":
        last_tenth = (
            "show a character from another position of the passage (unlike BERT, which keeps them)"
        )
    console.print(
        f"\nhidden characters, as in BERT: {args.hidden.ratio:.0%} of the positions are predicted; 80 % of these show the mask, "
        f"10 % another character, and 10 % {last_tenth}"
    )
    passages = passages_of(text.train, length, _SHOWN, args.seed, 0)
    drawn = torch.rand(4, *passages.shape, generator=generator("cpu", "shown", args.seed))
    seen, asked = model.hide(passages, drawn)
    for passage, shown, places in zip(passages, seen, asked, strict=True):
        console.print(
            f"  true  {text.written(passage)}\n  sees  {text.written(shown)}\n  asked {_marks(places)}"
        )
    _train(args, text, model, "hidden")
    _say(hidden_scores(model, text, length))
    passages = passages_of(text.test, length, _SHOWN, 4)
    _, gaps = model.hide(
        passages, torch.rand(4, *passages.shape, generator=generator("cpu", "gaps", 0))
    )
    filled = model.filled(passages, gaps)
    console.result(f"the model fills gaps (^ right, x wrong; {_SPACE} is a space):")
    for passage, gap, guess in zip(passages, gaps, filled, strict=True):
        marks = "".join(
            " ^x"[int(g) + int(g and w)] for g, w in zip(gap, guess != passage, strict=True)
        )
        hole = passage.masked_fill(gap, len(text.symbols))
        fills = "".join(
            _SPACE if g and letter == " " else letter
            for g, letter in zip(gap, text.written(guess), strict=True)
        )
        console.result(f"  gaps  {text.written(hole)}\n  fills {fills}\n        {marks}")


def _marks(places: torch.Tensor) -> str:
    return "".join("^" if place else " " for place in places.tolist())


def _train(args: Arguments, text: Text, model: nn.Module, name: str) -> None:
    size = parameter_count(model) / 1e6
    console.print(
        f"training  {number_of(args.reader.depth, 'block')} of {args.reader.embed_dim}, {size:.2f} M parameters, {args.steps:,} steps of "
        f"{BATCH} passages of {args.reader.length} characters"
    )
    reports = learn(model, args.reader, text, args.steps, BASE_LR, args.seed)
    for _ in watched(console, reports, name, lambda report: _state(report, args.steps)):
        pass


def _state(report: StepReport, steps: int) -> State:
    bits = float(report.loss) / math.log(2)
    where = f"step {report.step:,} of {steps:,}"
    return State(report.step, steps, where, (f"{bits:.2f} bits per character",))


def _say(scores: dict[str, Score]) -> None:
    console.result("on held-out text:")
    for name, score in scores.items():
        console.result(f"  {name:34}{score.bits:6.2f} bits per character, {score.right:4.0%} right")
