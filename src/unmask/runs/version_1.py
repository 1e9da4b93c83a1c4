"""Convert `spec.json` of version 1, which had a different layout for each kind of run, to version 2."""

from typing import Any

_JOBS = {"": "pretrain", "finetune": "finetune", "tokenizer": "tokenize"}
"""Job kinds by the `purpose` of version 1; pretraining had no purpose."""


def migrated(data: dict[str, Any]) -> dict[str, Any]:
    """The same run in version 2: recipe, initial weights and classes move into `job`; other fields stay."""
    fields = {**data, "spec_version": 2}
    kind = _JOBS.get(str(fields.pop("purpose", "")), "pretrain")
    job = {"kind": kind, "recipe": fields.pop("recipe", None)}
    init = fields.pop("init", None)
    if kind != "tokenize":
        job["init"] = init
    if kind == "finetune":
        job["annotations"] = {"kind": "class", "names": fields.pop("classes", None)}
    return {**fields, "job": job}
