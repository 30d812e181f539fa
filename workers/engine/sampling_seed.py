"""Where sampling noise comes from: integer hashes of a seed, a choice and a position, and nothing else."""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ODD = 0xD1B54A32D192ED03


def choice_seed(seed: int, choice: int) -> int:
    """The seed of one choice of a job, 64 bits; choice 0 keeps the job's own seed."""
    return seed if choice == 0 else _mix(seed + choice * _GOLDEN)


def position_key(seed: int, position: int) -> tuple[int, int]:
    """Two signed 32-bit keys of the noise at an absolute position (prompt included) of a sequence.

    A pure function of its arguments, so a token is sampled alike in any batch, on any worker and device.
    """
    mixed = _mix(seed * _GOLDEN + (position + 1) * _ODD)
    return _signed(mixed & 0xFFFFFFFF), _signed(mixed >> 32)


def _mix(value: int) -> int:
    """The finalizer of splitmix64. Source: Steele et al. 2014, "Fast Splittable Pseudorandom Number Generators"."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value
