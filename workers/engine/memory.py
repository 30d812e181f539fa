"""How many cache rows fit, and how long they are; pure arithmetic."""

from dataclasses import dataclass

from storage.errors import SettingInvalid

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """The cache that will be allocated at start and kept."""

    num_rows: int
    max_len: int
    bytes_per_token: int

    @property
    def size_bytes(self) -> int:
        """Memory of the whole cache."""
        return self.num_rows * self.max_len * self.bytes_per_token


def plan_cache(
    *, context_length: int, bytes_per_token: int, max_running: int, max_len: int, budget_bytes: int
) -> CachePlan:
    """As many rows as wanted and as the budget holds, each as long as the context or the wanted limit.

    Raises SettingInvalid when not even one row fits.
    """
    row_len = min(context_length, max_len)
    num_rows = min(max_running, budget_bytes // (row_len * bytes_per_token))
    if num_rows < 1:
        needed, given = row_len * bytes_per_token / _MIB, budget_bytes / _MIB
        raise SettingInvalid(
            f"One sequence of {row_len} tokens needs {needed:.0f} MiB of KV cache and the budget is {given:.0f} MiB: "
            "raise kv_budget_bytes or lower max_len"
        )
    return CachePlan(num_rows=num_rows, max_len=row_len, bytes_per_token=bytes_per_token)
