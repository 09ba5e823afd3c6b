"""Launches of whole kernels on a GPU: the compiled host function, called with torch tensors."""

from __future__ import annotations

import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hopper_kernel import Array, Arrays
from peer_kernels import PeerKernel

LAUNCHES = 3


@dataclass(frozen=True)
class Order:
    """What to launch.

    Attributes:
        tensors: All of a call, as they are before it.
    """

    kernel: PeerKernel
    tensors: Arrays

    def write(self, path: Path) -> Path:
        """To a file, for :func:`carry_out` in another process."""
        path.write_bytes(pickle.dumps(self))
        return path


@dataclass(frozen=True)
class Launched:
    """What came of it.

    Attributes:
        outputs: Of the first launch.
        unstable: Outputs that another launch gave other bits of.
    """

    outputs: Arrays
    unstable: tuple[str, ...]


def carry_out(path: str, device: str = "cuda") -> Launched:
    """Launch an order of :data:`LAUNCHES` times, each time with fresh tensors."""
    import torch

    from fa4gen.compile.loader import load

    order: Order = pickle.loads(Path(path).read_bytes())
    outputs = [spec.name for spec in order.kernel.tensors if spec.role == "output"]
    found = []
    with tempfile.TemporaryDirectory(prefix="fa4gen-whole-") as folder:
        function = load(_artifact(order.kernel, Path(folder)))
        for _ in range(LAUNCHES):
            tensors = {name: on_device(value, device) for name, value in order.tensors.items()}
            function(*order.kernel.bind(tensors))
            torch.cuda.synchronize()
            found.append({name: on_host(tensors[name], order.tensors[name]) for name in outputs})
    first, *others = found
    return Launched(
        first,
        tuple(n for n in outputs if any(o[n].tobytes() != first[n].tobytes() for o in others)),
    )


def on_device(value: Array, device: str) -> Any:
    """A torch tensor of the same bits."""
    import torch

    raw = torch.from_numpy(np.ascontiguousarray(value).view(f"int{8 * value.dtype.itemsize}"))
    return raw.to(device, copy=True).view(getattr(torch, value.dtype.name))


def on_host(tensor: Any, like: Array) -> Array:
    """The NumPy array of the same bits as a torch tensor, of the type of ``like``."""
    import torch

    size = like.dtype.itemsize
    raw = tensor.view(getattr(torch, f"int{8 * size}")).cpu().numpy()
    made: Array = raw.view(like.dtype).reshape(like.shape)
    return made


def _artifact(kernel: PeerKernel, folder: Path) -> Any:
    from fa4gen.compile import Artifact
    from fa4gen.core.evaluation import ResourceUse

    path = folder / "kernel.o"
    path.write_bytes(kernel.object_bytes)
    return Artifact(kernel.label, path, path, ResourceUse(0, 0, 0, 0), 0.0)
