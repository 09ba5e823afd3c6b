"""The device a worker sits on: CUDA, or the host's CPU to try the worker itself without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fa4gen.core.errors import EvaluationError
from fa4gen.core.evaluation import MeasurementPolicy
from fa4gen.evaluate.gpu_bench import Bench, Clock, CudaClock, HostClock
from fa4gen.evaluate.nvml import GpuSample, Nvml, uuid_hash
from fa4gen.evaluate.protocol import GpuIdentity, Stage
from fa4gen.evaluate.warmth import Heat, Load


class Device(Protocol):
    """What the worker asks of its device."""

    name: str
    """As torch spells it."""
    identity: GpuIdentity
    heat: Heat

    def launch(self, thunk: Callable[[], object]) -> None:
        """Run ``thunk`` on the worker's stream and wait; raises what the device reports."""

    def clock(self, policy: MeasurementPolicy) -> Clock:
        """A clock for this policy."""

    def read(self) -> GpuSample:
        """The card's state now."""

    def healthy(self) -> bool:
        """Whether the device still answers after an error."""

    def keep_warm(self) -> None:
        """Give a device that has nothing to do some milliseconds of load; does not wait."""


class CudaDevice:
    """One CUDA device, all work on one stream that is not the default one.

    Raises:
        EvaluationError: torch sees no such device.
    """

    def __init__(self, index: int) -> None:
        import torch

        nvml = Nvml()  # before the CUDA context: learns who else is on the card
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise EvaluationError(
                f"CUDA device: got index {index}, torch {torch.__version__} sees "
                f"{torch.cuda.device_count()}; install a CUDA build of torch, or check "
                "CUDA_VISIBLE_DEVICES"
            )
        torch.cuda.set_device(index)
        self.name = f"cuda:{index}"
        self.heat = Heat()
        cuda: Any = torch.cuda  # its classes have no annotations
        torch.cuda.set_stream(cuda.Stream())
        torch.zeros(1, device=self.name)
        torch.cuda.synchronize()
        facts = torch.cuda.get_device_properties(index)
        uuid = str(getattr(facts, "uuid", ""))
        nvml.attach(uuid)
        self._nvml = nvml
        self._load: Load | None = None
        self.identity = GpuIdentity(
            gpu_name=facts.name,
            gpu_uuid_hash=uuid_hash(uuid) if uuid else "",
            sm_count=facts.multi_processor_count,
            l2_bytes=facts.L2_cache_size,
            driver=nvml.driver,
            cuda=torch.version.cuda or "",
            torch=torch.__version__,
            nvml=nvml.problem,
        )

    def launch(self, thunk: Callable[[], object]) -> None:
        """Run and wait for the whole device, so that an error belongs to this launch."""
        import torch

        thunk()
        torch.cuda.synchronize()

    def clock(self, policy: MeasurementPolicy) -> Clock:
        """Events on a stream of their own."""
        return CudaClock(policy.execution)

    def read(self) -> GpuSample:
        """NVML's reading."""
        return self._nvml.sample()

    def healthy(self) -> bool:
        """Sticky errors (an illegal access, say) fail every later call of the process."""
        import torch

        try:
            torch.cuda.synchronize()
            return bool(torch.ones(1, device=self.name).sum().item() == 1)
        except Exception:
            return False

    def keep_warm(self) -> None:
        """More products of matrices for those that are done."""
        if self._load is None:
            self._load = Load(self.name)
        if ended_s := self._load.go_on():
            self.heat.add(ended_s)


class _CardReader:
    """An observer that reads the card and tells nobody."""

    def __init__(self, device: CudaDevice) -> None:
        self.read = device.read

    def progress(self, stage: Stage, label: str = "") -> None:
        """Nobody listens."""


def open_bench(policy: MeasurementPolicy | None = None, index: int = 0) -> Bench:
    """A bench on a card of this process, for :func:`fa4gen.evaluate.gpu_bench.interleave`.

    Afterwards torch's current stream is not the default one.

    Raises:
        EvaluationError: torch sees no such device.
    """
    return bench_on(CudaDevice(index), policy)


def bench_on(device: CudaDevice, policy: MeasurementPolicy | None = None) -> Bench:
    """A bench on a device that is already open."""
    policy = policy or MeasurementPolicy()
    return Bench(device.clock(policy), policy, _CardReader(device), device.heat)


class _NoHeat(Heat):
    """A device that needs no warming up."""

    def warmup_s(self) -> float:
        return 0.0


class CpuDevice:
    """The host, for callables on CPU tensors: proves the plumbing, measures nothing of use."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self.name = "cpu"
        self.heat: Heat = _NoHeat()
        self.identity = GpuIdentity("CPU", "", 1, 1, "", "", torch.__version__, "no NVML for a CPU")

    def launch(self, thunk: Callable[[], object]) -> None:
        """Call it."""
        thunk()

    def clock(self, policy: MeasurementPolicy) -> Clock:
        """Wall clock."""
        return HostClock()

    def read(self) -> GpuSample:
        """Nothing to read."""
        return GpuSample(None, None, None, (), ())

    def healthy(self) -> bool:
        """Always."""
        return True

    def keep_warm(self) -> None:
        """Needs none."""
