"""Text to passages, the models of counts that it is judged beside, and training by the loop of all."""

import ast
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from unmask.contracts import Batch, Reports
from unmask.errors import DataError
from unmask.randomness import generator, seeded
from unmask.text.models import (
    AnyReading,
    HiddenCharactersModel,
    NextCharacterModel,
    Reader,
)
from unmask.training.loop import train
from unmask.training.optimizers import AdamW
from unmask.training.schedules import WarmupCosine

OTHER = "\N{REPLACEMENT CHARACTER}"
"""What stands for characters that are too rare to be learnt."""

MASK = "\N{LOWER ONE EIGHTH BLOCK}"
"""How a hidden character is printed."""

_RAREST = 20
_LEAST = 20_000
_PIECE, _HELD_OUT_EVERY = 1000, 10
_TESTED = 400
BATCH = 64
"""Passages of a step."""

BASE_LR = 6e-3
"""At which both objectives pass the trigrams in 1,200 steps."""

_SIGHT = 2  # characters that a trigram looks back


class Text(NamedTuple):
    """Characters as numbers, in pieces to learn from and others to test on."""

    symbols: str
    """The alphabet; the last one stands for all that are rare."""
    train: list[Int[Tensor, "t"]]
    test: list[Int[Tensor, "t"]]
    where: str
    """Which text it is, in words."""

    def written(self, numbers: Int[Tensor, "t"]) -> str:
        """Numbers as characters, on one line."""
        return "".join((self.symbols + MASK)[number] for number in numbers.tolist()).replace(
            "\n", " "
        )


def own_text() -> str:
    """What this package says of itself: the docstrings of all its files, as it is installed."""
    found: list[str] = []
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            value = node.value if isinstance(node, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.append(" ".join(value.value.split()))
    return "\n".join(found)


def read_text(path: Path | None) -> Text:
    """A file's text, or this package's own, every tenth piece of 1,000 characters held out.

    Raises:
        DataError: if it cannot be read, or is too short or too uniform to learn from.
    """
    if path is None:
        whole, where = own_text(), "the docstrings of this package"
    else:
        whole, where = _read(path), str(path)
    if len(whole) < _LEAST:
        raise DataError(
            f"{where} holds {len(whole):,} characters, and fewer than {_LEAST:,} teach nothing; give a longer text"
        )
    often = [symbol for symbol, count in Counter(whole).most_common() if count >= _RAREST]
    if len(often) < 2:
        raise DataError(f"{where} holds hardly any character twice; give a text")
    symbols = "".join(sorted(often)) + OTHER
    numbers = {symbol: number for number, symbol in enumerate(symbols)}
    coded = torch.tensor([numbers.get(symbol, len(often)) for symbol in whole])
    pieces = list(coded.split(_PIECE))[: len(coded) // _PIECE]
    test = pieces[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]
    train = [piece for n, piece in enumerate(pieces, start=1) if n % _HELD_OUT_EVERY]
    return Text(symbols, train, test, where)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a file of text") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8; give a file of text") from None


def passages_of(
    pieces: list[Int[Tensor, "t"]], length: int, count: int, *key: int
) -> Int[Tensor, "b length"]:
    """So many passages, drawn from a key."""
    random = generator("cpu", "passages", *key)
    chosen = torch.randint(len(pieces), (count,), generator=random).tolist()
    starts = torch.randint(_PIECE - length + 1, (count,), generator=random).tolist()
    return torch.stack([pieces[c][s : s + length] for c, s in zip(chosen, starts, strict=True)])


def built(reader: Reader, objective: AnyReading, text: Text, seed: int) -> nn.Module:
    """The objective around a reader of this text, its weights drawn from the seed."""
    with seeded("words", seed):
        return objective.build(reader.build(len(text.symbols)))


def learn(
    model: nn.Module, reader: Reader, text: Text, steps: int, base_lr: float, seed: int
) -> Reports:
    """Train on passages of the text, one report a step."""
    schedule = WarmupCosine(base_lr=base_lr, warmup_epochs=steps / 10)
    return train(
        model.train(),
        _batches(reader.length, text, seed),
        AdamW(beta1=0.9, beta2=0.99, weight_decay=0.01).build(model),
        lambda step: schedule.rate(step, steps, 256),
        first_step=0,
        steps=steps,
        seed=seed,
        device=torch.device("cpu"),
        precision="float32",
        micro_batch=BATCH,
    )


def _batches(length: int, text: Text, seed: int) -> Iterator[Batch]:
    step = 0
    while True:
        passages = passages_of(text.train, length, BATCH, seed, step)
        yield Batch((passages,), None, torch.arange(BATCH), 0)
        step += 1


class Score(NamedTuple):
    """How well characters are said that were not learnt from."""

    bits: float
    """Per character: the mean of minus log2 of the probability given to the true one."""
    right: float
    """Share of the places where the likeliest one is true."""


def score_of(expected: Float[Tensor, "n symbols"], truth: Int[Tensor, "n"]) -> Score:
    """The score of probabilities."""
    given = expected.gather(1, truth[:, None]).clamp(min=1e-12)
    right = (expected.argmax(1) == truth).float().mean()
    return Score(float(-given.log2().mean()), float(right))


@torch.inference_mode()
def next_scores(model: NextCharacterModel, text: Text, length: int) -> dict[str, Score]:
    """The model's score on held-out passages, beside models of counts on the same characters."""
    passages = passages_of(text.test, length, _TESTED, 1)
    expected = model.eval().scores(passages[:, :-1]).softmax(-1)[:, _SIGHT - 1 :]
    truth = passages[:, _SIGHT:].flatten()
    counts = Counts(text)
    return {
        "one symbol as likely as another": Score(math.log2(counts.symbols), 1 / counts.symbols),
        "how often each occurs": score_of(counts.alone(len(truth)), truth),
        "trigram: the two before": score_of(
            counts.after(passages[:, :-2].flatten(), passages[:, 1:-1].flatten()), truth
        ),
        "next character, as in GPT": score_of(expected.flatten(0, 1), truth),
    }


@torch.inference_mode()
def hidden_scores(model: HiddenCharactersModel, text: Text, length: int) -> dict[str, Score]:
    """The same for hidden characters; the models of counts see the true neighbours, hidden or not."""
    passages = passages_of(text.test, length, _TESTED, 2)
    drawn = torch.rand(4, *passages.shape, generator=generator("cpu", "tested", 0))
    seen, asked = model.eval().ask(passages, drawn)
    asked[:, :_SIGHT], asked[:, -1] = False, False  # these have no neighbours to count by
    expected = model.reader(seen, None)[asked].softmax(-1)
    rows, columns = asked.nonzero(as_tuple=True)
    truth, counts = passages[asked], Counts(text)
    before, left, right = (passages[rows, columns + step] for step in (-2, -1, 1))
    return {
        "one symbol as likely as another": Score(math.log2(counts.symbols), 1 / counts.symbols),
        "how often each occurs": score_of(counts.alone(len(truth)), truth),
        "trigram: the two before": score_of(counts.after(before, left), truth),
        "trigram: one on either side": score_of(counts.between(left, right), truth),
        "hidden characters, as in BERT": score_of(expected, truth),
    }


class Counts:
    """How often characters occur alone, in pairs and in threes in the training text.

    Longer contexts are mixed with shorter ones by how often and how variously they were seen (Witten and
    Bell, 1991), so that nothing is impossible.
    """

    def __init__(self, text: Text) -> None:
        self.symbols = count = len(text.symbols)
        self.threes: NDArray[np.float64] = np.zeros((count, count, count))
        for piece in text.train:
            numbers = piece.numpy()
            np.add.at(self.threes, (numbers[:-2], numbers[1:-1], numbers[2:]), 1)

    def alone(self, rows: int) -> Float[Tensor, "n symbols"]:
        """The probability of each symbol, wherever it stands."""
        uniform = np.full(self.symbols, 1 / self.symbols)
        single = _mixed(self.threes.sum((0, 1))[None], uniform)
        return torch.from_numpy(np.repeat(single, rows, 0))

    def after(self, before: Int[Tensor, "n"], left: Int[Tensor, "n"]) -> Float[Tensor, "n symbols"]:
        """Of each symbol after two others."""
        pairs = _mixed(self.threes.sum(0), self.alone(1).numpy()[0])
        found = _mixed(self.threes[before.numpy(), left.numpy()], pairs[left.numpy()])
        return torch.from_numpy(found)

    def between(
        self, left: Int[Tensor, "n"], right: Int[Tensor, "n"]
    ) -> Float[Tensor, "n symbols"]:
        """Of each symbol between two others."""
        pairs = _mixed(self.threes.sum(2), self.alone(1).numpy()[0])  # [left symbols]
        found = _mixed(self.threes[left.numpy(), :, right.numpy()], pairs[left.numpy()])
        return torch.from_numpy(found)


def _mixed(counts: NDArray[np.float64], shorter: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of counts [n symbols], mixed with those of a shorter context."""
    seen = counts.sum(-1, keepdims=True)
    kinds = np.maximum((counts > 0).sum(-1, keepdims=True), 1)
    return (counts + kinds * shorter) / (seen + kinds)
