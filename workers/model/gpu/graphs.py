"""Decode steps of a few fixed sizes, captured as CUDA graphs so that a step is one call of the driver."""

from bisect import bisect_left
from collections.abc import Sequence

import structlog
import torch
from torch import Tensor

from workers.model.gpu.network import Network
from workers.model.gpu.step_tables import Shape, StepTables

# Triton compiles and libraries choose their ways in the first runs, which a capture would not survive.
_NUM_WARM_UPS = 2
# Greatest difference of a replayed logit, as a share of the greatest logit. The same kernels run: rounding at most.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}

log = structlog.get_logger()


def buckets_of(max_running: int) -> list[int]:
    """Numbers of sequences that decode steps are padded to: powers of two, and the most that run."""
    buckets = []
    size = 1
    while size < max_running:
        buckets.append(size)
        size *= 2
    return [*buckets, max_running]


def bucket_of(num_seqs: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds so many."""
    return buckets[bisect_left(buckets, num_seqs)]


class DecodeGraphs:
    """For each bucket the buffers of its steps, whose addresses never change, and its graph if one was captured."""

    def __init__(self, network: Network, buckets: Sequence[int], width: int) -> None:
        self._network = network
        self._tables = {
            bucket: StepTables.new(Shape(num_seqs=bucket, num_tokens=bucket, num_spans=0, width=width), network.device)
            for bucket in buckets
        }
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    @property
    def num_captured(self) -> int:
        """Buckets that have a graph."""
        return len(self._graphs)

    def run(self, bucket: int, packed: Tensor, last_tokens: Tensor) -> Tensor:
        """Logits of a decode step, [bucket, vocab_size], good until the bucket's next run.

        packed: the step's numbers on the host; last_tokens: as in Network.compute
        """
        tables = self._tables[bucket]
        tables.send(packed)
        if bucket not in self._graphs:
            return self._network.compute(tables, last_tokens, None)
        graph, logits = self._graphs[bucket]
        graph.replay()
        return logits

    def release(self) -> None:
        """Release every graph, after the launched work is done."""
        if self._graphs:
            torch.cuda.synchronize()
        self._graphs = {}

    @torch.inference_mode()
    def capture(self, last_tokens: Tensor) -> None:
        """Capture every bucket and compare a replay with a plain run; on any failure no graph is kept.

        The largest is captured first, so that the others fit into its memory.
        """
        pool = torch.cuda.graph_pool_handle()
        try:
            # A capture that fails leaves its own stream as the current one; this block puts back what was.
            with torch.cuda.stream(torch.cuda.current_stream()):
                for bucket in sorted(self._tables, reverse=True):
                    self._graphs[bucket] = self._captured(self._tables[bucket], last_tokens, pool)
        except Exception as error:
            self._graphs = {}
            torch.cuda.synchronize()
            log.warning("graphs_unavailable", error=str(error), exc_info=True)

    def _captured(
        self, tables: StepTables, last_tokens: Tensor, pool: "tuple[int, int]"
    ) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        tables.pretend(0)
        self._warm_up(tables, last_tokens)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):  # type: ignore[arg-type]  # the pair is what torch hands out
            logits = self._network.compute(tables, last_tokens, None)
        # Another step than the captured one: a replay must read what the tables hold now.
        tables.pretend(1)
        expected = self._network.compute(tables, last_tokens, None).float()
        graph.replay()
        error = (logits.float() - expected).abs().max() / expected.abs().max().clamp_min(1e-6)
        if not float(error) <= _TOLERANCE[logits.dtype]:
            raise RuntimeError(f"a replayed step differs by {float(error):.2g}")
        return graph, logits

    def _warm_up(self, tables: StepTables, last_tokens: Tensor) -> None:
        """Run the step eagerly, on a separate stream as a capture does."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch left it bare
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_NUM_WARM_UPS):
                self._network.compute(tables, last_tokens, None)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
