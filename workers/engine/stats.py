"""Statistics of an engine."""

import msgspec


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Gauges of now, and counters since the engine was made.

    num_blocks_used:   held by sequences
    num_blocks_cached: held by none, and kept for sequences with the same prefix
    num_prompt_tokens: of the sequences that had an output
    num_cached_tokens: of these, found in the cache
    """

    num_running: int
    num_waiting: int
    num_blocks: int
    num_blocks_used: int
    num_blocks_cached: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    num_preemptions: int
    num_steps: int
    num_step_faults: int
