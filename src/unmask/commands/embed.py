"""`unmask embed ENCODER DATA --out VECTORS`: a vector of each picture, in a folder of Parquet files."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray

import unmask
from unmask.asked import place_of
from unmask.console.arguments import DataFlags, parse
from unmask.console.bars import State, watched
from unmask.console.hardware import Threads, use_threads
from unmask.console.labels import labelled_source
from unmask.console.output import console, duration, loaded, matched, notes, say_left_out
from unmask.console.processes import Group, prepared, together
from unmask.data import AnySource
from unmask.data.annotated import pictures_alone
from unmask.data.kinds import find_source
from unmask.data.labels_beside import NO_FILE
from unmask.data.statistics import read_as
from unmask.errors import RunError, SettingsError, number_of, typed
from unmask.files import clear_unfinished
from unmask.runs.model import Model
from unmask.spec import from_json, to_json, within
from unmask.training.distributed import check_device, everyones, here
from unmask.training.hardware import best_workers, find_device
from unmask.vectors.folder import LOCK, UNUSABLE, VectorsFolder
from unmask.vectors.manifest import MANIFEST, Manifest, Pooling, Stored, encoding_of
from unmask.vectors.matrix import open_vectors
from unmask.vectors.parts import part_path
from unmask.vectors.pictures import Pictures, fingerprint_of, names_hash
from unmask.vectors.writing import Plan, Progress, begin, embed, finish, make_plan


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask embed`."""

    encoder: tyro.conf.Positional[str]
    """A run, or weights of unmask, a published MAE, timm or transformers."""

    data: tyro.conf.Positional[str]
    """A folder of images, tar shards, Parquet, multi-band images, or digits; labels are not needed."""

    out: str
    """The folder of vectors: new, or one to continue or to add new pictures to."""

    pooling: Pooling = "mean"
    """What becomes the vector: the mean of the patch tokens, or the class token."""

    whitened: int = 128
    """Principal components of the whitening that search and duplicates use; 0 for none. Vectors are stored without it."""

    dtype: Stored = "float32"
    """Type of the stored values; float16 takes half the space and keeps three digits."""

    batch_size: int = 64
    """Pictures that a loading process reads at a time; it changes no vector."""

    labels_file: str | None = None
    """A CSV, Parquet or JSON lines file with a column file_name and the classes of each image, for the column label; none
    to use no file beside the images either."""

    about_data: Annotated[DataFlags, tyro.conf.arg(name="")] = DataFlags()
    """How to read DATA."""

    workers: int | None = None
    """Processes that load images; chosen for the machine if not given."""

    device: str = "auto"
    """cpu, cuda (or gpu), cuda:1, mps, or auto."""

    threads: Threads = None
    """CPU threads of torch; each computes whole chunks, so they change no vector."""

    def __post_init__(self) -> None:
        within(self, "[0, inf)", "whitened", "workers")
        within(self, "[1, inf)", "batch_size", "threads")


@dataclass(frozen=True)
class _Work:
    """What every process of the command has opened."""

    args: Arguments
    folder: VectorsFolder
    model: Model
    spec: AnySource
    pictures: Pictures
    workers: int


class _Shared(NamedTuple):
    """What the first process sends the others about the plan that it has made."""

    manifest: dict[str, Any]
    """As JSON values."""
    numbers: NDArray[np.int64]
    pending: list[int]
    names: str
    """Hash of the names of the pictures."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "embed")
    folder = VectorsFolder(Path(args.out).expanduser())
    _check_outside(folder.root, args.data)
    again = f"Complete parts are kept; continue with:\n{typed('embed', *arguments)}"
    # the folder stays locked until the last process is ready
    with together("command", again) as group, ExitStack() as stack:
        device = find_device(args.device)
        check_device(device)
        use_threads(args.threads)
        model = loaded(args.encoder, args.device)
        spec = _source(args, model)
        pictures = opened(spec, model)
        workers = (
            best_workers(device, _in_memory(pictures)) if args.workers is None else args.workers
        )
        work = _Work(args, folder, model, spec, pictures, workers)
        try:
            plan = prepared(
                partial(_planned, work, stack),
                partial(_shared, pictures),
                partial(_joined, pictures),
                group,
            )
            assert plan is not None
            _say_plan(plan, pictures)
            started = time.perf_counter()
            _embed(work, plan, group)
            if here().first:
                _say_end(folder, plan, pictures, time.perf_counter() - started)
        except KeyboardInterrupt:
            if here().first:
                console.result(f"\nstopped. {again}")
            return 130
    return 0


def _check_outside(root: Path, data: str) -> None:
    """Refuse a folder of vectors among the pictures, where its files would be read as input.

    Raises:
        SettingsError: with what to do instead.
    """
    pictures = Path(data).expanduser().resolve()
    if pictures.is_dir() and pictures in root.resolve().parents:
        raise SettingsError(
            f"--out {root} is inside {data}, so its files would be read as input; choose a folder outside of it"
        )


def _source(args: Arguments, model: Model) -> AnySource:
    """The source of DATA, with labels if there are some."""
    how, ground = args.about_data.reading(), args.about_data.ground()
    console.print(f"reading   {args.data} ...")
    plain = (how, ground) == (DataFlags().reading(), DataFlags().ground())
    if args.labels_file is None and plain:
        return labelled_source(args.data, args.about_data.data_kind, None, model.bands)
    named = None if args.labels_file == NO_FILE else args.labels_file
    return find_source(args.data, args.about_data.data_kind, how, named, model.bands, ground)


def opened(spec: AnySource, model: Model) -> Pictures:
    """All pictures of a source, with the channels of a model."""
    sources = {}
    for split in spec.splits():
        source = pictures_alone(spec, split)
        say_left_out(source)
        trained_on = "the model was trained on"
        sources[split] = matched(
            read_as(source, model.spec.statistics), model.spec.channels, trained_on
        )
    return Pictures(sources)


def _in_memory(pictures: Pictures) -> bool:
    return all(source.in_memory for source in pictures.sources.values())


def _planned(work: _Work, stack: ExitStack) -> Plan:
    """The plan of the first process; the folder stays locked until the stack is closed."""
    args, folder, model = work.args, work.folder, work.model
    if not (folder.root / MANIFEST).exists():
        folder.check_free()  # before anything is written there, also the lock
    begun = (folder.root / LOCK).exists()
    if note := stack.enter_context(folder.lock()):
        notes.note(note)
    if begun:
        clear_unfinished(folder.root)
    manifest = Manifest(
        encoding=encoding_of(model, args.pooling, args.dtype),
        whitened=args.whitened,
        place=place_of(args.encoder),
        about=f"{args.encoder} ({model.about})",
        data=work.spec,
        generations=(),
        unmask_version=unmask.__version__,
        map_fingerprint=fingerprint_of(work.pictures),
    )
    plan = make_plan(folder, manifest, work.pictures, work.workers)
    begin(folder, plan)
    return plan


def _shared(pictures: Pictures, plan: Plan) -> _Shared:
    names = names_hash(pictures, plan.numbers)
    return _Shared(to_json(plan.manifest), plan.numbers, plan.pending, names)


def _joined(pictures: Pictures, shared: _Shared) -> Plan:
    """The plan that the first process has made.

    Raises:
        RunError: if this process sees other pictures.
    """
    numbers = shared.numbers
    if len(numbers) and (
        int(numbers.max()) >= len(pictures) or names_hash(pictures, numbers) != shared.names
    ):
        raise RunError(
            "it sees other pictures than the first process; all machines must read the same files"
        )
    manifest = from_json(Manifest, shared.manifest)
    return Plan(manifest, numbers, shared.pending, 0, 0)


def _embed(work: _Work, plan: Plan, group: Group) -> None:
    """Make this process's parts, and wait for those of the others."""
    processes = here()
    reports: Iterator[Progress] = embed(
        work.folder,
        plan,
        work.model,
        work.pictures,
        own=plan.pending[processes.rank :: processes.count],
        workers=work.workers,
        batch_size=work.args.batch_size,
    )
    for _ in watched(console, reports, "embedding", _state):
        pass
    everyones(None, group)  # processes may have hours more to do than others


def _state(report: Progress) -> State:
    where = f"{report.done:,} of {report.total:,} pictures"
    words = (f"{report.rate:,.0f} a second",)
    if report.unusable:
        words += (f"{report.unusable:,} unusable",)
    return State(report.done, report.total, where, words)


def _say_plan(plan: Plan, pictures: Pictures) -> None:
    encoding = plan.manifest.encoding
    splits = ", ".join(f"{len(source):,} {split}" for split, source in pictures.sources.items())
    console.print(f"pictures  {splits}")
    console.print(
        f"vectors   {encoding.encoder.embed_dim} values of {encoding.stored}, {encoding.pooling} of the last block, from "
        f"{encoding.image_size} pixels"
    )
    done = len(plan.numbers) - plan.left
    if (plan.known or done) and not plan.left:
        console.print("folder    is complete; nothing is left to embed")
    elif plan.known:
        console.print(f"folder    holds {plan.known + done:,} already; {plan.left:,} are left")
    elif done:
        console.print(f"folder    is unfinished; {plan.left:,} of {len(plan.numbers):,} are left")
    if plan.gone:
        notes.note(
            f"{number_of(plan.gone, 'picture')} of the folder are no longer in the source; their vectors stay"
        )


def _say_end(folder: VectorsFolder, plan: Plan, pictures: Pictures, seconds: float) -> None:
    parts = folder.facts(plan.manifest)
    unusable = finish(folder, parts, pictures.refused)
    searched = open_vectors(folder.root)
    rate = f", {plan.left / seconds:,.0f} a second" if plan.left else ""
    own = {part_path(folder.root, number) for number in plan.pending}
    embedded = sum(part.rows for part in parts if part.path in own)
    console.result(
        f"embedded  {number_of(embedded, 'picture')} in {duration(seconds)}{rate}; {folder.root} holds "
        f"{number_of(len(searched.columns), 'vector')} in {number_of(len(parts), 'part')}"
    )
    if unusable:
        _, name, reason = unusable[0]
        console.warn(
            f"{len(unusable):,} cannot be used, the first is {name}: {reason}; all are in {folder.root / UNUSABLE}"
        )
    if plan.manifest.map_fingerprint:
        console.print(f"locate:   {typed('locate', folder.root, 'PICTURE')}")
    console.print(f"search:   {typed('search', folder.root, 'PICTURE')}")
