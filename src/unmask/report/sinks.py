"""The trackers themselves. Each writes into the folder of the run, unless its own environment variable says otherwise.

Their packages are imported here, when a tracker is opened.
"""

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

PROJECT = "unmask"


class Place(NamedTuple):
    """What a tracker is told about a run."""

    root: Path
    """The folder of the run; its name is the name of the run."""
    command: str
    """The command that makes such runs."""
    settings: dict[str, str]
    """All settings of the run."""
    first_step: int
    """The step from which the run continues; 0 for a new one."""
    identifier: str
    """The tracker's own name for the run that is continued; empty for a new one."""


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def __init__(self, place: Place) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # steps that are logged again, after a stop or by sending a log twice, replace the earlier ones
        folder = str(place.root / "tensorboard")
        self._writer = SummaryWriter(folder, purge_step=place.first_step + 1)
        if not place.first_step:
            rows = "\n".join(f"| {name} | {value} |" for name, value in place.settings.items())
            self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def log(self, step: int, fields: dict[str, float]) -> None:
        """Write the fields of a step."""
        for name, value in fields.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> str:
        """Write what is left."""
        self._writer.close()
        return ""


class MLflow:
    """A run in RUN/mlruns, or in MLFLOW_TRACKING_URI."""

    def __init__(self, place: Place) -> None:
        for name, value in (
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("MLFLOW_ALLOW_FILE_STORE", "true"),  # a folder, instead of a database
            # training waits for an answer, so a server that is gone must not keep it for long
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
        ):
            os.environ.setdefault(name, value)
        from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

        self._metric = Metric
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (place.root / "mlruns").as_uri()
        self._client: Any = MlflowClient(uri)
        self._run = place.identifier
        if self._run:
            self._client.update_run(self._run, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(PROJECT)
        number = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT)
        self._run = self._client.create_run(number, run_name=place.root.name).info.run_id
        # a parameter's value has at most 6,000 letters, and a request 100 parameters
        settings = [Param(name, value[:6000]) for name, value in place.settings.items()]
        for start in range(0, len(settings), 100):
            self._client.log_batch(self._run, params=settings[start : start + 100])

    def log(self, step: int, fields: dict[str, float]) -> None:
        """Write the fields of a step."""
        now = int(1000 * time.time())
        metrics = [self._metric(name, value, now, step) for name, value in fields.items()]
        self._client.log_batch(self._run, metrics)

    def close(self) -> str:
        """Mark the run as ended."""
        self._client.set_terminated(self._run)
        return self._run


class Trackio:
    """A project in RUN/trackio, or in TRACKIO_DIR."""

    folder: str | None = None
    """The folder of the run before, in this process; None if the user's own is used."""

    def __init__(self, place: Place) -> None:
        if os.environ.get("TRACKIO_DIR", Trackio.folder) == Trackio.folder:
            Trackio.folder = os.environ["TRACKIO_DIR"] = str(place.root / "trackio")
        import trackio  # pyright: ignore[reportMissingImports]

        self._name = place.identifier or place.root.name
        self._run: Any = trackio.init(
            project=PROJECT,
            name=self._name,
            config=dict(place.settings),
            resume="allow" if place.identifier else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, fields: dict[str, float]) -> None:
        """Write the fields of a step."""
        self._run.log(fields, step=step)

    def close(self) -> str:
        """Write what is left."""
        self._run.finish()
        return self._name


class Wandb:
    """An offline run in RUN/wandb, or as WANDB_MODE says."""

    def __init__(self, place: Place) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self._run: Any = wandb.init(
            project=PROJECT,
            name=place.root.name,
            job_type=place.command,
            config=dict(place.settings),
            dir=str(place.root),
            mode=os.environ.get("WANDB_MODE", "offline"),
            id=place.identifier or None,
            resume="allow" if place.identifier else None,
        )

    def log(self, step: int, fields: dict[str, float]) -> None:
        """Send the fields of a step."""
        self._run.log(fields, step=step)

    def close(self) -> str:
        """Send what is left."""
        self._run.finish()
        return self._run.id
