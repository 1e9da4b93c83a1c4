"""Passages from text, training of the language models, and n-gram models as baselines."""

import gzip
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
from unmask.training.loop import Planned, train
from unmask.training.optimizers import AdamW
from unmask.training.schedules import WarmupCosine

OTHER = "\N{REPLACEMENT CHARACTER}"
"""Replaces characters that are too rare to learn."""

MASK = "\N{LOWER ONE EIGHTH BLOCK}"
"""How a hidden character is printed."""

_OWN_TEXT = Path(__file__).parent / "docstrings.txt.gz"
_RAREST = 20  # occurrences; rarer characters become OTHER
_LEAST = 20_000  # characters of a text
_PIECE, _HELD_OUT_EVERY = 1000, 10
_TESTED = 400  # passages
BATCH = 64
"""Passages per step."""

BASE_LR = 6e-3
"""With this rate both objectives are better than trigrams after 1,200 steps."""

_CONTEXT = 2  # characters before the one that a trigram predicts


class Text(NamedTuple):
    """Characters as numbers, in pieces for training and test."""

    symbols: str
    """The alphabet; the last symbol replaces all rare characters."""
    train: list[Int[Tensor, " t"]]
    test: list[Int[Tensor, " t"]]
    where: str
    """Name of the text."""

    def written(self, numbers: Int[Tensor, " t"]) -> str:
        """Numbers as characters, on one line."""
        return "".join((self.symbols + MASK)[number] for number in numbers.tolist()).replace(
            "\n", " "
        )


def own_text() -> str:
    """The docstrings of this package as they were in November 2026, one a line.

    They are a stored copy, so that figures do not change with the code.
    """
    return gzip.decompress(_OWN_TEXT.read_bytes()).decode("utf-8")


def read_text(path: Path | None) -> Text:
    """The text of a file, or `own_text`; every tenth piece of 1,000 characters is held out.

    Raises:
        DataError: if the file cannot be read, or its text is too short or too uniform.
    """
    if path is None:
        whole, where = own_text(), "docstrings of this package (a copy of November 2026)"
    else:
        whole, where = _read(path), str(path)
    if len(whole) < _LEAST:
        raise DataError(
            f"{where} has {len(whole):,} characters, but training needs at least {_LEAST:,}; use a longer text"
        )
    frequent = [symbol for symbol, count in Counter(whole).most_common() if count >= _RAREST]
    if len(frequent) < 2:
        raise DataError(
            f"{where} has {len(frequent)} characters that occur at least {_RAREST} times, too few to learn from; "
            "use a longer text"
        )
    symbols = "".join(sorted(frequent)) + OTHER
    numbers = {symbol: number for number, symbol in enumerate(symbols)}
    coded = torch.tensor([numbers.get(symbol, len(frequent)) for symbol in whole])
    pieces = list(coded.split(_PIECE))[: len(coded) // _PIECE]
    test = pieces[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]
    train = [piece for n, piece in enumerate(pieces, start=1) if n % _HELD_OUT_EVERY]
    return Text(symbols, train, test, where)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); use a text file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; use a text file in UTF-8") from None


def passages_of(
    pieces: list[Int[Tensor, " t"]], length: int, count: int, *key: int
) -> Int[Tensor, "b length"]:
    """Random passages, a function of the key."""
    random = generator("cpu", "passages", *key)
    chosen = torch.randint(len(pieces), (count,), generator=random).tolist()
    starts = torch.randint(_PIECE - length + 1, (count,), generator=random).tolist()
    return torch.stack([pieces[c][s : s + length] for c, s in zip(chosen, starts, strict=True)])


def built(reader: Reader, objective: AnyReading, text: Text, seed: int) -> nn.Module:
    """The objective's model for this text, initialised from the seed."""
    with seeded("words", seed):
        return objective.build(reader.build(len(text.symbols)))


def learn(
    model: nn.Module, reader: Reader, text: Text, steps: int, base_lr: float, seed: int
) -> Reports:
    """Train on passages of the text; yields one report per step."""
    schedule = WarmupCosine(base_lr=base_lr, warmup_epochs=steps / 10)
    return train(
        model.train(),
        _batches(reader.length, text, seed),
        AdamW(beta1=0.9, beta2=0.99, weight_decay=0.01).build(model),
        Planned(steps, lambda step: schedule.rate(step, steps, 256)),
        first_step=0,
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
    """The quality of predictions on held-out text."""

    bits: float
    """Cross-entropy in bits per character."""
    right: float
    """Accuracy: share of positions where the most likely character is correct."""


def score_of(probabilities: Float[Tensor, "n symbols"], truth: Int[Tensor, " n"]) -> Score:
    """The score of predicted probabilities."""
    likelihood = probabilities.gather(1, truth[:, None]).clamp(min=1e-12)
    right = (probabilities.argmax(1) == truth).float().mean()
    return Score(float(-likelihood.log2().mean()), float(right))


@torch.inference_mode()
def next_scores(model: NextCharacterModel, text: Text, length: int) -> dict[str, Score]:
    """The model's score on held-out passages, and those of n-gram models on the same characters."""
    passages = passages_of(text.test, length, _TESTED, 1)
    probabilities = model.eval().scores(passages[:, :-1]).softmax(-1)[:, _CONTEXT - 1 :]
    truth = passages[:, _CONTEXT:].flatten()
    counts = Counts(text)
    return {
        "one symbol as likely as another": Score(math.log2(counts.symbols), 1 / counts.symbols),
        "how often each occurs": score_of(counts.alone(len(truth)), truth),
        "trigram: the two before": score_of(
            counts.after(passages[:, :-2].flatten(), passages[:, 1:-1].flatten()), truth
        ),
        "next character, as in GPT": score_of(probabilities.flatten(0, 1), truth),
    }


@torch.inference_mode()
def hidden_scores(model: HiddenCharactersModel, text: Text, length: int) -> dict[str, Score]:
    """The same for hidden characters; the n-gram models see the true neighbours, even if they are hidden."""
    passages = passages_of(text.test, length, _TESTED, 2)
    noise = torch.rand(4, *passages.shape, generator=generator("cpu", "tested", 0))
    visible, hidden = model.eval().hide(passages, noise)
    hidden[:, :_CONTEXT], hidden[:, -1] = False, False  # n-grams need these neighbours
    probabilities = model.reader(visible, None)[hidden].softmax(-1)
    rows, columns = hidden.nonzero(as_tuple=True)
    truth, counts = passages[hidden], Counts(text)
    before, left, right = (passages[rows, columns + step] for step in (-2, -1, 1))
    return {
        "one symbol as likely as another": Score(math.log2(counts.symbols), 1 / counts.symbols),
        "how often each occurs": score_of(counts.alone(len(truth)), truth),
        "trigram: the two before": score_of(counts.after(before, left), truth),
        "trigram: one on either side": score_of(counts.between(left, right), truth),
        "hidden characters, as in BERT": score_of(probabilities, truth),
    }


class Counts:
    """Unigram, bigram and trigram models of the training text.

    Longer contexts are interpolated with shorter ones (Witten and Bell, 1991), so that no probability is 0.
    """

    def __init__(self, text: Text) -> None:
        self.symbols = count = len(text.symbols)
        self.trigrams: NDArray[np.float64] = np.zeros((count, count, count))
        for piece in text.train:
            numbers = piece.numpy()
            np.add.at(self.trigrams, (numbers[:-2], numbers[1:-1], numbers[2:]), 1)

    def alone(self, rows: int) -> Float[Tensor, "n symbols"]:
        """The probability of each symbol without context."""
        uniform = np.full(self.symbols, 1 / self.symbols)
        unigrams = _mixed(self.trigrams.sum((0, 1))[None], uniform)
        return torch.from_numpy(np.repeat(unigrams, rows, 0))

    def after(
        self, before: Int[Tensor, " n"], left: Int[Tensor, " n"]
    ) -> Float[Tensor, "n symbols"]:
        """The probability of each symbol after two others."""
        bigrams = _mixed(self.trigrams.sum(0), self.alone(1).numpy()[0])
        counts = self.trigrams[before.numpy(), left.numpy()]
        return torch.from_numpy(_mixed(counts, bigrams[left.numpy()]))

    def between(
        self, left: Int[Tensor, " n"], right: Int[Tensor, " n"]
    ) -> Float[Tensor, "n symbols"]:
        """The probability of each symbol between two others."""
        bigrams = _mixed(self.trigrams.sum(2), self.alone(1).numpy()[0])  # [left symbols]
        counts = self.trigrams[left.numpy(), :, right.numpy()]
        return torch.from_numpy(_mixed(counts, bigrams[left.numpy()]))


def _mixed(counts: NDArray[np.float64], shorter: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities from counts [n symbols], interpolated with those of a shorter context."""
    total = counts.sum(-1, keepdims=True)
    distinct = np.maximum((counts > 0).sum(-1, keepdims=True), 1)
    return (counts + distinct * shorter) / (total + distinct)
