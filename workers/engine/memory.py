"""How many blocks of cache fit, and how long a sequence may be; pure arithmetic."""

from dataclasses import dataclass

from storage.errors import SettingInvalid

# Positions in a block: small enough that little is lost at a sequence's end and that short prefixes are shared,
# large enough that tables stay short.
BLOCK_SIZE = 32
# Where nobody set a budget, the cache holds every sequence that may run at this length, or one of the longest.
_USUAL_LEN = 512
_MIB = 1 << 20


def blocks_of(num_tokens: int, block_size: int) -> int:
    """Blocks that hold so many positions."""
    return -(-num_tokens // block_size)


def usual_num_positions(longest: int, max_running: int) -> int:
    """Positions of a cache whose budget nobody set, whole blocks.

    longest: tokens of the longest sequence that may run
    """
    return blocks_of(max(longest, max_running * min(longest, _USUAL_LEN)), BLOCK_SIZE) * BLOCK_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """The cache that will be allocated at start and kept.

    max_len: tokens of the longest sequence that may run
    """

    num_blocks: int
    block_size: int
    max_len: int
    bytes_per_block: int

    @property
    def size_bytes(self) -> int:
        """Memory of the whole cache."""
        return self.num_blocks * self.bytes_per_block


def plan_cache(
    *,
    context_length: int,
    bytes_per_block: int,
    max_running: int,
    max_len: int,
    budget_bytes: int,
    block_size: int = BLOCK_SIZE,
) -> CachePlan:
    """As many blocks as the budget holds, at most what the wanted number of longest sequences can use.

    Raises SettingInvalid when not even one sequence of the context or the wanted limit fits.
    """
    longest = min(context_length, max_len)
    blocks_each = blocks_of(longest, block_size)
    num_blocks = min(budget_bytes // bytes_per_block, max_running * blocks_each)
    if num_blocks < blocks_each:
        needed, given = blocks_each * bytes_per_block / _MIB, budget_bytes / _MIB
        raise SettingInvalid(
            f"One sequence of {longest} tokens needs {needed:.0f} MiB of KV cache and the budget is {given:.0f} MiB: "
            "raise kv_budget_bytes or lower max_len"
        )
    return CachePlan(num_blocks=num_blocks, block_size=block_size, max_len=longest, bytes_per_block=bytes_per_block)
