"""Small host functions and kernels whose launches the tests capture; CuTe-DSL reads this source."""

import cuda.bindings.driver as cuda
import cutlass
import cutlass.utils
from cutlass import cute
from cutlass.cute.nvgpu import cpasync
from cutlass.experimental import primitives
from cutlass.experimental.cuda import TensorMap, create_tensor_map_tiled_from_view
from cutlass.memory import SmemAllocator

ROWS, COLUMNS = 32, 64
"""Tile of :func:`tma_copy`."""
CHAIN_BLOCK = 128


@cute.struct
class CopyStorage:
    """Shared memory of :func:`copy_tile`."""

    loaded: cute.struct.MemRange[cutlass.Int64, 1]
    tile: cute.struct.Align[cute.struct.MemRange[cutlass.Float16, ROWS * COLUMNS], 1024]


def swizzled(rows, columns, bits):
    """A row-major tile under ``Swizzle<bits, 4, 3>`` on byte addresses."""
    plain = cute.make_layout((rows, columns), stride=(columns, 1))
    return cute.make_composed_layout(cute.make_swizzle(bits, 4, 3), 0, plain)


@cute.kernel
def copy_tile(
    load: cute.CopyAtom,
    source: cute.Tensor,
    store: cute.CopyAtom,
    target: cute.Tensor,
    layout: cute.ComposedLayout,
):
    """One warp: a tile to shared memory by TMA, and from there to its place in the target."""
    storage = SmemAllocator().allocate(CopyStorage)
    loaded = storage.loaded.data_ptr()
    tile = storage.tile.get_tensor(layout.outer, swizzle=layout.inner)
    row, column, _ = cute.arch.block_idx()
    with cute.arch.elect_one():
        cute.arch.mbarrier_init(loaded, 1)
    cute.arch.mbarrier_init_fence()
    cute.arch.sync_threads()
    sides = []
    for atom, tensor in ((load, source), (store, target)):
        part = cute.local_tile(tensor, (ROWS, COLUMNS), (row, column))
        sides.append(
            cpasync.tma_partition(
                atom,
                0,
                cute.make_layout(1),
                cute.group_modes(tile, 0, 2),
                cute.group_modes(part, 0, 2),
            )
        )
    (shared_in, global_in), (shared_out, global_out) = sides
    with cute.arch.elect_one():
        cute.arch.mbarrier_arrive_and_expect_tx(loaded, ROWS * COLUMNS * 2)
    cute.copy(load, global_in, shared_in, tma_bar_ptr=loaded)
    cute.arch.mbarrier_wait(loaded, 0)
    cute.copy(store, shared_out, global_out)
    cute.arch.cp_async_bulk_commit_group()
    cute.arch.cp_async_bulk_wait_group(0)


@cute.jit
def tma_copy(source: cute.Tensor, target: cute.Tensor):
    """target = source, both (rows, columns) float16, one tile per CTA, CTAs in pairs."""
    layout = swizzled(ROWS, COLUMNS, 3)
    load, source_view = cpasync.make_tiled_tma_atom(
        cpasync.CopyBulkTensorTileG2SOp(), source, layout, (ROWS, COLUMNS)
    )
    store, target_view = cpasync.make_tiled_tma_atom(
        cpasync.CopyBulkTensorTileS2GOp(), target, layout, (ROWS, COLUMNS)
    )
    grid = [cute.ceil_div(source.shape[0], ROWS), cute.ceil_div(source.shape[1], COLUMNS), 1]
    copy_tile(load, source_view, store, target_view, layout).launch(
        grid=grid, block=(32, 1, 1), cluster=(2, 1, 1)
    )


@cute.kernel
def add(x: cute.Tensor, y: cute.Tensor, term: cutlass.Float32):
    """y = x + term."""
    index = cute.arch.block_idx()[0] * CHAIN_BLOCK + cute.arch.thread_idx()[0]
    if index < cute.size(x):
        y[index] = x[index] + term


@cute.kernel
def double(x: cute.Tensor):
    """x = 2 x."""
    index = cute.arch.block_idx()[0] * CHAIN_BLOCK + cute.arch.thread_idx()[0]
    if index < cute.size(x):
        x[index] = x[index] * 2.0


@cute.jit
def chain(x: cute.Tensor, y: cute.Tensor, term: cutlass.Float32, stream: cuda.CUstream):
    """y = x + term; y *= 2; x = y + term: three launches, each of what the one before wrote."""
    ctas = cute.ceil_div(cute.size(x), CHAIN_BLOCK)
    grid, block = (ctas, 1, 1), (CHAIN_BLOCK, 1, 1)
    add(x, y, term).launch(grid=grid, block=block, stream=stream)
    double(y).launch(grid=grid, block=block, smem=4096, stream=stream, use_pdl=True)
    add(y, x, term).launch(grid=grid, block=block, stream=stream)


@cute.kernel
def nothing(atoms: tuple):
    """Takes tensor maps as parameters."""
    for atom in atoms:
        cpasync.prefetch_descriptor(atom)


@cute.jit
def describe(tensors: tuple, tiles: cutlass.Constexpr, bits: cutlass.Constexpr):
    """Make one tensor map for each tensor, with a tile and a swizzle of its own."""
    atoms = []
    for tensor, tile, swizzle in zip(tensors, tiles, bits, strict=True):
        plain = cute.make_ordered_layout(tile, order=tuple(reversed(range(len(tile)))))
        layout = cute.make_composed_layout(cute.make_swizzle(swizzle, 4, 3), 0, plain)
        atom, _ = cpasync.make_tiled_tma_atom(
            cpasync.CopyBulkTensorTileG2SOp(), tensor, layout if swizzle else plain, tile
        )
        atoms.append(atom)
    nothing(tuple(atoms)).launch(grid=(1, 1, 1), block=(32, 1, 1))


@cute.kernel
def idle(work: cutlass.Int32):
    """Takes a number."""


@cute.jit
def persistent(work: cutlass.Int32):
    """As many CTAs as fit at once, but no more than there is work."""
    info = cutlass.utils.HardwareInfo()
    ctas = cutlass.min(work, info.get_max_active_clusters(1))
    idle(work).launch(grid=(ctas, 1, 1), block=(32, 1, 1))


@cute.kernel
def reverse(x: cute.Tensor):
    """x backwards, by way of 256 floats of static shared memory."""
    staged = cute.make_tensor(cute.arch.alloc_smem(cutlass.Float32, 256), cute.make_layout(256))
    thread = cute.arch.thread_idx()[0]
    staged[thread] = x[thread]
    cute.arch.sync_threads()
    x[thread] = staged[255 - thread]


@cute.jit
def reverse_with(x: cute.Tensor, smem: cutlass.Int32):
    """Reverse 256 floats, and ask for dynamic shared memory on top."""
    reverse(x).launch(grid=(1, 1, 1), block=(256, 1, 1), smem=smem)


@cute.jit
def greedy(work: cutlass.Int32, smem: cutlass.Int32):
    """Asks for as much shared memory as it is told to."""
    idle(work).launch(grid=(work, 1, 1), block=(32, 1, 1), smem=smem)


@cute.kernel
def with_map(tensor_map: cutlass.GridConstant[TensorMap]):
    """Takes a tensor map made by the driver's function."""
    primitives.prefetch_tensormap(tensor_map.get_ptr())


@cute.jit
def driver_map(tensor: cute.Tensor, swizzle: cutlass.Constexpr, fill: cutlass.Constexpr):
    """Ask ``cuTensorMapEncodeTiled`` for a tensor map of a (rows, columns) tensor."""
    tensor_map = create_tensor_map_tiled_from_view(
        tensor, box_dims=(8, 16), swizzle=swizzle, oob_fill=fill
    )
    with_map(tensor_map).launch(grid=(1, 1, 1), block=(32, 1, 1))
