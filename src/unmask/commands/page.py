"""`unmask page RUN ... --out FOLDER`: a page on which one hides parts of a picture and sees what runs rebuild."""

from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import tyro

from unmask.console.arguments import parse
from unmask.console.hardware import Threads, use_threads
from unmask.console.output import console, loaded, notes
from unmask.errors import DataError, number_of, typed
from unmask.formats.onnx import StoredWeights, check_packages
from unmask.page.classes import classes
from unmask.page.runtime import find_runtime
from unmask.page.samples import Sample, samples_of
from unmask.page.server import address_of, open_server
from unmask.page.shown import Shown
from unmask.page.site import Written, check_folder, check_runs, names_of, write_page
from unmask.page.studio import studio
from unmask.runs.finetune import Finetune
from unmask.runs.folder import RunFolder
from unmask.runs.onnx_export import in_words
from unmask.spec import within


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask page`."""

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """A run, or weights that hold a decoder; several to show them side by side."""

    out: str = "page"
    """The folder to write: new, or an earlier page, which is replaced."""

    images: str | None = None
    """Images to offer as samples, read as in training; some of the run's own if not given."""

    samples: int = 6
    """Number of samples of each run, which are copied into the folder; 0 for none."""

    dtype: StoredWeights = "float32"
    """Type of the stored weights; float16 halves what a browser fetches, and computing stays in float32."""

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
    check_packages("unmask page")
    folder = Path(args.out).expanduser()
    check_folder(folder)
    use_threads(args.threads)
    runtime = find_runtime(args.runtime)
    # before minutes of work, in case the port is taken
    server = open_server(folder, args.port) if args.serve else None
    try:
        runs = list(dict.fromkeys(args.models))
        shown = [_shown(run, name) for run, name in zip(runs, names_of(runs), strict=True)]
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


def _shown(path: str, name: str) -> Shown:
    """What a page shows of a run, or of weights."""
    if RunFolder(path).made_by(Finetune.command):
        return classes(path, name)
    return studio(path, name, loaded(path, "cpu"))


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
