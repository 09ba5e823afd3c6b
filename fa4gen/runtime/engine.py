"""From a call to its plan: the slow path, taken once per set of facts, and what it remembers."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import CaptureError, CompileError, InputError, RenderError
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.hardware import Arch, Sku
from fa4gen.runtime import inputs
from fa4gen.runtime.devices import GpuFacts, resolve_sku
from fa4gen.runtime.explanation import current_template
from fa4gen.runtime.hot_path import MISALIGNED, Plan, PlanKey, make_run, plan_key, shape_only
from fa4gen.runtime.launcher import Kernel, Launcher
from fa4gen.runtime.selection import Selection
from fa4gen.runtime.selector import Selector
from fa4gen.runtime.settings import RuntimeSettings
from fa4gen.runtime.tables import load_rows
from fa4gen.space import space_for

if TYPE_CHECKING:
    import torch

MAX_PLANS = 4096
"""Plans kept; beyond it all are dropped and made again. One is about 1 KB."""


class KernelSource(Protocol):
    """Kernels for one device."""

    @property
    def arch(self) -> Arch:
        """The arch the kernels are for."""

    @property
    def num_sms(self) -> int:
        """SMs of the device."""

    def prepare(self, problem: AttentionProblem) -> tuple[Selection, Kernel]:
        """What was selected for ``problem``, and the loaded kernel.

        Raises:
            NoFeasibleKernel: no configuration fits.
            CompileError: the kernel cannot be compiled.
        """


class TunedKernels:
    """A :class:`KernelSource`: the selector decides, the launcher compiles and loads."""

    def __init__(
        self, sku: Sku, selector: Selector, launcher: Launcher, num_sms: int | None = None
    ) -> None:
        self.sku = sku
        self.num_sms = sku.sm_count if num_sms is None else num_sms
        self.selector = selector
        self.launcher = launcher
        self._broken: set[tuple[KernelSignature, KernelConfig]] = set()

    @property
    def arch(self) -> Arch:
        """The arch the kernels are for."""
        return self.sku.arch

    def prepare(self, problem: AttentionProblem) -> tuple[Selection, Kernel]:
        """What was selected for ``problem``, and the loaded kernel.

        Where the selected configuration does not compile, the default runs instead, with a
        warning: a bad row must not be worse than no row.
        """
        selection = self.selector.select(problem)
        signature = problem.signature
        if (signature, selection.config) not in self._broken:
            try:
                return selection, self.launcher.kernel(signature, selection.config)
            except (CompileError, RenderError) as error:
                default = space_for(self.arch.name).default(signature)
                if self.selector.settings.require_exact or default == selection.config:
                    raise
                warnings.warn(
                    f"config {selection.config.config_id} for {problem}: {error}; the default "
                    "runs instead. Tune this problem again",
                    RuntimeWarning,
                    stacklevel=2,
                )
                self._broken.add((signature, selection.config))
        note = f"config {selection.config.config_id} does not compile, the default runs"
        default = space_for(self.arch.name).default(signature)
        selection = replace(selection, config=default, notes=(*selection.notes, note))
        return selection, self.launcher.kernel(signature, default)


class Engine:
    """Calls on the tensors of one type of device.

    Args:
        open_source: kernels of the device with this index; asked once for each.
        device_type: what ``tensor.device.type`` has to be.
        capturing: whether a CUDA graph is being captured on the current stream.
    """

    def __init__(
        self,
        open_source: Callable[[int], KernelSource],
        *,
        device_type: str = "cuda",
        capturing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._open_source = open_source
        self._device_type = device_type
        self._capturing = capturing
        self._sources: dict[int, KernelSource] = {}
        self._opening = threading.Lock()
        self._plans: dict[PlanKey, Plan] = {}
        self._scaled_plans: dict[PlanKey, Plan] = {}
        self._ones: dict[tuple[int, int, int], torch.Tensor] = {}
        self.run = make_run(self._plans, self._run_slow)
        """``run(q, k, v, softmax_scale, causal) -> (out, lse)`` on tensors without gradients."""

    def reset(self) -> None:
        """Forget plans and devices: the next call reads tables and environment again."""
        with self._opening:
            self._sources.clear()
            self._plans.clear()
            self._scaled_plans.clear()

    def run_scaled(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        softmax_scale: float | None,
        causal: bool,
        descales: inputs.Descales,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As :attr:`run`, for tensors that come with descales.

        Raises:
            InputError: descales that do not fit; or as :func:`fa4gen.flash_attn_func`.
        """
        plan = self._scaled_plans.get(plan_key(q, k, v, causal))
        misaligned = (q.data_ptr() | k.data_ptr() | v.data_ptr()) & MISALIGNED
        if plan is None or misaligned or not (softmax_scale is None or softmax_scale > 0):
            return self._run_slow(q, k, v, softmax_scale, causal, descales)
        inputs.check_descales(k, DType.E4M3, descales)
        scale = plan.softmax_scale if softmax_scale is None else float(softmax_scale)
        return _launch(plan, (q, k, v), self._filled(k, descales), scale)

    def select(self, problem: AttentionProblem, device_index: int) -> Selection:
        """What a call of this problem runs on the device; compiles it if need be."""
        selection, _ = self._source(device_index).prepare(inputs.problem_in_memory(problem))
        return selection

    def warm_up(self, problems: Iterable[AttentionProblem], device_index: int) -> list[Selection]:
        """Select, compile, load and launch the kernel of each problem once, on tiny inputs."""
        import torch

        device = torch.device(self._device_type, device_index)
        done = []
        for asked in problems:
            problem = inputs.problem_in_memory(asked)
            source = self._source(device_index)
            selection, kernel = source.prepare(problem)
            dtype = getattr(torch, problem.dtype.torch_name)
            heads = (1, 1, problem.qhead_per_kvhead)
            q = torch.zeros((*heads, problem.head_dim), dtype=dtype, device=device)
            k = torch.zeros((1, 1, 1, problem.head_dim), dtype=dtype, device=device)
            v = torch.zeros((1, 1, 1, problem.head_dim_v), dtype=dtype, device=device)
            plan = _make_plan(source, kernel, q, v)
            scaled = problem.dtype is DType.E4M3
            descales = self._filled(k, (None, None, None)) if scaled else ()
            self._launch_first(plan, kernel, (q, k, v), descales, plan.softmax_scale)
            done.append(selection)
        return done

    def _run_slow(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        softmax_scale: float | None,
        causal: bool,
        descales: inputs.Descales | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Check, copy what TMA cannot read, plan, launch.

        Raises:
            InputError: no kernel accepts these tensors.
            CaptureError: the kernel would have to be loaded during a capture.
        """
        dtype = inputs.check_tensors(q, k, v, causal, self._device_type)
        if dtype is DType.E4M3 and descales is None:
            return self.run_scaled(q, k, v, softmax_scale, causal, (None, None, None))
        if descales is not None:
            inputs.check_descales(k, dtype, descales)
        if softmax_scale is not None and not softmax_scale > 0:
            q, softmax_scale = inputs.with_positive_scale(q, softmax_scale)
            return self._run_again(q, k, v, softmax_scale, causal, descales)
        source = self._source(q.get_device())
        head_dim, head_dim_v = q.shape[3], v.shape[3]
        _check_head_dims(head_dim, head_dim_v, source.arch)
        empty = inputs.empty_result(q, v, k.shape[1])
        if empty is not None:
            return empty
        columns = inputs.head_dim_in_memory(head_dim, dtype.itemsize)
        columns_v = inputs.head_dim_in_memory(head_dim_v, dtype.itemsize)
        fit_q, fit_k = inputs.fitted(q, columns), inputs.fitted(k, columns)
        fit_v = inputs.fitted(v, columns_v)
        if fit_q is not q or fit_k is not k or fit_v is not v:
            scale = head_dim**-0.5 if softmax_scale is None else softmax_scale
            out, lse = self._run_again(fit_q, fit_k, fit_v, scale, causal, descales)
            return (out if columns_v == head_dim_v else out[..., :head_dim_v].contiguous()), lse
        _, kernel = source.prepare(_problem(q, k, v, causal, dtype))
        plan = _make_plan(source, kernel, q, v)
        scale = plan.softmax_scale if softmax_scale is None else float(softmax_scale)
        filled = () if descales is None else self._filled(k, descales)
        result = self._launch_first(plan, kernel, (q, k, v), filled, scale)
        plans = self._plans if descales is None else self._scaled_plans
        if len(plans) >= MAX_PLANS:
            plans.clear()
        plans[plan_key(q, k, v, causal)] = plan
        return result

    def _run_again(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        softmax_scale: float | None,
        causal: bool,
        descales: inputs.Descales | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The call with tensors that fit now."""
        if descales is None:
            return self.run(q, k, v, softmax_scale, causal)
        return self.run_scaled(q, k, v, softmax_scale, causal, descales)

    def _filled(self, k: torch.Tensor, descales: inputs.Descales) -> tuple[torch.Tensor, ...]:
        """The descales as kernels read them, ones where there are none."""
        import torch

        given = tuple(each.contiguous() for each in descales if each is not None)
        if len(given) == len(descales):
            return given
        key = (k.shape[0], k.shape[2], k.get_device())
        ones = self._ones.get(key)
        if ones is None:
            ones = torch.ones(key[:2], dtype=torch.float32, device=k.device)
            if not self._capturing():  # memory of a graph's pool is the graph's
                self._ones[key] = ones
        return tuple(ones if each is None else each.contiguous() for each in descales)

    def _launch_first(
        self,
        plan: Plan,
        kernel: Kernel,
        tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        descales: tuple[torch.Tensor, ...],
        softmax_scale: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Launch a plan that is not yet remembered; keeps loading out of captures."""
        q, k, _ = tensors
        index = q.get_device()
        if index not in kernel.launched_on and self._capturing():
            raise CaptureError(
                f"q {tuple(q.shape)}, k {tuple(k.shape)}: got the first use of this kernel on "
                f"{q.device} inside a CUDA graph capture, allowed: kernels that ran there before; "
                "call it once before the capture, or fa4gen.runtime.warm_up(problems)"
            )
        result = _launch(plan, tensors, descales, softmax_scale)
        kernel.launched_on.add(index)
        return result

    def _source(self, device_index: int) -> KernelSource:
        source = self._sources.get(device_index)
        if source is None:
            with self._opening:
                source = self._sources.get(device_index)
                if source is None:
                    source = self._sources[device_index] = self._open_source(device_index)
        return source


class CudaSources:
    """Opens CUDA devices; devices of one arch share their compiled kernels."""

    def __init__(self) -> None:
        self._launchers: dict[str, Launcher] = {}

    def __call__(self, device_index: int) -> KernelSource:
        """The kernels of one device.

        Raises:
            InputError: no kernel runs on this GPU.
        """
        import torch

        facts = torch.cuda.get_device_properties(device_index)
        gpu = GpuFacts(facts.name, facts.multi_processor_count, (facts.major, facts.minor))
        settings = RuntimeSettings.from_environment()
        resolved = resolve_sku(gpu, settings.sku)
        if resolved.warning:
            warnings.warn(resolved.warning, RuntimeWarning, stacklevel=2)
        sku = resolved.sku
        selector = Selector(
            load_rows(),
            sku,
            settings=settings,
            template_hash=current_template(sku),
            stand_in=resolved.stand_in,
        )
        launcher = self._launchers.setdefault(sku.arch.name, Launcher(sku.arch))
        return TunedKernels(sku, selector, launcher, gpu.sm_count)


def cuda_engine() -> Engine:
    """An engine for CUDA tensors."""
    import torch

    return Engine(CudaSources(), capturing=torch.cuda.is_current_stream_capturing)


def _launch(
    plan: Plan,
    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    descales: tuple[torch.Tensor, ...],
    softmax_scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """New O and LSE, written by the plan's kernel."""
    import torch

    out = torch.empty_like(plan.out_like, memory_format=torch.contiguous_format)
    lse = torch.empty_like(plan.lse_like, memory_format=torch.contiguous_format)
    plan.function(*tensors, out, lse, *descales, softmax_scale, plan.num_sms)
    return out, lse


def _make_plan(source: KernelSource, kernel: Kernel, q: torch.Tensor, v: torch.Tensor) -> Plan:
    import torch

    batch, seqlen_q, num_heads_q, head_dim = q.shape
    return Plan(
        kernel.function,
        head_dim**-0.5,
        shape_only((batch, seqlen_q, num_heads_q, v.shape[3]), q, inputs.out_dtype(q.dtype)),
        shape_only((batch, num_heads_q, seqlen_q), q, torch.float32),
        source.num_sms,
    )


def _problem(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, dtype: DType
) -> AttentionProblem:
    batch, seqlen_q, num_heads_q, head_dim = q.shape
    asked = AttentionProblem(
        batch=batch,
        seqlen_q=seqlen_q,
        seqlen_k=k.shape[1],
        num_heads_q=num_heads_q,
        num_heads_kv=k.shape[2],
        head_dim=head_dim,
        head_dim_v=v.shape[3],
        dtype=dtype,
        causal=causal,
    )
    return asked.simplified


def _check_head_dims(head_dim: int, head_dim_v: int, arch: Arch) -> None:
    limit = arch.mma_max_columns
    for name, got in (("head_dim", head_dim), ("head_dim_v", head_dim_v)):
        if got > limit:
            raise InputError(
                f"{name}: got {got}, allowed on {arch.name}: up to {limit}, the columns of one "
                "MMA; split the heads"
            )
