"""Command lines that take six training steps each, over every kind of everything, and some that judge the outcome.

Only the command line and the layout of a run's folder are used here, never the package's modules, so that the same
rows run before and after a refactor. `test_losses.py` compares their losses with `losses.json`; `scripts/same.py` compares
two versions of the code to the last bit.
"""

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

STEPS = 6

_MEASURED = "measuring the cost of a step left outputs for noise in DINO's first centre; every buffer is now as it was"
_RESAMPLED = "position tables are resampled without antialiasing, as in MAE's published code"
_RENAMED = "the tokenizer's modules have the field's names; a migration reads the old ones"
_BESIDE = "random weights and raw pixels stand beside frozen scores, and whitened vectors beside plain ones"
MEANT_TO_CHANGE: dict[str, str] = {
    "dino": f"{_MEASURED}; {_RESAMPLED}",
    "dino/photos": f"{_MEASURED}; {_RESAMPLED}",
    "sizes/rising": _RESAMPLED,
    "together/rising": _RESAMPLED,
    "tokenizer/digits": _RENAMED,
    "tokenizer/photos": _RENAMED,
    "target/tokenizer": _RENAMED,
    "together/beit": _RENAMED,
    **{f"evaluate/{protocol}": _BESIDE for protocol in ("knn", "logistic", "linear", "attentive")},
}
"""Rows in which today's runs differ from those of version 1, and why. `losses.json` holds today's losses."""

CLOCK = ("images_per_second", "waiting", "flops_per_second", "mfu", "peak_memory")
"""Fields of a log that differ from run to run."""

ADDED = ("knn_chance",)
"""Fields of a log that version 1 did not write."""


class Row(NamedTuple):
    """A command line."""

    command: str
    """Its words; {data} is the folder of `write_data`, and {runs} that of all rows."""

    after: str | None = None
    """The row whose run is read."""

    def words(self, name: str, data: Path | str, runs: Path | str) -> list[str]:
        """The words of the command, which writes to the folder of its name."""
        words = [word.format(data=data, runs=runs) for word in self.command.split()]
        return words if self.reads_only else [*words, "--out", str(folder_of(name, runs))]

    @property
    def reads_only(self) -> bool:
        """Whether it trains nothing, and prints figures as JSON."""
        return not self.command.startswith(("pretrain", "finetune", "tokenizer"))


def folder_of(name: str, runs: Path | str) -> Path:
    """Where the run of a row is."""
    return Path(runs) / name.replace("/", "-")


def call(words: list[str]) -> str:
    """Run a command in this process; what it printed.

    Raises:
        RuntimeError: if it failed, with what it said.
    """
    from unmask import cli

    printed, noted = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["unmask", *words]
    try:
        with redirect_stdout(printed), redirect_stderr(noted):
            cli.main()
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"unmask {' '.join(words)}\n{noted.getvalue()}") from None
    finally:
        sys.argv = before
    return printed.getvalue()


def log_of(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's log, without the times and the fields that version 1 lacks."""
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    left_out = {*CLOCK, *ADDED}
    return [{name: value for name, value in line.items() if name not in left_out} for line in lines]


# The rows: parts of command lines first. Every flag that a machine would choose is set.


class Images(NamedTuple):
    """What to train on, and how to take six steps of it."""

    path: str
    batch_size: int
    count: int
    """Images to learn from."""

    flags: str = ""

    def words(self, micro_batch: int | None) -> str:
        """The flags that give the run its size: epochs to a thousandth of a step."""
        epochs = STEPS * self.batch_size / self.count
        sizes = f"--batch-size {self.batch_size} --micro-batch {micro_batch or self.batch_size}"
        return f"{sizes} --epochs {epochs:.6f} {self.flags}"


_DIGITS = Images("digits", 16, 1442, "--statistics {data}/digits.json")
_LABELLED_DIGITS = Images("digits", 16, 1442)
_PHOTOS = Images("{data}/photos", 8, 20)
_LABELLED_PHOTOS = Images("{data}/photos", 8, 16)  # four are held out
_SCENES = Images("{data}/scenes", 4, 6)

_MACHINE = "--device cpu --precision float32 --threads 1"
_ENCODER = "--encoder.embed-dim 8 --encoder.depth 2 --encoder.num-heads 2"
_DECODER = "--objective.decoder.embed-dim 8 --objective.decoder.num-heads 2"

_MASKINGS = {
    "random": "random",
    "block": "block --objective.masking.ratio 0.4",
    "grid": "grid",
    "inverse-block": "inverse-block --objective.masking.ratio 0.75 --objective.masking.side 2",
    "noise": "noise --objective.masking.ratio 0.6",
    "partition": "partition --objective.masking.masks 2 --objective.masking.ratio 0.6",
    "squares": "squares",
}

_TARGETS = {
    "pixels": "pixels",
    "absolute-pixels": "absolute-pixels",
    "normalized-pixels": "normalized-pixels",
    "pca": "pca --objective.target.share 0.5",
    "hog": "hog",
    "kmeans-tokens": "kmeans-tokens --objective.target.codes 8",
    "tokenizer": "tokenizer --objective.target.path {runs}/tokenizer-digits",
    "dalle": "dalle --objective.target.path {data}/dalle.pt",
}

_LATENT = (
    "objective:latent --objective.masks 2 --objective.target-blocks 1 --objective.decoder-dim 8 "
    "--objective.decoder-depth 2 --objective.decoder-groups 2"
)
_AIM = "objective:aim --objective.head-dim 8 --objective.head-depth 1"
_DINO = (
    "objective:dino --objective.prototypes 16 --objective.hidden-dim 8 --objective.bottleneck-dim 4 "
    "--objective.temperature-epochs 2 --objective.temperature 0.3 --objective.first-temperature 0.2 "
    "--objective.student-temperature 0.5 views:multi-crop --views.small-count 2 --views.small-size 4"
)
_MOCO3 = (
    "objective:moco3 --objective.hidden-dim 8 --objective.out-dim 4 --objective.momentum 0.9 "
    "--objective.temperature 1 views:two-crops --views.smallest-share 0.3"
)
_PLACE = "objective:place --objective.memory 20 --objective.hardest 5 views:two-looks"


def _pretrain(
    parts: str,
    on: Images = _DIGITS,
    *,
    micro_batch: int | None = None,
    base_lr: float = 0.1,
    workers: int = 0,
) -> str:
    return (
        f"pretrain {on.path} --recipe mae-digits {on.words(micro_batch)} {_MACHINE} {_ENCODER} "
        f"--workers {workers} --schedule.base-lr {base_lr} {parts}"
    )


def _mae(parts: str = "", on: Images = _DIGITS, **how: Any) -> str:
    return _pretrain(f"{_DECODER} {parts}", on, **how)


def _scratch(parts: str, *, micro_batch: int | None = None, base_lr: float = 0.1) -> str:
    on = _LABELLED_PHOTOS
    return (
        f"finetune scratch {on.path} --recipe finetune-digits {on.words(micro_batch)} {_MACHINE} "
        f"{_ENCODER} --workers 0 --schedule.base-lr {base_lr} {parts}"
    )


def _finetune(parts: str) -> str:
    on = _LABELLED_DIGITS
    return (
        f"finetune {{runs}}/mae-random {on.path} {on.words(None)} {_MACHINE} --workers 0 "
        f"--schedule.base-lr 0.1 {parts}"
    )


def _tokenizer(on: Images) -> str:
    return (
        f"tokenizer {on.path} --recipe tokenizer-digits {on.words(None)} {_MACHINE} --workers 0 "
        "--schedule.base-lr 0.1 --tokenizer.codes 16 --tokenizer.width 8 --tokenizer.depth 1"
    )


def _objectives() -> Iterator[tuple[str, Row]]:
    for masking, words in _MASKINGS.items():
        yield f"mae/{masking}", Row(_mae(f"objective.masking:{words}"))
    for masking, words in _MASKINGS.items():
        yield f"latent/{masking}", Row(_pretrain(f"{_LATENT} objective.masking:{words}"))
    yield "dino", Row(_pretrain(_DINO, base_lr=0.01))
    yield "moco3", Row(_pretrain(_MOCO3, base_lr=0.01))
    yield "aim", Row(_pretrain(_AIM))
    yield (
        "aim/kmeans-tokens",
        Row(_pretrain(f"{_AIM} objective.target:{_TARGETS['kmeans-tokens']}")),
    )
    yield "dino/photos", Row(_pretrain(_DINO, _PHOTOS, base_lr=0.01))
    yield "moco3/photos", Row(_pretrain(_MOCO3, _PHOTOS, base_lr=0.01))
    yield "place/photos", Row(_pretrain(_PLACE, _PHOTOS, base_lr=0.01))


def _targets() -> Iterator[tuple[str, Row]]:
    yield "tokenizer/digits", Row(_tokenizer(_LABELLED_DIGITS))
    yield "tokenizer/photos", Row(_tokenizer(Images("{data}/photos", 8, 18)))  # two are held out
    for target, words in _TARGETS.items():
        after = "tokenizer/digits" if target == "tokenizer" else None
        images = _PHOTOS if target == "dalle" else _DIGITS
        yield f"target/{target}", Row(_mae(f"objective.target:{words}", images), after)


def _parts() -> Iterator[tuple[str, Row]]:
    shape = f"{_DECODER} --objective.decoder.depth 3"
    cross = f"objective.decoder:cross-attention {shape}"
    beit = "encoder.blocks:beit --encoder.blocks.layer-scale 0.5"
    rows = {
        "decoder/cross-attention": _pretrain(cross),
        "decoder/cross-attention-predicted": _pretrain(f"--objective.predicted 0.5 {cross}"),
        "encoding/replaced": _mae("objective.encoding:replaced"),
        "encoding/replaced-linear": _pretrain(
            "objective.encoding:replaced objective.decoder:linear"
        ),
        "blocks/beit": _mae(beit),
        "blocks/beit-replaced": _mae(f"{beit} objective.encoding:replaced"),
        "encoder/class-tokens": _mae("--encoder.class-tokens 2"),
        "optimizer/decay-rises": _mae("--optimizer.last-weight-decay 0.4"),
        "optimizer/layerwise-adamw": _mae("optimizer:layerwise-adamw"),
        "optimizer/lars": _mae("optimizer:lars", base_lr=5),
        "optimizer/muon": _mae("optimizer:muon"),
        "clipping/together": _mae("optimizer.clipping:together --optimizer.clipping.norm 0.1"),
        "clipping/each": _mae("optimizer.clipping:each --optimizer.clipping.norm 0.1"),
        "schedule/warmup": _mae("--schedule.warmup-epochs 0.03 --schedule.min-lr 0.001"),
        "sizes/rising": _mae("sizes:rising --sizes.first 4 --sizes.stages 2", _PHOTOS),
        "image-size/oblong": _mae("--image-size 8x12", _PHOTOS),
        "views/random-crop": _mae("views:random-crop --views.smallest-share 0.3", _PHOTOS),
        "views/clipped-crop": _mae("views:random-crop --views.too-large clip", _PHOTOS),
        "views/margin-crop": _mae("views:margin-crop", _PHOTOS),
        "views/fixed-crop": _mae("views:fixed-crop", _PHOTOS),
        "views/jittered-crop": _mae("views:jittered-crop", _PHOTOS),
        "views/augmented-crop": _mae("views:augmented-crop", _PHOTOS),
        "data/measured-digits": _mae(on=_LABELLED_DIGITS),
        "machine/micro-batch": _mae(micro_batch=5),
        "seed/7": _mae("--seed 7"),
    }
    yield from ((name, Row(command)) for name, command in rows.items())
    init = "--init {runs}/mae-random"
    yield "init/run", Row(_mae(init), "mae/random")
    yield "init/latent", Row(_pretrain(f"{_LATENT} {init}"), "mae/random")
    yield "machine/workers", Row(_mae("views:random-crop", _PHOTOS, workers=1))


def _data() -> Iterator[tuple[str, Row]]:
    yield "data/folder", Row(_mae(on=_PHOTOS))
    yield "data/imagenet-statistics", Row(_mae("--statistics imagenet", _PHOTOS))
    yield "data/shards", Row(_mae("views:random-crop", _PHOTOS._replace(path="{data}/photos.tar")))
    yield (
        "data/parquet",
        Row(_mae("views:random-crop", _PHOTOS._replace(path="{data}/photos.parquet"))),
    )
    yield "data/bands", Row(_mae("views:random-crop", _SCENES))
    yield (
        "data/bands-pixels",
        Row(_mae("--channels 4,2 objective.target:pixels", _SCENES)),
    )


def _finetuning() -> Iterator[tuple[str, Row]]:
    for head in ("mean", "linear", "class-token", "token-probe", "attentive"):
        for blocks in ("all", "0"):
            words = f"task.head:{head} --trained-blocks {blocks}"
            yield f"finetune/{head}-{blocks}", Row(_finetune(words), "mae/random")
    rows = {
        "scratch/mean": _scratch(""),
        "scratch/half": _scratch("--trained-blocks half"),
        "scratch/last-block": _scratch("--trained-blocks 1 task.head:linear"),
        "scratch/regularised": _scratch("--task.label-smoothing 0.1 --task.drop-path 0.3"),
        "scratch/average": _scratch("--task.weight-average 0.5"),
        "scratch/average-probe": _scratch(
            "--task.weight-average 0.5 --trained-blocks 0 task.head:token-probe"
        ),
        "scratch/adamw": _scratch("optimizer:adamw"),
        "scratch/lars": _scratch("task.head:token-probe optimizer:lars", base_lr=5),
        "scratch/beit": _scratch("encoder.blocks:beit"),
        "scratch/augmented": _scratch("views:augmented-crop"),
        "scratch/micro-batch": _scratch("", micro_batch=3),
        "mixing/mixup": _scratch("--mixing.mixup 0.8 --mixing.cutmix 0"),
        "mixing/cutmix": _scratch("--mixing.mixup 0 --mixing.cutmix 1"),
        "mixing/erasing": _scratch("--mixing.mixup 0.8 --mixing.cutmix 1 --mixing.erasing 0.5"),
        "noise/patch-keep": _scratch("--patch-keep 0.5"),
        "noise/patch-keep-rises": _scratch("--patch-keep 0.25:1"),
        "noise/other-patches": _scratch("--patch-keep 0.5 --noise.instead patches"),
        "noise/pixels": _scratch("--noise.pixel-noise 0.3"),
    }
    yield from ((name, Row(command)) for name, command in rows.items())


def _judging() -> Iterator[tuple[str, Row]]:
    judge = "evaluate {runs}/mae-random digits --device cpu --json --protocol"
    rows = {
        "evaluate/knn": f"{judge} knn --control random",
        "evaluate/logistic": f"{judge} logistic --labels 2 --seeds 2",
        "evaluate/linear": f"{judge} linear --labels 2 --seeds 1",
        "evaluate/attentive": f"{judge} attentive --labels 2 --seeds 1",
        "evaluate/partial": f"{judge} partial --epochs 1 --labels 5 --seeds 1 --control scratch",
        "evaluate/augmented": f"{judge} linear --augment --epochs 1 --labels 5 --seeds 1",
        "reconstruct": "reconstruct {runs}/mae-random digits --json --out {runs}/sheet.png",
    }
    for name, command in rows.items():
        yield name, Row(command, "mae/random")
    yield (
        "predict",
        Row("predict {runs}/scratch-average {data}/photos --json", "scratch/average"),
    )


def _together() -> Iterator[tuple[str, Row]]:
    """Several kinds in each, so that a few rows go over all of them."""

    def parts(masking: str, target: str) -> str:
        return f"objective.masking:{_MASKINGS[masking]} objective.target:{_TARGETS[target]}"

    cross = f"objective.decoder:cross-attention {_DECODER} --objective.decoder.depth 3"
    beit = "encoder.blocks:beit objective.encoding:replaced objective.decoder:linear"
    clipping = "optimizer.clipping:together --optimizer.clipping.norm 0.1"
    rising = "sizes:rising --sizes.first 4 --sizes.stages 2"
    photos = {
        "block": f"{_DECODER} {parts('block', 'hog')} views:random-crop optimizer:layerwise-adamw",
        "inverse-block": f"{_DECODER} {parts('inverse-block', 'pixels')} views:margin-crop optimizer:lars",
        "squares": f"{_DECODER} {parts('squares', 'dalle')} views:augmented-crop optimizer.clipping:each",
        "rising": f"{_DECODER} {parts('random', 'absolute-pixels')} views:jittered-crop {rising}",
    }
    yield from ((f"together/{name}", Row(_pretrain(r, _PHOTOS))) for name, r in photos.items())
    digits = {  # fitted targets look through thousands of images, which files would be slow to give
        "grid": f"{_DECODER} {parts('grid', 'pca')} optimizer:muon",
        "partition": f"{parts('partition', 'kmeans-tokens')} {cross} views:fixed-crop {clipping}",
    }
    yield from ((f"together/{name}", Row(_pretrain(r))) for name, r in digits.items())
    codes = f"{beit} objective.target:{_TARGETS['tokenizer']}"
    yield "together/beit", Row(_pretrain(codes), "tokenizer/digits")


ROWS: dict[str, Row] = {
    name: row
    for group in (_objectives, _targets, _parts, _data, _finetuning, _together, _judging)
    for name, row in group()
}
"""Every row by its name."""

TESTED = (
    "mae/random",
    "latent/partition",
    "dino",
    "moco3",
    "place/photos",
    "aim",
    "tokenizer/digits",
    "together/block",
    "together/grid",
    "together/inverse-block",
    "together/partition",
    "together/squares",
    "together/rising",
    "together/beit",
    "data/shards",
    "data/parquet",
    "data/bands",
    "init/run",
    "finetune/mean-all",
    "finetune/linear-0",
    "finetune/attentive-all",
    "scratch/half",
    "scratch/average-probe",
    "mixing/erasing",
    "noise/patch-keep-rises",
    "noise/other-patches",
)
"""The rows that the test runs: every kind at least once, in seconds. `scripts/same.py` runs all."""


# What the rows read beside digits.


def write_data(root: Path) -> Path:
    """Small colour images in three containers, scenes of five bands, and an encoder for DALL-E's codes, all drawn."""
    photos = dict(_draw_photos())
    for name, content in photos.items():
        path = root / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    _write_shard(root / "photos.tar", photos)
    _write_parquet(root / "photos.parquet", photos)
    _write_scenes(root / "scenes")
    torch.save(_dalle_tensors(), root / "dalle.pt")
    (root / "digits.json").write_text(json.dumps(_DIGITS_STATISTICS))
    return root


_DIGITS_STATISTICS = {
    "mean": [0.3053218722343445],
    "std": [0.37610727548599243],
    "low": [0.0],
    "high": [1.0],
    "values": "uint8",
    "source": "measured on 1,000 images",
}
"""What is measured on digits, given so that most rows need not measure it."""


def _draw_photos() -> Iterator[tuple[str, bytes]]:
    """Ten PNGs of each of two classes, dark and bright: ramps with noise on them."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:12, 0:10]
    for number in range(20):
        slopes = random.uniform(-4, 4, (2, 1, 1, 3))
        levels = (
            80 + 100 * (number % 2) + slopes[0] * rows[..., None] + slopes[1] * columns[..., None]
        )
        noisy = (levels + random.normal(0, 10, levels.shape)).clip(0, 255).astype(np.uint8)
        content = io.BytesIO()
        Image.fromarray(noisy).save(content, "PNG")
        yield f"{('dark', 'bright')[number % 2]}/{number:02}.png", content.getvalue()


def _write_shard(path: Path, photos: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in photos.items():
            kind, number = name.removesuffix(".png").split("/")
            for ending, data in (("png", content), ("cls", str(kind == "dark").encode())):
                entry = tarfile.TarInfo(f"{number}.{ending}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def _write_parquet(path: Path, photos: dict[str, bytes]) -> None:
    images = [{"bytes": content, "path": name} for name, content in photos.items()]
    labels = [name.split("/")[0] for name in photos]
    pq.write_table(pa.table({"image": images, "label": labels}), path, row_group_size=8)


def _write_scenes(folder: Path) -> None:
    """Smooth scenes whose five bands lie far apart, with missing values."""
    folder.mkdir()
    random = np.random.default_rng(1)
    rows, columns = np.mgrid[0:20, 0:18]
    for number in range(6):
        slopes = random.uniform(-1, 1, (2, 5, 1, 1))
        scene = (slopes[0] * rows + slopes[1] * columns) * 10.0 ** np.arange(5)[:, None, None]
        scene[:, :3, :2] = np.nan
        np.save(folder / f"{number}.npy", scene.astype(np.float32))


def _dalle_tensors() -> dict[str, torch.Tensor]:
    """Tensors with the names of DALL-E's encoder: 16 codes, 4 channels, a block in each group."""
    random = np.random.default_rng(2)
    width, codes, tensors = 4, 16, {}

    def conv(name: str, into: int, out: int, side: int) -> None:
        weight = random.normal(0, (into * side**2) ** -0.5, (out, into, side, side))
        tensors[f"blocks.{name}.w"] = torch.from_numpy(weight.astype(np.float32))
        tensors[f"blocks.{name}.b"] = torch.zeros(out)

    conv("input", 3, width, 7)
    before = width
    for group in range(4):
        block, out = f"group_{group + 1}.block_1", width * 2**group
        if before != out:
            conv(f"{block}.id_path", before, out, 1)
        inside = max(1, out // 4)
        for number, shape in enumerate(
            [(before, inside, 3), (inside, inside, 3), (inside, inside, 3), (inside, out, 1)], 1
        ):
            conv(f"{block}.res_path.conv_{number}", *shape)
        before = out
    conv("output.conv", before, codes, 1)
    return tensors
