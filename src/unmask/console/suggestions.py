"""What to say of a flag or a kind that does not exist: the nearest one that does."""

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence

from unmask.console.aliases import aliases_of
from unmask.console.flag_table import Choice, Flag, every_flag
from unmask.errors import SettingsError, closest, typed

_SYNONYMS = {
    "image-size": "imgsz img-size imagesize input-size resolution size crop-size res",
    "batch-size": "batch bs batchsize b",
    "epochs": "epoch ep num-epochs max-epochs n-epochs",
    "lr": "learning-rate base-lr blr rate",
    "mask-ratio": "ratio masking-ratio",
    "ratio": "mask-ratio masking-ratio",
    "masking": "mask mask-type mask-kind strategy",
    "model": "arch architecture backbone encoder net network",
    "patch-size": "patch",
    "out": "output output-dir out-dir outdir save-dir project dest o folder",
    "init": "weights checkpoint ckpt pretrained load",
    "device": "gpu gpus cuda accelerator",
    "precision": "amp fp16 bf16 dtype mixed-precision",
    "workers": "num-workers jobs j n-jobs",
    "threads": "num-threads cpus",
    "recipe": "config cfg preset name",
    "schedule.warmup-epochs": "warmup warmup-epochs",
    "optimizer.weight-decay": "wd weight-decay",
    "seed": "random-seed random-state",
    "resume": "continue",
    "minutes": "time max-time budget",
    "data-kind": "format data-format",
    "labels-file": "labels csv",
}
"""What other programs call a flag."""

_CHOICES = {
    "huggingface": "hf transformers hub",
    "fair": "mae meta facebook fb original published",
    "float32": "fp32 f32 float full",
    "bfloat16": "bf16",
    "float16": "fp16 f16 half",
    "knn": "k-nn nearest neighbors neighbours",
    "linear": "lp probe linear-probe linprobe",
    "finetune": "ft fine-tune fine-tuning full",
    "compute": "flops flop",
    "as-trained": "trained default same",
    "gpu": "cuda nvjpeg",
}
"""What other programs call a value of a flag."""

_DATA = [
    "data",
    "images",
    "image",
    "input",
    "path",
    "dataset",
    "data-dir",
    "data-path",
    "root",
    "train-dir",
]
"""What other programs call the flag of their images."""


def unknown_flag(
    command: str, name: str, words: list[str], layout: Sequence[Flag | Choice]
) -> SettingsError:
    """The error for a flag that a command does not have, or not with the kinds that are chosen (`layout`)."""
    flags = [each for each in layout if isinstance(each, Flag)]
    every = [each for each in every_flag(command) if isinstance(each, Flag)]
    for flag in reversed([flag for flag in flags if flag.positional]):
        if name == flag.path or (name in _DATA and flag.path in ("data", "images", "what")):
            own = [each for each in flags if each.positional]
            line = (
                words[0] if words and each is flag else each.metavar.rstrip(".") for each in own
            )
            return SettingsError(
                f"{flag.metavar.rstrip('.')} is given without a flag: {typed(command, *line)}"
            )
    if kind := _as_kind(command, name, words):
        return SettingsError(f"--{name} is not a flag of `unmask {command}`; write {kind}")
    if elsewhere := next((flag for flag in every if flag.path == name and flag.under), None):
        return _of_another_kind(elsewhere, layout)
    names = [flag.path for flag in flags if not flag.positional] + list(aliases_of(command))
    near = _nearest(name, list(dict.fromkeys(names)))
    meant = f"did you mean {' or '.join(f'--{each}' for each in near)}? " if near else ""
    return SettingsError(
        f"--{name} is not a flag of `unmask {command}`; {meant}`unmask {command} --help-all` lists all"
    )


def _of_another_kind(flag: Flag, layout: Sequence[Flag | Choice]) -> SettingsError:
    """The error for a flag of a kind that is not chosen."""
    kind = flag.under[-1]
    path = kind.partition(":")[0]
    choices = {each.path: each.kind for each in layout if isinstance(each, Choice)}
    if path not in choices:
        return SettingsError(
            f"--{flag.path} belongs to {' '.join(flag.under)}, which is not chosen here"
        )
    return SettingsError(
        f"--{flag.path} belongs to {kind}, and this is {path}:{choices[path]}; add the word {kind}"
    )


def other_choice(wrong: str, choices: Iterable[str]) -> str | None:
    """The value of a flag that a wrong one may mean; None if none is like it."""
    names = list(choices)
    lower = wrong.lower()
    meant = (right for right, others in _CHOICES.items() if lower in others.split())
    return next((right for right in meant if right in names), None) or closest(wrong, names)


def unknown_kind(
    path: str,
    kind: str,
    choices: Mapping[str, Iterable[str]],
    every: Iterable[Flag | Choice] = (),
) -> SettingsError:
    """The error for PATH:KIND where there is no such setting, or no such kind of it."""
    word = shlex.quote(f"{path}:{kind}")
    if path in choices:
        kinds = sorted(choices[path])
        question = closest(kind, kinds)
        meant = f"did you mean {path}:{question}? " if question else ""
        return SettingsError(f"{word}: no such kind; {meant}{path} is one of {', '.join(kinds)}")
    elsewhere = [each for each in every if isinstance(each, Choice) and each.path == path]
    if elsewhere:
        return SettingsError(
            f"{word}: there is no {path} here; it belongs to {' or '.join(dict.fromkeys(each.under[-1] for each in elsewhere))}"
        )
    words = [f"{other}:{each}" for other, kinds in choices.items() for each in kinds]
    question = next((each for each in words if each.endswith(f".{path}:{kind}")), None)
    question = question or closest(f"{path}:{kind}", words)
    meant = (
        f"did you mean {question}?"
        if question
        else f"settings with kinds: {', '.join(sorted(choices))}"
    )
    return SettingsError(f"{word} is neither a file nor a kind of a setting; {meant}")


def _nearest(name: str, names: list[str]) -> list[str]:
    """The existing flags that a wrong one may mean, at most three, the likeliest first."""
    for right, others in _SYNONYMS.items():
        if name in others.split() and right in names:
            return [right]
    same_end = [each for each in names if each.endswith(f".{name}")]
    if same_end:
        return sorted(same_end, key=len)[:3]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    if close:
        return close
    ends = {each.rpartition(".")[2]: each for each in reversed(names)}
    last = difflib.get_close_matches(name.rpartition(".")[2], ends, n=1, cutoff=0.75)
    return [ends[each] for each in last]


def _as_kind(command: str, path: str, words: list[str]) -> str | None:
    """PATH:KIND, where a flag's value is a kind: --objective dino."""
    for each in every_flag(command):
        if isinstance(each, Choice) and each.path == path and words and words[0] in each.kinds:
            return f"{path}:{words[0]}"
    return None
