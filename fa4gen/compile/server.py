"""The compile server: ``python -m fa4gen.compile.server <descriptor> <parent pid> <folder>``.

It imports CuTe-DSL once and then forks a worker whenever the pool asks, so that a worker costs
milliseconds and not the seconds of that import. It runs a single thread, which is what makes the
fork safe, never compiles anything itself, and sees no GPU. Messages on its socket (one JSON packet
each) are listed in :mod:`fa4gen.compile.process`. Workers die with it, and it with the pool.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import shutil
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, NoReturn, cast

from fa4gen.compile.driver import compile_source, require_compiler
from fa4gen.core.errors import CompileError, MissingDependency

PACKET_BYTES = 1 << 16
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until the pool goes away; then leave no worker and no temporary file behind."""
    control = socket.socket(fileno=int(sys.argv[1]))
    parent, folder = int(sys.argv[2]), sys.argv[3]
    _when_parent_ends(signal.SIGKILL, parent)
    cast(io.TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)
    # TVM-FFI imports torch when it can. Compiling does not need it: 1.2 s and 200 MB saved.
    sys.modules["torch"] = cast(ModuleType, None)
    try:
        require_compiler()
    except MissingDependency as error:
        control.send(json.dumps({"unavailable": str(error)[: PACKET_BYTES // 8]}).encode())
        return
    workers: set[int] = set()
    server = os.getpid()
    try:
        # Not an exception: it could hit the clean-up, as the socket often ends first.
        signal.signal(signal.SIGTERM, lambda *_: control.shutdown(socket.SHUT_RD))
        _when_parent_ends(signal.SIGTERM, parent)
        _serve(control, workers)
    finally:
        if os.getpid() == server:
            for pid in workers:
                _end(pid)
            shutil.rmtree(folder, ignore_errors=True)


def _serve(control: socket.socket, workers: set[int]) -> None:
    """Answer the pool until it closes its end; ``workers`` is kept up to date."""
    control.send(b'{"ready": true}')
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, PACKET_BYTES, 2)
        if not packet:
            return
        request = json.loads(packet)
        if request["do"] == "fork":
            answer = {"pid": _fork(control, *descriptors)}
            workers.add(answer["pid"])
        else:
            answer = {"status": _end(request["pid"])}
            workers.discard(request["pid"])
        control.send(json.dumps(answer).encode())


def _when_parent_ends(sent: signal.Signals, parent: int) -> None:
    """Have the kernel send this signal when the thread that started us ends (Linux).

    The end of the socket is no substitute: a fork of the parent may keep it open.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, sent)
    if os.getppid() != parent:  # it ended before the request took effect
        os._exit(1)


def _fork(control: socket.socket, connection: int, output: int) -> int:
    """Start a worker on these descriptors; its process id is also its group's."""
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        _work(server, control, connection, output)
    os.setpgid(pid, pid)  # here and there, so that it holds whoever comes first
    os.close(connection)
    os.close(output)
    return pid


def _end(pid: int) -> int:
    """Kill a worker with all it started, and return how it ended, as ``Popen.returncode`` does.

    Nobody else reaps it, so the number cannot have been given to another process.
    """
    os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _work(server: int, control: socket.socket, descriptor: int, output: int) -> NoReturn:
    """A worker: answer requests in order until the socket closes."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setpgid(0, 0)
        _when_parent_ends(signal.SIGKILL, server)
        control.close()
        os.dup2(output, 1)
        os.dup2(output, 2)
        connection = Connection(descriptor)
        with suppress(EOFError, BrokenPipeError, ConnectionResetError):
            while True:
                _answer(connection, json.loads(connection.recv_bytes()))
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _answer(connection: Connection, request: dict[str, str]) -> None:
    """Compile one kernel and send what came of it."""
    try:
        compiled = compile_source(request["source"], request["module_name"], request["target"])
    except CompileError as error:
        _send(connection, refused=str(error))
        return
    _send(connection, resources=asdict(compiled.resources), compile_s=compiled.compile_s)
    connection.send_bytes(compiled.object_bytes)
    connection.send_bytes(compiled.ptx_gz)


def _send(connection: Connection, **message: Any) -> None:
    """One frame of JSON."""
    connection.send_bytes(json.dumps(message).encode())


if __name__ == "__main__":
    main()
