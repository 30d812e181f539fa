"""Who sits in which row of the cache; rows in use have no gap."""

from collections.abc import Iterator

from workers.engine.sequence import Sequence


class RowTable:
    """Running sequences by row. A freed row is filled by the last one, so that decoding sees one block of rows."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._sequences: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    @property
    def has_room(self) -> bool:
        """Whether one more sequence can run."""
        return len(self._sequences) < self._num_rows

    def seat(self, sequence: Sequence) -> None:
        """Give the sequence the next row."""
        assert self.has_room
        assert sequence.row is None
        sequence.row = len(self._sequences)
        self._sequences.append(sequence)

    def vacate(self, sequence: Sequence) -> tuple[int, int]:
        """Take the sequence's row back; (its row, the last row, whose sequence moves there)."""
        row, last = sequence.row, len(self._sequences) - 1
        assert row is not None
        assert self._sequences[row] is sequence
        moved = self._sequences.pop()
        if moved is not sequence:
            self._sequences[row] = moved
            moved.row = row
        sequence.row = None
        return row, last
