"""What masked images come from: words, here characters, on the very blocks of the image encoder.

`NextCharacter` is GPT's objective (Radford and others, 2018): every character from those before it.
`HiddenCharacters` is BERT's (Devlin and others, 2019, section 3.1): some from all around them.
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
from unmask.errors import SettingsError

_MASKED, _REPLACED = 0.8, 0.9  # BERT: 80 % mask, 10 % another, 10 % the rest


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A Transformer that reads characters."""

    length: int = 32
    """Characters of a passage, which stands for a sentence."""

    embed_dim: int = 96
    """Width of the tokens."""

    depth: int = 3
    """Number of Transformer blocks."""

    num_heads: int = 3
    """Attention heads in each block; must divide embed_dim."""

    def __post_init__(self) -> None:
        for name, least in (("length", 8), ("embed_dim", 1), ("depth", 1), ("num_heads", 1)):
            if getattr(self, name) < least:
                raise SettingsError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def build(self, symbols: int) -> "CharacterTransformer":
        """The module for an alphabet of this size, drawn from torch's global generator."""
        return CharacterTransformer(self, symbols)


class CharacterTransformer(nn.Module):
    """See `Reader`. The last symbol it knows, after those of the alphabet, is the mask."""

    positions: Tensor

    def __init__(self, spec: Reader, symbols: int) -> None:
        super().__init__()
        width = spec.embed_dim
        self.symbols, self.mask_symbol = symbols, symbols
        self.embed = nn.Embedding(symbols + 1, width)  # of size 1, as the positions are
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
        """Scores of every symbol at every place; `bias` says who may look where."""
        read = self.embed(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            read = block(read, bias=bias)
        return self.head(self.norm(read))


def only_before(count: int, device: torch.device) -> Float[Tensor, "1 1 t t"]:
    """The bias of attention that lets each place look at itself and at those before it."""
    after = torch.ones(count, count, dtype=torch.bool, device=device).triu(1)
    return torch.zeros(count, count, device=device).masked_fill(after, -math.inf)[None, None]


@dataclass(frozen=True, kw_only=True)
class NextCharacter:
    """Say the next character at every place, from those up to it."""

    def build(self, reader: CharacterTransformer) -> "NextCharacterModel":
        """The module around a reader."""
        return NextCharacterModel(reader)


class NextCharacterModel(nn.Module):
    """See `NextCharacter`."""

    def __init__(self, reader: CharacterTransformer) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean cross-entropy over all places but the first, in nats; nothing is drawn."""
        passages = batch.views[0]
        scores = self.scores(passages[:, :-1])
        return Loss(F.cross_entropy(scores.flatten(0, 1), passages[:, 1:].flatten()), {})

    def scores(self, passages: Int[Tensor, "b t"]) -> Float[Tensor, "b t symbols"]:
        """At each place, scores of the character after it."""
        return self.reader(passages, only_before(passages.shape[1], passages.device))

    @torch.inference_mode()
    def continued(
        self, beginning: Int[Tensor, "t"], count: int, generator: torch.Generator
    ) -> Int[Tensor, "all"]:
        """A beginning and `count` characters more, each drawn from what the model expects."""
        whole, length = beginning, len(self.reader.positions)
        for _ in range(count):
            expected = self.scores(whole[None, -length:])[0, -1].softmax(-1)
            whole = torch.cat([whole, torch.multinomial(expected, 1, generator=generator)])
        return whole


@dataclass(frozen=True, kw_only=True)
class HiddenCharacters:
    """Say the true character at some places of a passage, from all of it."""

    ratio: float = 0.15
    """Share of the places that are asked for; BERT's is 0.15."""

    last: Literal["kept", "same-passage"] = "kept"
    """What stands at the last tenth of these: the true character (BERT's), or one from another place of the passage."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise SettingsError(f"ratio must lie between 0 and 1, got {self.ratio}; BERT uses 0.15")

    def build(self, reader: CharacterTransformer) -> "HiddenCharactersModel":
        """The module around a reader."""
        return HiddenCharactersModel(self, reader)


class Asked(NamedTuple):
    """Passages as the model sees them."""

    seen: Int[Tensor, "b t"]
    """Of the places asked for, 80 % show the mask, 10 % another character, and 10 % what the objective's spec says."""
    asked: Bool[Tensor, "b t"]
    """Where the true character is asked for: at equally many places of each passage."""


class HiddenCharactersModel(nn.Module):
    """See `HiddenCharacters`."""

    def __init__(self, spec: HiddenCharacters, reader: CharacterTransformer) -> None:
        super().__init__()
        self.spec, self.reader = spec, reader

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean cross-entropy over the places asked for, in nats."""
        shape = (4, batch.whole, batch.views[0].shape[1])
        drawn = torch.rand(shape, generator=generator, device=generator.device)
        passages = batch.views[0]
        seen, asked = self.ask(passages, batch.own(drawn, dim=1))
        scores = self.reader(seen, None)[asked]
        return Loss(F.cross_entropy(scores, passages[asked]), {})

    def ask(self, passages: Int[Tensor, "b t"], drawn: Float[Tensor, "4 b t"]) -> Asked:
        """Choose places and change what stands there, by numbers drawn evenly from 0 to 1."""
        which, what, another, elsewhere = drawn
        length = passages.shape[1]
        count = min(length, max(1, round(self.spec.ratio * length)))
        asked = torch.zeros_like(passages, dtype=torch.bool)
        asked.scatter_(1, which.argsort(1)[:, :count], True)
        symbols = self.reader.symbols
        steps = 1 + (another * (symbols - 1)).long()  # to any symbol but the true one
        other = (passages + steps) % symbols
        last = passages
        if self.spec.last == "same-passage":
            places = torch.arange(length, device=passages.device)
            away = 1 + (elsewhere * (length - 1)).long()
            last = passages.gather(1, (places + away) % length)
        shown = torch.where(what < _REPLACED, other, last)
        shown = shown.masked_fill(what < _MASKED, self.reader.mask_symbol)
        return Asked(torch.where(asked, shown, passages), asked)

    @torch.inference_mode()
    def filled(
        self, passages: Int[Tensor, "b t"], asked: Bool[Tensor, "b t"]
    ) -> Int[Tensor, "b t"]:
        """The passages with the likeliest character at every place asked for, all of which show the mask."""
        seen = passages.masked_fill(asked, self.reader.mask_symbol)
        return torch.where(asked, self.reader(seen, None).argmax(-1), passages)


AnyReading = NextCharacter | HiddenCharacters
