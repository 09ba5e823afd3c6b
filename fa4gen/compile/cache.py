"""The content-addressed cache of compiled kernels.

::

    <root>/artifacts/<key[:2]>/<key>/artifact.json      written last; names the other two
                                     <digest>.o         host object
                                     <digest>.ptx.gz    PTX
                                     lock               flock of compile_kernel

Files are named after their own bytes, and each write is a temporary file and a rename, so two
processes that put the same key cannot mix their files. What is not complete and intact is a miss.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import platformdirs

from fa4gen.compile.artifact import SCHEMA_VERSION, Artifact, CompiledKernel
from fa4gen.core.evaluation import ResourceUse

_LOG = logging.getLogger(__name__)
_METADATA = "artifact.json"
_LOCK_POLL_S = 0.05


def default_cache_dir() -> Path:
    """``$FA4GEN_CACHE_DIR``, or the user's cache folder of fa4gen; read at each call."""
    chosen = os.environ.get("FA4GEN_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("fa4gen"))


class ArtifactCache:
    """Compiled kernels on disk, by :func:`~fa4gen.compile.artifact.artifact_key`.

    Safe to use from several processes at once. A folder that cannot be written costs a warning,
    once; artifacts then live in a temporary folder until this process ends.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_cache_dir() if root is None else Path(root)
        self._private: Path | None = None

    def get(self, key: str) -> Artifact | None:
        """The artifact stored under ``key``, or ``None``; a damaged one counts as none."""
        for root in (self.root, self._private):
            found = None if root is None else _read(_entry(root, key), key)
            if found is not None:
                return found
        return None

    def put(self, key: str, compiled: CompiledKernel) -> Artifact:
        """Store a compiled kernel under ``key``, over whatever is there.

        Raises:
            OSError: neither the cache nor a temporary folder can be written.
        """
        if self._private is None:
            try:
                return _write(_entry(self.root, key), key, compiled)
            except OSError as error:
                warnings.warn(
                    f"compile cache {self.root}: cannot write ({error}); kernels are compiled "
                    "again in every process until FA4GEN_CACHE_DIR names a writable folder",
                    RuntimeWarning,
                    stacklevel=2,
                )
                self._private = Path(tempfile.mkdtemp(prefix="fa4gen-cache-"))
                atexit.register(_remove_own, self._private, os.getpid())
        return _write(_entry(self._private, key), key, compiled)

    @contextmanager
    def lock(self, key: str, wait_s: float) -> Iterator[None]:
        """Hold the lock of ``key`` between processes, so that one compiles and the rest wait.

        It is a courtesy, not a guard: after ``wait_s`` seconds, or where locks do not work, the
        body runs without it and may do work twice.
        """
        path = _entry(self.root, key) / "lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            yield
            return
        try:
            _wait_for_lock(descriptor, wait_s)
            yield
        finally:
            os.close(descriptor)


def _entry(root: Path, key: str) -> Path:
    """Folder of one artifact."""
    return root / "artifacts" / key[:2] / key


def _wait_for_lock(descriptor: int, wait_s: float) -> None:
    """Take the file lock within ``wait_s`` seconds, or give up without a word."""
    try:
        import fcntl
    except ImportError:  # not POSIX
        return
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return
            time.sleep(_LOCK_POLL_S)
        except OSError:  # a file system without locks
            return
        else:
            return


def _read(entry: Path, key: str) -> Artifact | None:
    """The artifact in ``entry`` if every byte of it is as it was written."""
    try:
        content = (entry / _METADATA).read_bytes()
    except OSError:
        return None
    try:
        metadata = json.loads(content)
        if (metadata["schema"], metadata["artifact_id"]) != (SCHEMA_VERSION, key):
            raise ValueError("written for another key or schema")
        for name in (metadata["object"], metadata["ptx"]):
            if _digest((entry / name).read_bytes()) != name.partition(".")[0]:
                raise ValueError(f"{name} was changed")
        resources = {field.name: metadata["resources"][field.name] for field in fields(ResourceUse)}
        if any(type(value) is not int for value in resources.values()):
            raise ValueError("resources are not integers")
        return Artifact(
            artifact_id=key,
            object_path=entry / metadata["object"],
            ptx_path=entry / metadata["ptx"],
            resources=ResourceUse(**resources),
            compile_s=float(metadata["compile_s"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _LOG.warning("compile cache: damaged entry %s is ignored: %s", entry, error)
        return None


def _write(entry: Path, key: str, compiled: CompiledKernel) -> Artifact:
    """Store an artifact; the metadata goes last, so a reader never sees half of one."""
    entry.mkdir(parents=True, exist_ok=True)
    names = {
        "object": f"{_digest(compiled.object_bytes)}.o",
        "ptx": f"{_digest(compiled.ptx_gz)}.ptx.gz",
    }
    _write_file(entry / names["object"], compiled.object_bytes)
    _write_file(entry / names["ptx"], compiled.ptx_gz)
    metadata: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "artifact_id": key,
        **names,
        "resources": asdict(compiled.resources),
        "compile_s": compiled.compile_s,
    }
    _write_file(entry / _METADATA, json.dumps(metadata, indent=1).encode())
    return Artifact(
        artifact_id=key,
        object_path=entry / names["object"],
        ptx_path=entry / names["ptx"],
        resources=compiled.resources,
        compile_s=compiled.compile_s,
    )


def _write_file(path: Path, content: bytes) -> None:
    """Replace ``path`` in one step; on failure nothing of it is left behind."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        os.chmod(temporary, 0o644)  # mkstemp keeps others out; a cache may be shared
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _digest(content: bytes) -> str:
    """Name of a file's content."""
    return hashlib.sha256(content).hexdigest()[:32]


def _remove_own(folder: Path, owner: int) -> None:
    """Remove a private folder at exit, unless this is a fork of the process that made it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
