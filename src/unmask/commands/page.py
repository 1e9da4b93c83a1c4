"""`unmask page RUN ... --out FOLDER`: a page that shows in a browser what runs make of pictures."""

from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import tyro

from unmask.asked import check_weights
from unmask.console.arguments import parse
from unmask.console.bars import progress_on
from unmask.console.hardware import Threads, use_threads
from unmask.console.output import console, loaded, notes
from unmask.errors import DataError, RunError, SettingsError, UnmaskError, number_of, typed
from unmask.evaluation import odd_file
from unmask.formats.onnx import StoredWeights, check_packages
from unmask.page.classes import classes
from unmask.page.neighbours import neighbours
from unmask.page.odd import odd
from unmask.page.runtime import find_runtime
from unmask.page.samples import Sample, samples_of
from unmask.page.segmentation import segmentation
from unmask.page.server import address_of, open_server
from unmask.page.shown import Shown
from unmask.page.site import Written, check_folder, check_runs, names_of, write_page
from unmask.page.studio import studio
from unmask.runs.finetune import Finetune
from unmask.runs.folder import RunFolder
from unmask.runs.model import Model
from unmask.runs.onnx_export import in_words
from unmask.runs.run import Run
from unmask.spec import within
from unmask.tasks import Segment
from unmask.vectors.encoder import encoder_of
from unmask.vectors.manifest import MANIFEST
from unmask.vectors.matrix import open_vectors


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask page`."""

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """What to show, one or more: a run or weights with a decoder, a fine-tuned classifier or segmentation, a folder of
    `unmask embed`, a folder of `unmask odd`."""

    out: str = "page"
    """The folder to write: new, or an earlier page, which is replaced."""

    images: str | None = None
    """Images to offer as samples, read as in training; some of the models' own if not given."""

    samples: int = 6
    """Number of samples of each set of images, which are copied into the folder; 0 for none."""

    encoder: str | None = None
    """Where the encoder of a folder of `unmask embed` or `unmask odd` is now, if it is not where it was."""

    dtype: StoredWeights = "float32"
    """Type of the stored weights; float16 halves the model files, and computing stays in float32."""

    runtime: str | None = None
    """A folder with onnxruntime-web from npm; found or fetched by npm if not given."""

    serve: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Serve the page on this machine until Ctrl-C."""

    port: int = 8000
    """With --serve: the port; 0 for any free one."""

    threads: Threads = None
    """CPU threads of torch."""

    def __post_init__(self) -> None:
        within(self, "[0, 64]", "samples")
        within(self, "[0, 65535]", "port")
        within(self, "[1, inf)", "threads")


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "page")
    check_runs(args.models)
    if args.encoder is not None and not any(map(_has_encoder, args.models)):
        raise SettingsError(
            "--encoder is for folders of `unmask embed` and `unmask odd`, and none is given; leave it out"
        )
    check_packages("unmask page")
    folder = Path(args.out).expanduser()
    check_folder(folder)
    use_threads(args.threads)
    runtime = find_runtime(args.runtime)
    # before minutes of work, in case the port is taken
    server = open_server(folder, args.port) if args.serve else None
    try:
        runs = list(dict.fromkeys(args.models))
        shown = [_shown(run, name, args) for run, name in zip(runs, names_of(runs), strict=True)]
        samples = _samples(shown, args)
        files = write_page(shown, samples, folder, runtime, args.dtype, _say)
        console.result(f"written   {folder}: index.html and what it needs, no request leaves it")
        if server is None:
            console.result(
                f"look at it: {typed('page', *runs, '--out', args.out, '--serve')}, or any web server"
            )
        else:
            _serve(server)
    finally:
        if server is not None:
            server.server_close()
    return 0 if all(one.exact for one in files) else 1


def _serve(server: ThreadingHTTPServer) -> None:
    """Until Ctrl-C."""
    console.result(f"serving   {address_of(server)} until Ctrl-C")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.result("\nstopped")


def _has_encoder(path: str) -> bool:
    """Whether this is a folder of vectors or a memory, whose encoder lies elsewhere."""
    return (Path(path).expanduser() / MANIFEST).is_file() or _memory_at(path) is not None


def _memory_at(path: str) -> Path | None:
    """The file of a memory, which the path or its folder is."""
    place = Path(path).expanduser()
    file = place / odd_file.FILE if place.is_dir() else place
    return file if file.name == odd_file.FILE and file.is_file() else None


def _shown(path: str, name: str, args: Arguments) -> Shown:
    """What a page shows of a run, of weights, of a folder of vectors, or of a memory of normal images."""
    folder = Path(path).expanduser()
    if (folder / MANIFEST).is_file():
        return _neighbours(folder, name, args)
    memory = _memory_at(path)
    if memory is not None:
        kept = odd_file.load(memory)
        return odd(name, kept, _encoder(path, kept, args.encoder), args.dtype)
    run = RunFolder(path)
    if run.made_by(Finetune.command):
        job = Run.read(run, Finetune.command).job
        assert isinstance(job, Finetune)
        is_segmentation = isinstance(job.recipe.task, Segment)
        return segmentation(path, name) if is_segmentation else classes(path, name)
    return studio(path, name, loaded(path, "cpu"))


def _neighbours(folder: Path, name: str, args: Arguments) -> Shown:
    with progress_on(notes):
        searched = open_vectors(folder)
        if searched.warning:
            notes.warn(
                f"{folder} {searched.warning}; run the same `unmask embed` again to finish it"
            )
        try:
            model = encoder_of(folder, searched.manifest, None, "cpu")
        except RunError:
            if args.encoder is None:
                raise
            model = encoder_of(folder, searched.manifest, args.encoder, "cpu")
        shown, note = neighbours(name, searched, model)
    if note:
        notes.note(note)
    notes.note(f"thumbnails and names of {name} will be readable by all who get the page")
    return shown


def _encoder(memory: str, kept: odd_file.Kept, now: str | None) -> Model:
    """The encoder of a memory where it was, or else where it is now; says how to give that place."""
    try:
        check_weights(kept.encoder)
    except UnmaskError:
        if now is None:
            raise RunError(
                f"the encoder of {memory} is not at {kept.encoder}; say where it is with --encoder"
            ) from None
        return _checked(kept, now)
    try:
        return _checked(kept, kept.encoder)
    except UnmaskError:  # other weights lie there by now
        if now is None:
            raise
        return _checked(kept, now)


def _checked(kept: odd_file.Kept, place: str) -> Model:
    model = loaded(place, "cpu")
    kept.check(model.encoder, place)
    return model


def _samples(shown: list[Shown], args: Arguments) -> list[Sample]:
    """The pictures that the page offers; says so, because they are copies."""
    try:
        samples = samples_of([one.reader for one in shown], args.images, args.samples)
    except DataError as error:
        if args.images is not None:
            raise
        raise DataError(f"{error}; or give other samples with --images, or --samples 0") from None
    if samples:
        origin = "" if args.images else "of the runs' own "
        notes.note(
            f"{number_of(len(samples), 'image')} {origin}will be readable by all who get the page"
        )
    return samples


def _say(one: Written) -> None:
    console.result(
        f"model     {one.name}: {one.size / 1e6:.1f} MB, largest difference to unmask "
        f"{in_words(one.difference, one.largest)}"
    )
    if not one.exact:
        console.warn("that is more than rounding: do not trust this page")
