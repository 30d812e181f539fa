"""Weights that lie in a mapped file: their pages leave main memory once a copy of them was made.

transformers maps safetensors files on a CPU, and what it maps counts as this process' memory as soon as it was read.
"""

import ctypes
import mmap
import re
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

_MAPS = Path("/proc/self/maps")
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) [r-][w-][x-]p \S+ \S+ [1-9]\d* +.*\.safetensors$", re.MULTILINE)
# <sys/mman.h> of Linux
_MADV_DONTNEED = 4


class MappedWeights:
    """The private mappings of safetensors files in this process, as they are now; none where there is no /proc.

    Nobody writes to a model's weights, so a page that is released is read from the file again where it is needed.
    """

    def __init__(self) -> None:
        text = _MAPS.read_text() if _MAPS.is_file() else ""
        self._ranges = [(int(found[1], 16), int(found[2], 16)) for found in _MAPPING.finditer(text)]
        self._madvise = ctypes.CDLL(None).madvise
        self._madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def release(self, tensors: Iterable[Tensor]) -> None:
        """Release the pages of the tensors that lie in such a mapping, but for those that they share with others."""
        for tensor in tensors:
            first, last = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
            if any(begin <= first and last <= end for begin, end in self._ranges):
                first, last = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE, last // mmap.PAGESIZE * mmap.PAGESIZE
                if first < last:
                    self._madvise(first, last - first, _MADV_DONTNEED)
