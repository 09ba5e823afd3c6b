"""The pool's side of the compile server and of its workers.

Packets to the server and back (a ``SOCK_SEQPACKET`` socket, so each is whole):

==========================  ========================================================
server, once                ``{"ready"}`` or ``{"unavailable": message}``
``{"do": "fork"}``          ``{"pid"}``; the worker's socket and output travel along
``{"do": "end", "pid"}``    ``{"status"}``, after the worker is dead and reaped
==========================  ========================================================

Frames to a worker and back (``Connection.send_bytes``): ``{"source", "module_name", "target"}``,
then ``{"refused": message}``, or ``{"resources", "compile_s"}`` and the object and the PTX (gzip).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from fa4gen.codegen import GeneratedKernel
from fa4gen.compile.artifact import CompiledKernel
from fa4gen.core.errors import (
    CompileError,
    CompilerUnavailable,
    CompileTimeout,
    MissingDependency,
)
from fa4gen.core.evaluation import ResourceUse

START_TIMEOUT_S = 120.0
"""Longest time to import CuTe-DSL, on a cold and busy disk."""

_PACKET_BYTES = 1 << 16
_TAIL_BYTES = 2000
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class WorkerDiedError(Exception):
    """A worker ended without an answer; the message says how, with its last words."""


class CompileServer:
    """The server process; started when first needed and again whenever it is found dead."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is where it and its workers put temporary files."""
        self.folder = folder
        self._requests = threading.Lock()
        self._state = threading.Lock()
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def fork(self, connection: int, output: int) -> int:
        """Start a worker on these descriptors and return its process id.

        Raises:
            MissingDependency: CuTe-DSL cannot be imported.
            CompilerUnavailable: the server does not start, or was closed.
        """
        with self._requests:
            if self._control is None:
                self._start()
            answer = self._request({"do": "fork"}, [connection, output])
            if answer is None:  # it died while idle: once more, from the beginning
                self._start()
                answer = self._request({"do": "fork"}, [connection, output])
            if answer is None:
                raise CompilerUnavailable("compile server: it died twice in a row, out of memory?")
            return int(answer["pid"])

    def end(self, pid: int) -> int:
        """Kill a worker; how it ended, as ``Popen.returncode`` says it."""
        with self._requests:
            answer = self._request({"do": "end", "pid": pid}, [])
            return -signal.SIGKILL if answer is None else int(answer["status"])

    def kill(self) -> None:
        """End the server, and thereby every worker, for good; from any thread, at once."""
        with self._state:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def release(self) -> None:
        """Give back the descriptors after :meth:`kill`, when nobody uses it any more."""
        self.kill()
        with self._requests:
            self._forget()

    def _start(self) -> None:
        """Start the server and wait until it can fork; the caller holds the request lock."""
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output = _output_file(self.folder)
        try:
            with self._state:
                if self._closed:
                    raise CompilerUnavailable("compile pool: it is closed; make a new one")
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-P", "-m", "fa4gen.compile.server"),
                        *(str(theirs.fileno()), str(os.getpid()), str(self.folder)),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=_environment(self.folder),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            theirs.close()
            self._control = control
            control.settimeout(START_TIMEOUT_S)
            answer = self._answer()
            if answer is None:
                words = _tail(output)
                raise CompilerUnavailable(f"compile server: it does not start: {words or 'killed'}")
            if "unavailable" in answer:
                self._forget()
                raise MissingDependency(answer["unavailable"])
        except OSError as error:
            control.close()
            raise CompilerUnavailable(f"compile server: it does not start: {error}") from error
        finally:
            theirs.close()
            os.close(output)

    def _request(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any] | None:
        """The answer to a request, or ``None`` when the server is dead."""
        if self._control is None:
            return None
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
        except OSError:
            self._forget()
            return None
        return self._answer()

    def _answer(self) -> dict[str, Any] | None:
        """The next packet, or ``None`` when the server is dead or silent; it is gone then."""
        try:
            packet = b"" if self._control is None else self._control.recv(_PACKET_BYTES)
        except OSError:
            packet = b""
        if not packet:
            self._forget()
            return None
        message: dict[str, Any] = json.loads(packet)
        return message

    def _forget(self) -> None:
        """Kill and reap the server and close the socket; a later fork starts another."""
        with self._state:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                self._process = None
        if self._control is not None:
            self._control.close()
            self._control = None


class WorkerProcess:
    """One forked compile process, in a group of its own; belongs to one thread."""

    def __init__(self, server: CompileServer) -> None:
        """Start it.

        Raises:
            MissingDependency, CompilerUnavailable: see :meth:`CompileServer.fork`.
        """
        self.compiles = 0
        self.alive = True
        self._server = server
        self._connection, theirs = Pipe()
        self._output = _output_file(server.folder)
        try:
            self.pid = server.fork(theirs.fileno(), self._output)
        except BaseException:
            self._connection.close()
            os.close(self._output)
            raise
        finally:
            theirs.close()

    def compile(self, generated: GeneratedKernel, timeout_s: float) -> CompiledKernel:
        """Compile a kernel there.

        Raises:
            CompileError: it was refused.
            CompileTimeout: no answer after ``timeout_s``; the worker was killed.
            WorkerDiedError: the worker ended.
        """
        os.ftruncate(self._output, 0)
        self.compiles += 1
        request = {name: getattr(generated, name) for name in ("source", "module_name", "target")}
        try:
            self._connection.send_bytes(json.dumps(request).encode())
            if not self._connection.poll(timeout_s):
                self.release()
                raise CompileTimeout(
                    f"kernel {generated.module_name}: still compiling after {timeout_s:g} s, "
                    "killed; raise the limit or drop the configuration"
                )
            answer = json.loads(self._connection.recv_bytes())
            if "refused" in answer:
                raise CompileError(answer["refused"])
            object_bytes, ptx_gz = self._connection.recv_bytes(), self._connection.recv_bytes()
        except (EOFError, OSError):
            words = _tail(self._output)
            status = self.release()
            how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit {status}"
            raise WorkerDiedError(f"{how}{': ' + words if words else ''}") from None
        resources = ResourceUse(**answer["resources"])
        return CompiledKernel(object_bytes, ptx_gz, resources, answer["compile_s"])

    def release(self) -> int:
        """Kill it, give back its descriptors, and return how it ended; once."""
        self.alive = False
        status = self._server.end(self.pid)
        self._connection.close()
        os.close(self._output)
        return status


def _output_file(folder: Path) -> int:
    """Descriptor of a file without a name, for what a process prints."""
    descriptor, name = tempfile.mkstemp(dir=folder)
    os.unlink(name)
    return descriptor


def _tail(output: int) -> str:
    """The last words in such a file."""
    size = os.fstat(output).st_size
    words = os.pread(output, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    return words.replace(b"\0", b"").decode(errors="replace").strip()


def _environment(folder: Path) -> dict[str, str]:
    """Environment of the server: no GPU, one thread, the parent's import path."""
    path = [str(_PACKAGE_PARENT), *(entry for entry in sys.path if entry)]
    return {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "OPENBLAS_NUM_THREADS": "1",  # a fork is safe from a single thread only
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
        "TMPDIR": str(folder),
    }
