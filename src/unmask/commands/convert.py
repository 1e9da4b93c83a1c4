"""`unmask convert SOURCE DESTINATION --to FORMAT`: weights to and from other libraries."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import tyro

from unmask.commands.reconstruct import reconstruct
from unmask.console.arguments import parse
from unmask.console.hardware import Threads, use_threads
from unmask.console.screen import console
from unmask.console.typed import as_typed
from unmask.console.wrong_calls import explained
from unmask.errors import SettingsError, number_of, with_extra
from unmask.formats import FORMATS, Format, Hints, held_by, write_weights
from unmask.formats.card import SHEET, UNKNOWN_LICENSE, Look, images_in_words, model_card
from unmask.formats.compare import Check
from unmask.formats.destination import check_free
from unmask.formats.hub import push
from unmask.formats.model import ModelSpec
from unmask.formats.onnx import StoredWeights, check_packages, runtime_name
from unmask.formats.onnx_card import onnx_card
from unmask.formats.timm import Timm
from unmask.pictures.sheet import Row, sheet
from unmask.runs.model import model_of
from unmask.runs.onnx_export import Exported, export_onnx, in_words, plan_onnx
from unmask.runs.proof import PictureCheck, check_picture
from unmask.runs.reconstruct import HEADINGS
from unmask.runs.run import Run
from unmask.runs.weights import Found, find_weights
from unmask.spec import within

Layout = Literal["unmask", "fair", "timm", "huggingface", "onnx"]
Pool = Literal["token", "mean"]

_NOTE, _WARNING = "note: ", "warning: "  # beginnings of lines that the console shows as such

_TOLERANCE = 1e-3
"""Beyond rounding: two libraries that differ by more do not compute the same."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask convert`."""

    source: tyro.conf.Positional[str]
    """A run, or weights of unmask, a published MAE, timm or transformers."""

    destination: tyro.conf.Positional[str]
    """A new folder; for fair also a file, NAME.pth."""

    to: Layout
    """The layout to write; fair is that of the published MAE checkpoints, onnx that of onnxruntime and browsers."""

    pool: Pool = "token"
    """For timm: what a classifier will see, the class token or the mean of the patches (fc_norm)."""

    heads: int | None = None
    """Attention heads of the encoder, where the source does not say."""

    decoder_heads: int | None = None
    """Attention heads of the decoder, where the source does not say."""

    dtype: StoredWeights = "float32"
    """For onnx: type of the stored weights; float16 takes half the space, and computing stays in float32."""

    license: str = UNKNOWN_LICENSE
    """Licence of the weights, for the model card, such as apache-2.0 or cc-by-nc-4.0."""

    images: str | None = None
    """Images whose reconstruction the model card shows, if there is a decoder; they become as public as the weights."""

    page: str | None = None
    """Address of a page of `unmask page`, for a link in the model card."""

    push: str | None = None
    """Upload to this repository on the Hugging Face Hub, USER/NAME."""

    threads: Threads = None
    """CPU threads of torch."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "heads", "decoder_heads", "threads")


class Converted(NamedTuple):
    """Weights in another layout."""

    file: Path
    """The file with the tensors; of onnx the encoder's, beside which the others lie."""
    check: Check | None
    """How far the library that the layout is for is from unmask; None if that library is not installed."""
    picture: PictureCheck | None
    """The same for a picture file, from the file to the features; None if that could not be compared."""
    exact: bool
    """Whether they compute the same but for rounding, as far as that was checked."""
    pushed: str | None
    """Where the weights lie on the Hugging Face Hub; None if they were not uploaded."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "convert")
    use_threads(args.threads)
    return 0 if _convert(args, _say).exact else 1


@explained("unmask.convert('runs/photos', 'weights', to='timm')")
def convert(
    source: str | Path,
    destination: str | Path,
    *,
    to: Layout,
    pool: Pool = "token",
    heads: int | None = None,
    decoder_heads: int | None = None,
    dtype: StoredWeights = "float32",
    license: str = UNKNOWN_LICENSE,
    images: str | Path | None = None,
    page: str | None = None,
    push: str | None = None,
) -> Converted:
    """Write weights in the layout of another library, and compare with that library, as `unmask convert` does.

    Args:
        source: a run, or weights of unmask, a published MAE, timm or transformers.
        destination: a new folder; for fair also a file, NAME.pth.
        to: the layout to write; fair is that of the published MAE checkpoints, onnx that of onnxruntime and browsers.
        pool: for timm: what a classifier will see, the class token or the mean of the patches.
        heads: attention heads of the encoder, where the source does not say.
        decoder_heads: attention heads of the decoder, where the source does not say.
        dtype: for onnx: type of the stored weights; computing is in float32.
        license: of the weights, for the model card.
        images: whose reconstruction the model card shows, if there is a decoder; they become as public as the weights.
        page: address of a page of `unmask page`, for a link in the model card.
        push: a repository on the Hugging Face Hub, USER/NAME; weights that are not exact are not uploaded.

    Raises:
        DataError: if the source holds no weights that unmask knows.
        SettingsError: if the layout cannot hold them, or arguments do not fit together.
        RunError: if the destination exists already.
    """
    args = Arguments(
        source=str(source),
        destination=str(destination),
        to=to,
        pool=pool,
        heads=heads,
        decoder_heads=decoder_heads,
        dtype=dtype,
        license=license,
        images=None if images is None else str(images),
        page=page,
        push=push,
    )
    return _convert(args, say=lambda _: None)


def _convert(args: Arguments, say: Callable[[str], None]) -> Converted:
    """Read, write, compare and upload; `say` gets a line about each step when it is done."""
    if args.to == "onnx":
        return _convert_to_onnx(args, say)
    if args.dtype != "float32":
        raise SettingsError(
            f"--dtype is for --to onnx, and --to {args.to} stores float32; leave it out"
        )
    layout, destination = _layout(args.to, args.pool), Path(args.destination)
    check_free(destination, args.to)
    for flag in ("push", "images"):
        if getattr(args, flag) is not None and destination.suffix == ".pth":
            raise SettingsError(f"--{flag} is for a folder; name one instead of {destination}")

    hints = Hints(num_heads=args.heads, decoder_heads=args.decoder_heads)
    found = find_weights(args.source, hints)
    for line in _read_lines(found, args.source):
        say(line)
    weights, left = held_by(found.weights, layout)
    for line in left:
        say(f"{_NOTE}{line}")
    look = _look(args, found)
    facts = _data(found.run)
    card = model_card(weights, args.to, destination.resolve().name, args.license, facts, look)
    file = write_weights(weights, destination, layout, card, look.files)
    say(f"written   {_listed(destination)}")

    check = layout.check(weights, file)
    exact = check is None or check.difference <= _TOLERANCE
    for line in _check_lines(check, exact):
        say(line)
    seen = check_picture(found, weights, layout, file)
    if isinstance(seen, PictureCheck):
        exact = exact and seen.same
    for line in _picture_lines(seen):
        say(line)
    pushed = push(destination, args.push) if exact and args.push is not None else None
    if pushed is not None:
        say(f"pushed    {pushed}")
    return Converted(file, check, seen if isinstance(seen, PictureCheck) else None, exact, pushed)


def _convert_to_onnx(args: Arguments, say: Callable[[str], None]) -> Converted:
    """The same for ONNX files, of which a source may hold several."""
    destination = Path(args.destination)
    if args.pool != "token":
        raise SettingsError(
            "--pool is timm's, and encoder.onnx gives both, cls and mean; leave it out"
        )
    check_packages("--to onnx")
    check_free(destination, "onnx")
    plan = plan_onnx(args.source, Hints(num_heads=args.heads, decoder_heads=args.decoder_heads))
    found = plan.found
    for line in (*_read_lines(found, args.source), *(f"{_NOTE}{note}" for note in plan.notes)):
        say(line)
    look = _look(args, found)
    facts = _data(found.run)
    card = onnx_card(
        found.weights, plan.graphs, destination.resolve().name, args.license, facts, look
    )

    def done(one: Exported) -> None:
        for line in _onnx_lines(one):
            say(line)

    files = export_onnx(plan, destination, args.dtype, card, done, look.files)
    say(f"written   {_listed(destination)}")
    exact = all(one.exact for one in files)
    worst = max(files, key=lambda one: one.difference)
    pushed = push(destination, args.push) if exact and args.push is not None else None
    if pushed is not None:
        say(f"pushed    {pushed}")
    check = Check(runtime_name(), ", ".join(worst.outputs), worst.difference)
    return Converted(files[0].file, check, None, exact, pushed)


def _look(args: Arguments, found: Found) -> Look:
    """What the card shows and links to.

    Raises:
        RunError: if pictures are given, and the source cannot rebuild them.
        SettingsError: if the page has no address that others can open.
    """
    if args.page is not None and not args.page.startswith(("https://", "http://")):
        raise SettingsError(
            f"--page {args.page} is not an address; upload the folder of `unmask page` to a web server first, and give its https://"
        )
    if args.images is None:
        return Look(args.page, {})
    rebuilt = reconstruct(model_of(found, args.source), args.images).images
    # without names of files, and where the weights lie
    rows = [Row(one.reconstruction.versions(), "") for one in rebuilt]
    content = BytesIO()
    sheet(HEADINGS, rows, [], shrinks=True).save(content, "PNG")
    return Look(args.page, {SHEET: content.getvalue()})


def _onnx_lines(one: Exported) -> Iterator[str]:
    """What a file computes, and how far onnxruntime is from unmask with it."""
    sizes = " and ".join(one.sizes)
    fixed = "" if one.graph.any_size else ", the only size it takes"
    yield f"exported  {one.file.name}: {', '.join(one.outputs)}"
    yield (
        f"checked   largest difference to {runtime_name()}: {in_words(one.difference, one.largest)} (batches of 1, 3 and 7, {sizes} "
        f"pixels{fixed})"
    )
    if not one.exact:
        yield f"{_WARNING}that is more than rounding: do not use {one.file.name}"


def _say(line: str) -> None:
    if line.startswith(_WARNING):
        console.warn(line.removeprefix(_WARNING))
    elif line.startswith(_NOTE):
        console.note(line.removeprefix(_NOTE))
    else:
        console.result(line)


def _layout(to: Layout, pool: Pool) -> Format:
    layout = FORMATS[to]
    if isinstance(layout, Timm):
        return replace(layout, pool=pool)
    if pool != "token":
        raise SettingsError(f"--pool is timm's, and --to {to} has no classifier; leave it out")
    return layout


def _read_lines(found: Found, source: str) -> Iterator[str]:
    """What was read, and what a user should know of it."""
    weights = found.weights
    parts = "encoder and decoder" if weights.decoder else "encoder"
    yield f"read      {source}: {parts} ({weights.spec.origin})"
    yield f"model     {_shape(weights.spec)}"
    for line in (*found.damaged, *weights.notes):
        yield f"{_NOTE}{line}"
    if found.layout == "fair":
        yield (
            "licence   the authors' published weights are CC BY-NC 4.0; if these are they, or derive from "
            "them, say --license cc-by-nc-4.0"
        )


def _shape(spec: ModelSpec) -> str:
    encoder = spec.encoder
    several = f"{encoder.class_tokens} class tokens, " if encoder.class_tokens > 1 else ""
    return (
        f"{number_of(encoder.depth, 'block')} of {encoder.embed_dim} with {encoder.num_heads} heads, {several}patches of "
        f"{encoder.patch_size}, {images_in_words(spec)} ({spec.statistics.source})"
    )


def _data(run: Run | None) -> str:
    """What a run was trained on, without telling where that lies."""
    if run is None:
        return "unknown, because the weights were not read from a run"
    return f"{number_of(run.images, 'image')} of {Path(as_typed(run.data)).name}, {run.recipe.epochs:g} epochs"


def _listed(destination: Path) -> str:
    if not destination.is_dir():
        return f"{destination} and {destination.with_suffix('.md').name}"
    return f"{destination}: {', '.join(sorted(path.name for path in destination.iterdir()))}"


def _check_lines(check: Check | None, exact: bool) -> Iterator[str]:
    """How far this and the other library are apart."""
    if check is None:
        yield f"not checked: transformers is not installed; {with_extra('hub')}"
        return
    yield f"checked   largest difference to {check.against}: {check.difference:.1e} ({check.of})"
    if not exact:
        yield f"{_WARNING}that is more than rounding: do not use the written weights"


def _picture_lines(seen: PictureCheck | str) -> Iterator[str]:
    """How far this and the other library are apart for a picture file; or why that is not known."""
    if isinstance(seen, str):
        yield f"          not compared on a picture file: {seen}"
        return
    yield (
        f"checked   {seen.picture}, from the file to the features in {seen.against}: largest difference of a pixel "
        f"{seen.levels:.2g} of 255, of a feature {seen.features:.1e}"
    )
    if not seen.same:
        yield f"{_WARNING}that is more than rounding: do not use its settings for pictures; crop and resize them as unmask does"
