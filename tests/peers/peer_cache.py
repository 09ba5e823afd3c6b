"""Compiled peers on disk, so that a second test run need not compile them again.

They lie in ``.pytest_cache`` of the checkout (``make clean`` removes it), each under a key of all
that decides what is compiled, so a file is never stale. Processes may share the folder.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from fa4gen.compile import toolchain
from fa4gen.core.canonical import identity
from fa4gen.versions import installed

if TYPE_CHECKING:
    from peer_kernels import PeerKernel, PeerRequest

_HERE = Path(__file__).resolve().parent
FOLDER = _HERE.parents[1] / ".pytest_cache" / "peers"

_PACKAGES = ("flash-attn-4", "quack-kernels", "torch", "einops")


def find(request: PeerRequest) -> PeerKernel | None:
    """The kernel of ``request`` if it has been compiled before; a damaged file counts as none."""
    try:
        kernel: PeerKernel = pickle.loads(_path(request).read_bytes())
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    return kernel


def keep(request: PeerRequest, kernel: PeerKernel) -> None:
    """Put ``kernel`` where :func:`find` looks; other processes see it whole or not at all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=FOLDER, delete=False) as file:
        file.write(pickle.dumps(kernel))
    os.replace(file.name, _path(request))


@contextmanager
def locked() -> Iterator[None]:
    """Keep other processes from compiling; the system lifts the lock when this process ends."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _path(request: PeerRequest) -> Path:
    key = identity({**asdict(request), "sm_count": request.sm_count, **_surroundings()})
    return FOLDER / f"{key}.pickle"


@cache
def _surroundings() -> dict[str, object]:
    """What decides the result besides the request: packages, these helpers, Python, this CPU."""
    helpers = sorted(set(_HERE.glob("*.py")) - set(_HERE.glob("test_*.py")))
    sources = b"".join(path.read_bytes() for path in helpers)
    return {
        "packages": {**toolchain(), **{name: installed(name) for name in _PACKAGES}},
        "helpers": sha256(sources).hexdigest(),
        "python": platform.python_version(),
        "cpu": _cpu(),
    }


def _cpu() -> str:
    """Family and features: launch code uses the vector instructions of the CPU it was made on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {features}"
