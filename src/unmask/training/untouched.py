"""Measuring a module without changing it."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(module: nn.Module) -> Generator[None]:
    """A context that restores the module's buffers at its end and removes gradients."""
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in module.named_buffers():
                value.copy_(buffers[name])
        for parameter in module.parameters():
            parameter.grad = None
