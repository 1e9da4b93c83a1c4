"""Which errors mean that another process is gone."""

import pytest
import torch.distributed as dist

from unmask.training import distributed
from unmask.training.distributed import Processes, lost

_PLACE = "[/pytorch/third_party/gloo/gloo/transport/tcp"


@pytest.fixture(autouse=True)
def _two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "here", lambda: Processes(count=2))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(f"{_PLACE}/pair.cc:547] Connection closed by peer [10.0.0.2]:4242"),
        RuntimeError(f"{_PLACE}/unbound_buffer.cc:81] Timed out waiting 600000ms for recv"),
        dist.DistBackendError("NCCL communicator was aborted on rank 0."),
        dist.DistNetworkError("failed to recv, got 0 bytes"),
    ],
    ids=["closed", "silent", "nccl", "network"],
)
def test_a_broken_connection_means_that_a_process_is_gone(error: RuntimeError) -> None:
    assert lost(error)


@pytest.mark.parametrize(
    "words",
    [
        "the kernel launch timed out and was terminated",
        "NCCL must be built in",
        "shapes do not fit",
    ],
)
def test_other_errors_do_not(words: str) -> None:
    assert not lost(RuntimeError(words))


def test_a_process_alone_loses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "here", Processes)
    assert not lost(dist.DistBackendError("NCCL"))
