"""The pool with real compiles, and with kernels that hang, crash, or are refused."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, wait
from pathlib import Path

import pytest

from fa4gen.compile import ArtifactCache, CompilePool
from fa4gen.compile import pool as pool_module
from fa4gen.core.errors import (
    CompileCrash,
    CompileError,
    CompilerUnavailable,
    CompileTimeout,
    MissingDependency,
)

HANG = "while True: pass"
DIE = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
SLOW = "import time; time.sleep(0.8)"


SERIAL = itertools.count()


@pytest.fixture
def new(kernel):
    """``new(prelude)``: a kernel that no cache has."""
    return lambda prelude="": kernel(f"{prelude}\nserial = {next(SERIAL)}")


def wait_until(condition, limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_compile_gives_an_artifact_on_disk(pool: CompilePool, kernel) -> None:
    artifact = pool.submit(kernel(tile_m=192, tile_n=64)).result()
    assert artifact.object_path.read_bytes().startswith(b"\x7fELF")
    assert artifact.resources.smem_bytes == 64 * 16
    assert artifact.resources.regs_per_thread > 0
    assert artifact.resources.code_bytes > 0
    assert 0 < artifact.compile_s < 60
    ptx = artifact.ptx()
    assert ".target sm_90a" in ptx
    assert ".reqntid 192" in ptx
    assert "\0" not in ptx
    assert pool.cache.get(artifact.artifact_id) == artifact


def test_second_request_is_answered_from_the_cache(pool: CompilePool, kernel) -> None:
    generated = kernel(tile_n=32)
    artifact = pool.submit(generated).result()
    with CompilePool(1, 1.0, pool.cache) as other:
        future = other.submit(generated)
        assert future.done()
        assert future.result() == artifact
        assert other.pids == ()


def test_damaged_entry_is_compiled_again(pool: CompilePool, kernel) -> None:
    generated = kernel(tile_n=48)
    artifact = pool.submit(generated).result()
    artifact.object_path.write_bytes(b"damaged")
    again = pool.submit(generated).result()
    assert again.object_path.read_bytes().startswith(b"\x7fELF")


@pytest.mark.parametrize(
    ("prelude", "message"),
    [
        ("length = cute.no_such_thing()", r"at line \d+: 'length = cute.no_such_thing\(\)'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("options += ' --no-such-option'", "no-such-option"),
        ("options += \" --ptxas-options '--no-such-flag'\"", "(?s)ptxas.*no-such-flag"),
        ("import torch", "torch"),
        ("import os; raise ValueError(repr(os.environ['CUDA_VISIBLE_DEVICES']))", "ValueError: ''"),
    ],
)
def test_refused_kernel_says_why(pool: CompilePool, kernel, prelude: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        pool.submit(kernel(prelude)).result()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cute.arch.sync_threads()", "cute.arch.sync_thread()", "sync_thread"),
        ("x[index]", "x[index, index, index]", "staged.tidx. = x"),
        ("(staged[tidx].to(Float32) * factor).to(DTYPE)", "staged", r"y.index. = staged"),
        ("import cutlass\n", "import cutlass\nimport no_such_module\n", "no_such_module"),
        ("        smem=SMEM_BYTES,\n", "        smem=cute.size(x),\n", "SMEM_BYTES"),
    ],
)
def test_cute_dsl_rejects(pool: CompilePool, kernel, old: str, new: str, message: str) -> None:
    generated = kernel()
    assert old in generated.source
    source = generated.source.replace(old, new)
    if message == "SMEM_BYTES":
        source = source.replace("SMEM_BYTES = ", "SMEM = ")
    object.__setattr__(generated, "source", source)
    with pytest.raises(CompileError, match=message):
        pool.submit(generated).result()


def test_hanging_compile_is_killed_and_the_pool_goes_on(
    pool: CompilePool, new, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.submit(new()).result()
    (first,) = pool.pids
    monkeypatch.setattr(pool, "timeout_s", 1.5)
    hang = pool.submit(new(HANG))
    with pytest.raises(CompileTimeout, match=r"still compiling after 1\.5 s"):
        hang.result(timeout=30)
    assert not running(first)
    monkeypatch.undo()
    assert pool.submit(new()).result(timeout=30).resources.code_bytes > 0
    assert pool.pids != (first,)


def test_worker_killed_by_an_outsider_is_replaced(pool: CompilePool, new) -> None:
    pool.submit(new()).result()
    (first,) = pool.pids
    future = pool.submit(new(SLOW))
    wait_until(future.running)
    time.sleep(0.2)
    os.kill(first, signal.SIGKILL)
    assert future.result(timeout=30).resources.code_bytes > 0
    (second,) = pool.pids
    assert second != first
    os.kill(second, signal.SIGKILL)  # while idle
    wait_until(lambda: not running(second))
    assert pool.submit(new()).result(timeout=30).resources.code_bytes > 0


@pytest.mark.slow
def test_server_killed_by_an_outsider_is_replaced(pool: CompilePool, new) -> None:
    pool.submit(new()).result()
    (worker,) = pool.pids
    server = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    assert server != os.getpid()
    future = pool.submit(new(SLOW))
    wait_until(future.running)
    time.sleep(0.2)
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: not running(worker))
    assert future.result(timeout=60).resources.code_bytes > 0


def test_kernel_that_kills_its_compiler_is_a_crash(pool: CompilePool, new) -> None:
    with pytest.raises(CompileCrash, match=r"2 times, last by signal SIGKILL: last words"):
        pool.submit(new("print('last words')\n" + DIE)).result(timeout=30)
    with pytest.raises(CompileCrash, match="last by exit 7"):
        pool.submit(new("import os; os._exit(7)")).result(timeout=30)
    assert pool.submit(new()).result(timeout=30).resources.code_bytes > 0


def test_what_is_for_later_waits_until_all_else_is_done(pool: CompilePool, new) -> None:
    ended: list[str] = []
    running = pool.submit(new(SLOW))
    wait_until(running.running)
    futures = {
        "later": pool.submit(new(), later=True),
        "wanted": pool.submit(wanted := new(), later=True),
        "soon": pool.submit(new()),
        "wanted now": pool.submit(wanted),
        "urgent": pool.submit(new(), urgent=True),
    }
    for name, future in futures.items():
        future.add_done_callback(lambda _, name=name: ended.append(name))
    wait([running, *futures.values()], timeout=30)
    assert ended == ["urgent", "soon", "wanted", "wanted now", "later"]


def test_queued_job_can_be_cancelled_and_an_urgent_one_goes_first(pool: CompilePool, new) -> None:
    order: list[str] = []
    slow = pool.submit(new(SLOW))
    wait_until(slow.running)
    cancelled, shared = new(), new()
    futures = {
        "cancelled": pool.submit(cancelled),
        "last": pool.submit(new()),
        "twin": pool.submit(shared),
        "first": pool.submit(shared, urgent=True),
    }
    for name, future in futures.items():
        future.add_done_callback(lambda _, name=name: order.append(name))
    assert futures["cancelled"].cancel()
    assert not slow.cancel()
    wait([slow, *futures.values()], timeout=30)
    assert order == ["cancelled", "twin", "first", "last"]
    assert futures["twin"].result() is futures["first"].result()
    with pytest.raises(CancelledError):
        futures["cancelled"].result()
    assert pool.submit(cancelled).result(timeout=30).resources.code_bytes > 0


def test_compiles_started_while_one_runs_share_its_result(pool: CompilePool, new) -> None:
    generated = new(SLOW)
    first = pool.submit(generated)
    wait_until(first.running)
    second = pool.submit(generated)
    assert second.running()
    assert first.result(timeout=30) is second.result(timeout=30)


def test_close_is_quick_and_ends_every_future(tmp_path: Path, kernel) -> None:
    pool = CompilePool(1, 60.0, ArtifactCache(tmp_path))
    hang, queued = pool.submit(kernel(HANG)), pool.submit(kernel())
    wait_until(lambda: pool.pids != ())
    time.sleep(0.5)
    pids, start = pool.pids, time.monotonic()
    pool.close()
    assert time.monotonic() - start < 2.0
    with pytest.raises(CompilerUnavailable, match="closed"):
        hang.result(timeout=1)
    assert queued.cancelled()
    assert wait([hang, queued], timeout=1).not_done == set()
    wait_until(lambda: not any(map(running, pids)), 2.0)  # the kernel reaps them when it gets to it
    with pytest.raises(CompilerUnavailable, match="closed"):
        pool.submit(kernel())
    pool.close()


def test_processes_die_with_their_parent_which_stays_light(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from fa4gen.compile import ArtifactCache, CompilePool, compile_kernel, load\n"
        "pool = CompilePool(2, 60.0, ArtifactCache(Path(sys.argv[1])))\n"
        "pool.preload()\n"
        "while len(pool.pids) < 2: time.sleep(0.02)\n"
        "heavy = {'cutlass', 'torch', 'tvm_ffi', 'optuna', 'sqlalchemy'} & set(sys.modules)\n"
        "print(pool._folder, *pool.pids, *heavy, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    words = parent.stdout.readline().split()
    assert len(words) == 3, words
    folder, pids = Path(words[0]), [int(word) for word in words[1:]]
    assert folder.is_dir()
    assert all(map(running, pids))
    assert all(os.getpgid(pid) == pid for pid in pids)
    parent.kill()
    parent.communicate()
    wait_until(lambda: not any(map(running, pids)), 5.0)
    wait_until(lambda: not folder.exists(), 5.0)


@pytest.mark.slow
def test_missing_compiler_is_named(tmp_path: Path, kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tvm_ffi").mkdir()
    (tmp_path / "tvm_ffi" / "__init__.py").write_text("raise ImportError('broken wheel')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with CompilePool(1, 6.0, ArtifactCache(tmp_path / "cache")) as pool:
        for _ in range(2):
            with pytest.raises(MissingDependency, match=r"broken wheel.*pip install"):
                pool.submit(kernel()).result(timeout=30)


def test_server_that_cannot_start_is_named(
    tmp_path: Path, kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        CompilePool(1, 6.0, ArtifactCache(tmp_path)) as pool,
        pytest.raises(CompilerUnavailable, match="does not start"),
    ):
        pool.submit(kernel()).result(timeout=30)


def test_process_is_replaced_when_used_up(
    pool: CompilePool, new, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "COMPILES_PER_PROCESS", 1)
    pool.submit(new()).result(timeout=30)
    first = pool.pids
    pool.submit(new()).result(timeout=30)
    assert len(pool.pids) == 1
    assert pool.pids != first


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="got 0 workers"):
        CompilePool(0)
    with pytest.raises(ValueError, match="time-out of 0 s"):
        CompilePool(1, 0)
