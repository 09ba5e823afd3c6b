"""The supervisor, against a worker that hangs, crashes, leaves and talks nonsense."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import EvaluationError
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.protocol import CheckReply, CheckRequest, Failure, KernelRef, Stage
from fa4gen.evaluate.supervisor import Deadlines, Supervisor, WorkerDied, WorkerTimeout

FAKE = Path(__file__).with_name("fake_worker.py")
ROOT = Path(__file__).parents[2]
PROBLEM = AttentionProblem(1, 64, 64, 1, 1, 64, 64, DType.BF16, causal=False)
REQUEST = CheckRequest(PROBLEM, KernelRef("a", "a", KernelConfig()), 1)

Make = Callable[..., Supervisor]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "pids"


@pytest.fixture
def make(notes: Path) -> Iterator[Make]:
    made: list[Supervisor] = []

    def supervisor(mode: str, start: float = 60.0, launch: float = 0.5) -> Supervisor:
        command = [sys.executable, str(FAKE), mode, str(notes)]
        deadlines = Deadlines(start=start, launch=launch)
        made.append(Supervisor(command, deadlines, {"PYTHONPATH": str(ROOT)}))
        return made[-1]

    yield supervisor
    for each in made:
        each.kill()


def gone(pid: int, within_s: float = 5.0) -> bool:
    """Whether a process is no more, not even as a zombie of ours."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError:
            return True
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state == "Z" and int(parent) != os.getpid():
            return True  # dead; somebody else's to reap, and a container may have no init
        time.sleep(0.02)
    return False


def zombie(pid: int) -> bool:
    """Whether a child of ours has ended, and nobody has asked how."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_good_worker_answers_again_and_again(make: Make) -> None:
    supervisor = make("fine")
    for _ in range(3):
        assert isinstance(supervisor.call(REQUEST), CheckReply)
    assert supervisor.starts == 1
    pid = supervisor.pid or 0
    supervisor.close()
    assert gone(pid)
    supervisor.close()


def test_a_hanging_worker_is_killed_and_the_next_call_gets_a_new_one(
    make: Make, notes: Path
) -> None:
    supervisor = make("hang")
    for _ in range(2):
        begin = time.monotonic()
        supervisor.start()
        started = time.monotonic() - begin
        with pytest.raises(WorkerTimeout, match=r"launch \(normal\)") as caught:
            supervisor.call(REQUEST)
        assert time.monotonic() - begin < started + 3
        assert caught.value.at.stage is Stage.LAUNCH
    pids = [int(line) for line in notes.read_text().split()]
    assert len(set(pids)) == 2 == supervisor.starts
    assert all(gone(pid) for pid in pids)
    assert supervisor.pid is None


def test_a_crash_names_the_signal_and_the_last_words(make: Make) -> None:
    supervisor = make("crash", launch=30)
    with pytest.raises(WorkerDied, match=r"SIGSEGV.*the last words") as caught:
        supervisor.call(REQUEST)
    assert caught.value.returncode == -signal.SIGSEGV
    with pytest.raises(WorkerDied):
        supervisor.call(REQUEST)
    assert supervisor.starts == 2


def test_an_exit_names_the_status(make: Make) -> None:
    with pytest.raises(WorkerDied, match=r"exit status 3 at stage launch.*gave up"):
        make("leave", launch=30).call(REQUEST)


def test_a_worker_that_ended_between_calls_is_replaced(make: Make) -> None:
    supervisor = make("fine", launch=30)
    supervisor.start()
    pid = supervisor.pid or 0
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)
    assert isinstance(supervisor.call(REQUEST), CheckReply)
    assert supervisor.starts == 2
    assert gone(pid)


def test_after_a_fatal_failure_there_is_a_new_worker(make: Make, notes: Path) -> None:
    supervisor = make("fatal", launch=30)
    for _ in range(2):
        reply = supervisor.call(REQUEST)
        assert isinstance(reply, Failure)
        assert supervisor.pid is None
    assert all(gone(int(line)) for line in notes.read_text().split())


def test_nonsense_is_an_error_of_the_evaluator(make: Make) -> None:
    supervisor = make("nonsense", launch=30)
    with pytest.raises(EvaluationError, match="same fa4gen"):
        supervisor.call(REQUEST)
    assert supervisor.pid is None


def test_progress_renews_the_deadline(make: Make) -> None:
    assert isinstance(make("slow", launch=0.9).call(REQUEST), CheckReply)


def test_scale_stretches_the_deadline(make: Make) -> None:
    supervisor = make("hang", launch=0.2)
    with pytest.raises(WorkerTimeout, match=r"within 0\.6 s"):
        supervisor.call(REQUEST, scale=3.0)


def test_a_worker_that_cannot_start_is_an_error_with_its_reason(make: Make) -> None:
    with pytest.raises(EvaluationError, match=r"did not start.*exit status 5.*no such device"):
        make("stillborn").start()


def test_a_worker_may_be_begun_long_before_it_is_needed(make: Make, notes: Path) -> None:
    supervisor = make("mute", start=3.0)
    begin = time.monotonic()
    supervisor.begin()
    supervisor.begin()
    assert time.monotonic() - begin < 1, "nobody waits for it"
    assert supervisor.starts == 1
    with pytest.raises(EvaluationError, match="did not start"):
        supervisor.start()
    assert supervisor.starts == 1, "the one that was begun, not another"
    fine = make("fine")
    fine.begin()
    pid = fine.pid
    assert isinstance(fine.call(REQUEST), CheckReply)
    assert (fine.pid, fine.starts) == (pid, 1)


def test_a_worker_that_is_begun_and_not_needed_ends(make: Make) -> None:
    supervisor = make("fine")
    supervisor.begin()
    pid = supervisor.pid or 0
    supervisor.close()
    assert gone(pid)


def test_nobody_waits_for_one_that_is_still_coming_up(make: Make) -> None:
    supervisor = make("mute")
    supervisor.begin()
    pid = supervisor.pid or 0
    begin = time.monotonic()
    supervisor.close()
    assert time.monotonic() - begin < 2
    assert gone(pid)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"did not start: .*no-such-program"):
        Supervisor([str(tmp_path / "no-such-program")]).start()


def test_one_that_dies_before_it_is_needed_is_tried_again(make: Make) -> None:
    supervisor = make("stillborn")
    supervisor.begin()
    until = time.monotonic() + 30
    while supervisor.pid and not zombie(supervisor.pid) and time.monotonic() < until:
        time.sleep(0.05)
    with pytest.raises(EvaluationError, match=r"did not start.*exit status 5.*no such device"):
        supervisor.start()
    assert supervisor.starts == 2


def test_a_worker_that_never_gets_ready_is_given_up(make: Make, notes: Path) -> None:
    with pytest.raises(EvaluationError, match="did not start"):
        make("mute", start=3.0).start()
    assert all(gone(int(line)) for line in notes.read_text().split())


def test_the_whole_process_group_dies(make: Make) -> None:
    supervisor = make("child", launch=30)
    reply = supervisor.call(REQUEST)
    assert isinstance(reply, CheckReply)
    supervisor.kill()
    assert gone(int(reply.worst_kind))


PARENT = """
import sys, threading, time
from dataclasses import replace
from fa4gen.evaluate.supervisor import Deadlines, Supervisor
from test_supervisor import REQUEST
supervisor = Supervisor(sys.argv[1:], Deadlines(launch=600))
supervisor.start()
hanging = replace(REQUEST, kernel=replace(REQUEST.kernel, object_path="hang"))
threading.Thread(target=supervisor.call, args=(hanging,), daemon=True).start()
time.sleep(0.5)
print(supervisor.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["leaves", "is killed"])
def test_a_busy_worker_dies_with_its_parent(how: str) -> None:
    worker = [sys.executable, "-m", "fa4gen.evaluate.gpu_worker", "--device", "cpu"]
    worker += ["--loader", "fake_kernels:load"]
    script = PARENT if how == "is killed" else PARENT.replace("time.sleep(600)", "sys.exit()")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    with subprocess.Popen(
        [sys.executable, "-c", script, *worker], stdout=subprocess.PIPE, env=environment, text=True
    ) as parent:
        pid = int(parent.stdout.readline()) if parent.stdout else 0
        parent.kill() if how == "is killed" else parent.wait(timeout=30)
    assert gone(pid)


def test_a_supervisor_that_is_forgotten_ends_its_worker(make: Make, notes: Path) -> None:
    command = [sys.executable, str(FAKE), "fine", str(notes)]
    supervisor = Supervisor(command, None, {"PYTHONPATH": str(ROOT)})
    supervisor.start()
    del supervisor
    assert gone(int(notes.read_text()))


def test_it_works_from_another_thread_after_that_thread_has_ended(make: Make) -> None:
    supervisor = make("fine", launch=30)
    thread = threading.Thread(target=supervisor.start)
    thread.start()
    thread.join()
    assert isinstance(supervisor.call(REQUEST), CheckReply)
