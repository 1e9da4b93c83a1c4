"""Two language models on characters, with the Transformer blocks of the image encoder.

`NextCharacter` is GPT's objective (Radford and others, 2018): predict each character from the previous ones.
`HiddenCharacters` is BERT's (Devlin and others, 2019, section 3.1): predict some characters from all others.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Loss, Size
from unmask.encoders.layers import NORM_EPSILON, Block, initialize
from unmask.encoders.positions import sine_cosine
from unmask.spec import within

_MASKED, _REPLACED = 0.8, 0.9  # BERT: 80 % become the mask, 10 % another character, 10 % stay


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A Transformer on characters."""

    length: int = 32
    """Characters per passage."""

    embed_dim: int = 96
    """Width of the tokens."""

    depth: int = 3
    """Number of Transformer blocks."""

    num_heads: int = 3
    """Attention heads in each block; must divide embed_dim."""

    def __post_init__(self) -> None:
        within(self, "[8, inf)", "length")
        within(self, "[1, inf)", "embed_dim", "depth", "num_heads")

    def build(self, symbols: int) -> "CharacterTransformer":
        """The module for an alphabet of this size, initialised from torch's global generator."""
        return CharacterTransformer(self, symbols)


class CharacterTransformer(nn.Module):
    """See `Reader`. The mask is one more symbol after those of the alphabet."""

    positions: Tensor

    def __init__(self, spec: Reader, symbols: int) -> None:
        super().__init__()
        width = spec.embed_dim
        self.symbols, self.mask_symbol = symbols, symbols
        self.embed = nn.Embedding(symbols + 1, width)  # standard deviation 1, like the positions
        table = sine_cosine(width, Size(1, spec.length))[1:].float()
        self.register_buffer("positions", table, persistent=False)
        blocks = (Block(width, spec.num_heads, 4.0) for _ in range(spec.depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.head = nn.Linear(width, symbols)
        initialize(self.blocks)

    def forward(
        self, tokens: Int[Tensor, "b t"], bias: Float[Tensor, "1 1 t t"] | None
    ) -> Float[Tensor, "b t symbols"]:
        """Logits of every symbol at every position; `bias` is the attention mask."""
        hidden = self.embed(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            hidden = block(hidden, bias=bias)
        return self.head(self.norm(hidden))


def only_before(count: int, device: torch.device) -> Float[Tensor, "1 1 t t"]:
    """The causal attention mask: each position attends to itself and to earlier ones."""
    after = torch.ones(count, count, dtype=torch.bool, device=device).triu(1)
    return torch.zeros(count, count, device=device).masked_fill(after, -math.inf)[None, None]


@dataclass(frozen=True, kw_only=True)
class NextCharacter:
    """Predict the next character at every position from the characters up to it."""

    def build(self, reader: CharacterTransformer) -> "NextCharacterModel":
        """The module around a reader."""
        return NextCharacterModel(reader)


class NextCharacterModel(nn.Module):
    """See `NextCharacter`."""

    def __init__(self, reader: CharacterTransformer) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean cross-entropy over all positions except the first, in nats; without randomness."""
        passages = batch.views[0]
        scores = self.scores(passages[:, :-1])
        return Loss(F.cross_entropy(scores.flatten(0, 1), passages[:, 1:].flatten()), {})

    def scores(self, passages: Int[Tensor, "b t"]) -> Float[Tensor, "b t symbols"]:
        """At each position, logits of the next character."""
        return self.reader(passages, only_before(passages.shape[1], passages.device))

    @torch.inference_mode()
    def continued(
        self, beginning: Int[Tensor, " t"], count: int, generator: torch.Generator
    ) -> Int[Tensor, "all"]:
        """The beginning and `count` more characters, sampled from the model's predictions."""
        text, length = beginning, len(self.reader.positions)
        for _ in range(count):
            probabilities = self.scores(text[None, -length:])[0, -1].softmax(-1)
            text = torch.cat([text, torch.multinomial(probabilities, 1, generator=generator)])
        return text


@dataclass(frozen=True, kw_only=True)
class HiddenCharacters:
    """Predict the characters at some positions of a passage from the whole passage."""

    ratio: float = 0.15
    """Share of the positions to predict; BERT uses 0.15."""

    last: Literal["kept", "same-passage"] = "kept"
    """What the last tenth of these positions shows: the true character (BERT), or one from another position."""

    def __post_init__(self) -> None:
        within(self, "(0, 1)", "ratio", usual="BERT uses 0.15")

    def build(self, reader: CharacterTransformer) -> "HiddenCharactersModel":
        """The module around a reader."""
        return HiddenCharactersModel(self, reader)


class HiddenPassages(NamedTuple):
    """Passages with some characters hidden."""

    input: Int[Tensor, "b t"]
    """The model's input. Of the hidden positions, 80 % show the mask, 10 % another character, 10 % as `last` says."""
    hidden: Bool[Tensor, "b t"]
    """The positions to predict, the same number in each passage."""


class HiddenCharactersModel(nn.Module):
    """See `HiddenCharacters`."""

    def __init__(self, spec: HiddenCharacters, reader: CharacterTransformer) -> None:
        super().__init__()
        self.spec, self.reader = spec, reader

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean cross-entropy over the hidden positions, in nats."""
        shape = (4, batch.whole, batch.views[0].shape[1])
        noise = torch.rand(shape, generator=generator, device=generator.device)
        passages = batch.views[0]
        visible, hidden = self.hide(passages, batch.own(noise, dim=1))
        scores = self.reader(visible, None)[hidden]
        return Loss(F.cross_entropy(scores, passages[hidden]), {})

    def hide(self, passages: Int[Tensor, "b t"], noise: Float[Tensor, "4 b t"]) -> HiddenPassages:
        """Choose positions and replace their characters, from uniform random numbers between 0 and 1."""
        order_noise, kind, symbol_noise, offset_noise = noise
        length = passages.shape[1]
        count = min(length, max(1, round(self.spec.ratio * length)))
        hidden = torch.zeros_like(passages, dtype=torch.bool)
        hidden.scatter_(1, order_noise.argsort(1)[:, :count], True)
        symbols = self.reader.symbols
        steps = 1 + (symbol_noise * (symbols - 1)).long()  # to any symbol except the true one
        other = (passages + steps) % symbols
        last = passages
        if self.spec.last == "same-passage":
            positions = torch.arange(length, device=passages.device)
            offset = 1 + (offset_noise * (length - 1)).long()
            last = passages.gather(1, (positions + offset) % length)
        shown = torch.where(kind < _REPLACED, other, last)
        shown = shown.masked_fill(kind < _MASKED, self.reader.mask_symbol)
        return HiddenPassages(torch.where(hidden, shown, passages), hidden)

    @torch.inference_mode()
    def filled(
        self, passages: Int[Tensor, "b t"], hidden: Bool[Tensor, "b t"]
    ) -> Int[Tensor, "b t"]:
        """The passages with the most likely character at every hidden position; the model sees the mask there."""
        visible = passages.masked_fill(hidden, self.reader.mask_symbol)
        return torch.where(hidden, self.reader(visible, None).argmax(-1), passages)


AnyReading = NextCharacter | HiddenCharacters
