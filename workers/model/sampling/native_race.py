"""The race on a CPU by the native library: kernels/race.h, many times as fast as torch's operations one by one."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from workers.engine.sampling_seed import position_key
from workers.model.native.library import Library
from workers.model.sampling.filters import least_distance
from workers.model.sampling.request import DrawRequest, num_known, usable_temperature

# `Row` of kernels/race.h: place, keys, temperature, least, top_k, top_p.
_ROW = struct.Struct("=iiiffid")


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeRace:
    """Rows whose tokens the library draws.

    rows: a `Row` each
    """

    library: Library
    rows: bytes

    def run(self, logits: Tensor, best: Tensor, tokens: Tensor) -> None:
        """As `TorchRace.run`; `tokens` holds the likeliest before.

        A token is the same unless two scores, or a weight and a limit, are equal but for float32's last digits.
        """
        num_rows = len(self.rows) // _ROW.size
        self.library.race(logits.data_ptr(), logits.stride(0), logits.shape[1], num_rows, self.rows, tokens.data_ptr())


def plan_native_races(
    library: Library, requests: Sequence[DrawRequest], rows: Sequence[int], vocab_size: int
) -> list[NativeRace]:
    """All rows in one."""
    packed = [_packed(row, requests[row], vocab_size) for row in rows]
    return [NativeRace(library=library, rows=b"".join(packed))]


def _packed(row: int, request: DrawRequest, vocab_size: int) -> bytes:
    params = request.sampling
    temperature = usable_temperature(params)
    keys = position_key(params.seed, num_known(request))
    least = least_distance(params.min_p, temperature)
    return _ROW.pack(row, *keys, temperature, least, min(params.top_k, vocab_size), params.top_p)
