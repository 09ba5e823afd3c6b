"""From compiled launch code to launches, on a machine without a GPU."""

from fa4gen.emulator.launch.arguments import HostTensor, host_tensor, tensors_in
from fa4gen.emulator.launch.capture import capture
from fa4gen.emulator.launch.launch import Launch, LaunchAttribute
from fa4gen.emulator.launch.tensormap import TENSOR_MAP_BYTES, TensorMap
from fa4gen.ptx.host import CompiledHost, Device, PackedArguments

__all__ = [
    "TENSOR_MAP_BYTES",
    "CompiledHost",
    "Device",
    "HostTensor",
    "Launch",
    "LaunchAttribute",
    "PackedArguments",
    "TensorMap",
    "capture",
    "host_tensor",
    "tensors_in",
]
