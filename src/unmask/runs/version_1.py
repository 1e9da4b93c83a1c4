"""`spec.json` of version 1, with a layout of its own for each kind of run, as version 2."""

from typing import Any

_JOBS = {"": "pretrain", "finetune": "finetune", "tokenizer": "tokenize"}
"""Names of jobs by the `purpose` that version 1 wrote; pretraining wrote none."""


def migrated(data: dict[str, Any]) -> dict[str, Any]:
    """The same run in version 2: what is done moves into `job`; everything else stays."""
    fields = {**data, "spec_version": 2}
    kind = _JOBS.get(str(fields.pop("purpose", "")), "pretrain")
    job = {"kind": kind, "recipe": fields.pop("recipe", None)}
    init = fields.pop("init", None)
    if kind != "tokenize":
        job["init"] = init
    if kind == "finetune":
        job["annotations"] = {"kind": "class", "names": fields.pop("classes", None)}
    return {**fields, "job": job}
