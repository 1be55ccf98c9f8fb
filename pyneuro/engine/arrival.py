"""Tensors on their way between the CPU and a device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; one of the CPU goes there without waiting for what the device is doing."""
    if tensor.device.type != "cpu" or device.type == "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class Arrival:
    """A copy of a device's tensor on the CPU, whole when ``result`` returns. Later work of the device is not waited
    for."""

    host: Tensor
    arrived: torch.cuda.Event | None  # None where there was nothing to wait for

    @classmethod
    def of(cls, tensor: Tensor) -> Arrival:
        """Begin the copy; a tensor of the CPU has arrived."""
        if tensor.device.type == "cpu":
            return cls(tensor, None)
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(tensor.device))
        return cls(host, arrived)

    def result(self) -> Tensor:
        """The copy, when it is whole."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.host
