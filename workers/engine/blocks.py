"""The KV block allocator and the prefix cache: reference counts and chained hashes.

A block is free, held by sequences, or cached: no sequence holds it, and its hash finds it until its place is needed.
A block with a hash is also found while it is held, even before it is computed: it is pending then, and has a writer.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence as Ids

from workers.engine.memory import blocks_of


class BlockTable:
    """The blocks of one sequence, in the order of their positions.

    blocks:       an array, whose memory kernels can read as it lies
    hashes:       of its leading full blocks, as far as they were asked for; kept when the blocks are given back
    num_attached: leading blocks that were found by their hash
    num_listed:   leading full blocks that were offered to others, or not for good
    is_validated: whether a finite token was sampled from what the sequence's prefill computed
    """

    __slots__ = ("blocks", "hashes", "is_validated", "num_attached", "num_listed")

    def __init__(self) -> None:
        self.blocks = array("i")
        self.hashes: list[bytes] = []
        self.num_attached = 0
        self.num_listed = 0
        self.is_validated = False

    def clear(self) -> None:
        """It holds no blocks any more."""
        self.blocks = array("i")
        self.num_attached = self.num_listed = 0
        self.is_validated = False


class BlockManager:
    """The blocks of a cache and the prefix cache in them.

    A complete block is never written again, unless one sequence alone holds it and no hash finds it.
    Blocks that are not validated (their writer has sampled no token since) are not kept in the prefix cache, and
    `release` returns them as in need of zeroing: what a model computed may not have been finite.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.reset()

    def reset(self) -> None:
        """Forget all tables and all hashes. Tables that are still about must be thrown away."""
        self._free = list(range(self.num_blocks - 1, -1, -1))
        # Least recently used first; an OrderedDict gives up its first key in constant time, a dict does not.
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._num_refs = [0] * self.num_blocks
        self._hash_by_block: dict[int, bytes] = {}
        self._block_by_hash: dict[bytes, int] = {}
        self._writer_by_block: dict[int, BlockTable | None] = {}
        self._unvalidated: set[int] = set()

    @property
    def num_available(self) -> int:
        """Blocks that no sequence holds."""
        return len(self._free) + len(self._cached)

    @property
    def num_used(self) -> int:
        """Blocks that sequences hold."""
        return self.num_blocks - self.num_available

    @property
    def num_cached(self) -> int:
        """Blocks that no sequence holds and that the prefix cache still finds."""
        return len(self._cached)

    def admit(self, table: BlockTable, tokens: Ids[int], *, salt: str, reads_cache: bool, num_spared: int) -> bool:
        """Give an empty table all blocks of its tokens, those found by hash first; False when they do not fit.

        The last token is always computed, so its block is never one of those found.

        num_spared: blocks that must be left for others
        """
        assert not table.blocks
        _extend_hashes(table, tokens, len(tokens), block_size=self.block_size, salt=salt)
        found = self._find(table, (len(tokens) - 1) // self.block_size) if reads_cache else []
        num_fresh = blocks_of(len(tokens), self.block_size) - len(found)
        num_revived = sum(not self._num_refs[block] for block in found)
        if num_fresh + num_revived + num_spared > self.num_available:
            return False
        for block in found:
            self._attach(block)
        table.num_attached = len(found)
        fresh = [self._take() for _ in range(num_fresh)]
        table.blocks = array("i", found + fresh)
        self._unvalidated.update(fresh)
        self._announce(table)
        return True

    def grow(self, table: BlockTable, tokens: Ids[int], num_computed: int, salt: str) -> bool:
        """One more block for a sequence that filled the last one; False when there is none.

        num_computed: leading positions that are computed, or will be by a launch under way
        """
        if not self.num_available:
            return False
        self._list(table, tokens, num_computed, salt)
        table.blocks.append(self._take())
        return True

    def skip(self, table: BlockTable, position: int) -> int:
        """The first position from `position` on that no other sequence has computed."""
        index, offset = divmod(position, self.block_size)
        if offset:
            return position
        while index < table.num_attached and table.blocks[index] not in self._writer_by_block:
            index += 1
        return index * self.block_size

    def claim(self, table: BlockTable, start: int, end: int) -> int:
        """How far the sequence may compute from `start` on, at most to `end`; not at all when another does just that.

        Attached blocks whose writer went away become this sequence's to compute.
        """
        writers, size = self._writer_by_block, self.block_size
        for index in range(start // size, min(table.num_attached, blocks_of(end, size))):
            block = table.blocks[index]
            if block not in writers or (writers[block] or table) is not table:
                return index * size
            writers[block] = table
        return end

    def complete(self, table: BlockTable, start: int, end: int) -> None:
        """Mark positions start..end of a prefill as computed, by this step at the latest."""
        for index in range(start // self.block_size, end // self.block_size):
            block = table.blocks[index]
            if self._writer_by_block.get(block) is table:
                del self._writer_by_block[block]

    def validate(self, table: BlockTable) -> None:
        """Validate all blocks of the table: a finite token was sampled from them."""
        table.is_validated = True
        self._unvalidated.difference_update(table.blocks)

    def invalidate(self, table: BlockTable) -> None:
        """Invalidate the table's blocks in the prefix cache: what was sampled from them was not finite."""
        table.is_validated = False
        for block in table.blocks:
            self._forget(block)
        self._unvalidated.update(table.blocks)

    def release(self, table: BlockTable, tokens: Ids[int], num_computed: int, salt: str) -> list[int]:
        """Take the table's blocks back, keep what the prefix cache may serve; the blocks that need zeroing.

        num_computed: leading positions that were computed
        """
        if table.is_validated:
            self._list(table, tokens, min(num_computed, len(tokens)), salt)
        needs_zeroing = []
        # The end of a prefix is used less often than its beginning, so it goes first.
        for block in reversed(table.blocks):
            if self._writer_by_block.get(block) is table:
                self._writer_by_block[block] = None
            self._num_refs[block] -= 1
            if self._num_refs[block]:
                continue
            if block in self._unvalidated:
                self._unvalidated.remove(block)
                self._forget(block)
                needs_zeroing.append(block)
            if block in self._hash_by_block:
                self._cached[block] = None
            else:
                self._free.append(block)
        table.clear()
        return needs_zeroing

    def _find(self, table: BlockTable, max_blocks: int) -> list[int]:
        found = []
        for digest in table.hashes[:max_blocks]:
            block = self._block_by_hash.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def _attach(self, block: int) -> None:
        if not self._num_refs[block]:
            del self._cached[block]
        self._num_refs[block] += 1

    def _take(self) -> int:
        if self._free:
            block = self._free.pop()
        else:
            block, _ = self._cached.popitem(last=False)
            self._forget(block)
        self._num_refs[block] = 1
        return block

    def _announce(self, table: BlockTable) -> None:
        """Let others find the full blocks that this sequence is about to compute."""
        table.num_listed = len(table.hashes)
        for index in range(table.num_attached, len(table.hashes)):
            block, digest = table.blocks[index], table.hashes[index]
            if digest not in self._block_by_hash:
                self._enter(block, digest)
                self._writer_by_block[block] = table

    def _list(self, table: BlockTable, tokens: Ids[int], num_computed: int, salt: str) -> None:
        """Let others find the blocks that were filled since."""
        _extend_hashes(table, tokens, num_computed, block_size=self.block_size, salt=salt)
        for index in range(table.num_listed, num_computed // self.block_size):
            block, digest = table.blocks[index], table.hashes[index]
            if digest not in self._block_by_hash:
                self._enter(block, digest)
        table.num_listed = max(table.num_listed, num_computed // self.block_size)

    def _enter(self, block: int, digest: bytes) -> None:
        self._hash_by_block[block] = digest
        self._block_by_hash[digest] = block

    def _forget(self, block: int) -> None:
        """Remove the block from the prefix cache; a pending one belongs to its holders alone from here on."""
        digest = self._hash_by_block.pop(block, None)
        if digest is not None:
            del self._block_by_hash[digest]
        if block in self._writer_by_block and not self._num_refs[block]:
            del self._writer_by_block[block]


def _extend_hashes(table: BlockTable, tokens: Ids[int], num_tokens: int, *, block_size: int, salt: str) -> None:
    """Each block's hash covers the salt and all ids from the sequence's beginning to the block's end."""
    hashes = table.hashes
    for index in range(len(hashes), num_tokens // block_size):
        before = hashes[-1] if hashes else _digest(salt.encode())
        hashes.append(_digest(before + array("q", tokens[index * block_size : (index + 1) * block_size]).tobytes()))


def _digest(data: bytes) -> bytes:
    # 128 bits: a collision is infeasible, so that a hit needs no comparison of tokens.
    return hashlib.blake2b(data, digest_size=16).digest()
