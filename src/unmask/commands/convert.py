"""`unmask convert SOURCE DESTINATION --to FORMAT`: weights to and from other libraries."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from unmask.console.arguments import as_typed, parse
from unmask.console.output import console
from unmask.errors import SettingsError
from unmask.formats import FORMATS, Format, Hints, check_free, held_by, write_weights
from unmask.formats.card import UNKNOWN_LICENSE, images_in_words, model_card
from unmask.formats.hub import push
from unmask.formats.model import ModelSpec
from unmask.formats.timm import Timm
from unmask.runs.run import Run
from unmask.runs.weights import Found, find_weights

_TOLERANCE = 1e-3
"""Beyond rounding: two libraries that differ by more do not compute the same."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask convert`."""

    source: tyro.conf.Positional[str]
    """A run, or weights of unmask, a published MAE, timm or transformers."""

    destination: tyro.conf.Positional[str]
    """A new folder; for fair also a file, NAME.pth."""

    to: Literal["unmask", "fair", "timm", "huggingface"]
    """The layout to write; fair is that of the published MAE checkpoints."""

    pool: Literal["token", "mean"] = "token"
    """For timm: what a classifier will see, the class token or the mean of the patches (fc_norm)."""

    heads: int | None = None
    """Attention heads of the encoder, where the source does not say."""

    decoder_heads: int | None = None
    """Attention heads of the decoder, where the source does not say."""

    license: str = UNKNOWN_LICENSE
    """Licence of the weights, for the model card, such as apache-2.0 or cc-by-nc-4.0."""

    push: str | None = None
    """Upload to this repository on the Hugging Face Hub, USER/NAME."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(
        Arguments, arguments, "convert", "Convert weights, and prove that they still work."
    )
    layout, destination = _layout(args), Path(args.destination)
    check_free(destination, layout)
    if args.push is not None and destination.suffix == ".pth":
        raise SettingsError(f"--push uploads a folder; name one instead of {destination}")

    found = find_weights(args.source, Hints(num_heads=args.heads, decoder_heads=args.decoder_heads))
    _say_found(found, args)
    weights, left = held_by(found.weights, layout)
    for line in left:
        console.print(f"note      {line}")
    found = found._replace(weights=weights)
    card = model_card(found.weights, args.to, destination.name, args.license, _data(found.run))
    file = write_weights(found.weights, destination, layout, card)
    console.print(f"written   {_listed(destination)}")

    status = _say_check(found, layout, file)
    if status == 0 and args.push is not None:
        console.print(f"pushed    {push(destination, args.push)}")
    return status


def _layout(args: Arguments) -> Format:
    layout = FORMATS[args.to]
    if isinstance(layout, Timm):
        return replace(layout, pool=args.pool)
    if args.pool != "token":
        raise SettingsError(f"--pool is timm's, and --to {args.to} has no classifier; leave it out")
    return layout


def _say_found(found: Found, args: Arguments) -> None:
    """What was read, and what will not be written."""
    weights = found.weights
    parts = "encoder and decoder" if weights.decoder else "encoder"
    console.print(f"read      {args.source}: {parts} ({weights.spec.origin})")
    console.print(f"model     {_shape(weights.spec)}")
    for line in (*found.damaged, *weights.notes):
        console.print(f"note      {line}")
    if found.layout == "fair":
        console.print(
            "licence   the authors' published weights are CC BY-NC 4.0; if these are they, or derive from "
            "them, say --license cc-by-nc-4.0"
        )


def _shape(spec: ModelSpec) -> str:
    encoder = spec.encoder
    several = f"{encoder.class_tokens} class tokens, " if encoder.class_tokens > 1 else ""
    return (
        f"{encoder.depth} blocks of {encoder.embed_dim} with {encoder.num_heads} heads, {several}patches of "
        f"{encoder.patch_size}, {images_in_words(spec)} ({spec.statistics.source})"
    )


def _data(run: Run | None) -> str:
    """What a run was trained on, without telling where that lies."""
    if run is None:
        return "not known to the tool that wrote this card; see where the weights come from"
    return f"{run.images:,} images of {Path(as_typed(run.data)).name}, {run.recipe.epochs:g} epochs"


def _listed(destination: Path) -> str:
    if not destination.is_dir():
        return f"{destination} and {destination.with_suffix('.md').name}"
    return f"{destination}: {', '.join(sorted(path.name for path in destination.iterdir()))}"


def _say_check(found: Found, layout: Format, file: Path) -> int:
    """Compare with the other library, and say how far both are apart."""
    check = layout.check(found.weights, file)
    if check is None:
        console.print('not checked: transformers is not installed (`pip install "unmask[hub]"`)')
        return 0
    console.print(
        f"checked   largest difference to {check.against}: {check.difference:.1e} ({check.of})"
    )
    if not check.difference <= _TOLERANCE:
        console.print("          THAT IS MORE THAN ROUNDING: do not use the written weights")
        return 1
    return 0
