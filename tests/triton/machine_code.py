"""Compiles every kernel for a GPU that is not there: `python -m tests.triton.machine_code CAPABILITY`."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

from workers.model.triton import decode, prefill, store, token_masks
from workers.model.triton.online import padded, tile_of

NAME_BY_TYPE = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}
HEAD_DIMS = (64, 128, 256)
# What one program may take of GeForce 30 and 40 and L4; others have more.
MAX_SHARED_BYTES = 101_376
# Bytes a thread that do not fit its registers. Some dozen are nothing, thousands are a kernel that crawls.
MAX_SPILLED_BYTES = 128
_NUM_KV_HEADS, _GROUP, _BLOCK_SIZE, _MAX_LEN = 8, 4, 32, 4096

Constants = dict[str, int | float]


def compiled(
    kernel: triton.JITFunction, pointers: Mapping[str, str], constants: Constants, target: int
) -> CompiledKernel:
    """The kernel as it is launched; whatever is neither pointer nor constant is a number."""
    kinds = {
        name: "constexpr" if name in constants else "fp32" if name == "scale" else "i32" for name in kernel.arg_names
    }
    kinds |= {name: kind for name, kind in pointers.items() if name in kinds}
    places = {name: place for place, name in enumerate(kernel.arg_names)}
    aligned = [name for name in kinds if name.startswith(("quer", "key", "value")) or name.endswith("stride")]
    source = ASTSource(
        fn=kernel,
        signature=kinds,
        constexprs={(places[name],): value for name, value in constants.items() if name in places},
        attrs={(places[name],): [["tt.divisibility", 16]] for name in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", target, 32))


def spilled_bytes(kernel: CompiledKernel) -> int:
    """What each thread keeps in memory for want of registers."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(usage.partition("STACK:")[2].split()[0])


def main(target: int) -> None:
    """Compile all, and check that each fits."""
    mask_pointers = {"logits": "*fp32", "rows": "*i64", "masks": "*i32"}
    masks = compiled(token_masks._apply, mask_pointers, {"block": token_masks._BLOCK}, target)
    assert spilled_bytes(masks) <= MAX_SPILLED_BYTES
    for dtype, name in NAME_BY_TYPE.items():
        of_type = dict.fromkeys(("query", "key", "value", "keys", "values", "seen"), name)
        of_step = dict.fromkeys(("tables", "begins", "lengths", "slots"), "*i32")
        pointers = of_type | of_step | dict.fromkeys(("peaks", "masses", "totals"), "*fp32")
        for head_dim in HEAD_DIMS:
            constants = constants_of(torch.empty(1, _BLOCK_SIZE, _NUM_KV_HEADS, head_dim, dtype=dtype))
            for kernel in (decode._decode_split, decode._combine, prefill._attend, store._store):
                rows = prefill.rows_of(torch.empty(1, 1, 1, head_dim, dtype=dtype)) if kernel is prefill._attend else 16
                own = {key: value for key, value in (constants | {"rows": rows}).items() if key in kernel.arg_names}
                made = compiled(kernel, pointers, own, target)
                spilled = spilled_bytes(made)
                what = f"{kernel.__name__}, {name}, {head_dim}: {made.metadata.shared} shared, {spilled} spilled"
                assert made.metadata.shared <= MAX_SHARED_BYTES, what
                assert spilled <= MAX_SPILLED_BYTES, what


def constants_of(keys: torch.Tensor) -> Constants:
    """What the kernels are compiled with, for a model whose cache is this."""
    num_kv_heads, head_dim = keys.shape[2:]
    split_len, num_splits = decode.splits_of(_MAX_LEN, tile_of(keys))
    return {
        "num_kv_heads": num_kv_heads,
        "num_heads": num_kv_heads * _GROUP,
        "group": _GROUP,
        "head_dim": head_dim,
        "dim_padded": padded(head_dim),
        "block_size": keys.shape[1],
        "tile": tile_of(keys),
        "split_len": split_len,
        "num_splits": num_splits,
        "splits_padded": triton.next_power_of_2(num_splits),
        "width": num_kv_heads * head_dim,
        "width_padded": triton.next_power_of_2(num_kv_heads * head_dim),
        # As in Gemma, whose heads are the widest.
        "window": 1024 if head_dim == 256 else 0,
        "softcap": 30.0 if head_dim == 256 else 0.0,
    }


if __name__ == "__main__":
    main(int(sys.argv[1]))
