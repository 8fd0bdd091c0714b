"""vLLM's scheduler, without work that most decoded tokens do not need.

For each token of each sequence vLLM goes through its whole allocation of KV cache: nothing is to be
allocated, and no block is complete, for 15 of the 16 tokens of a block. Here such a token is
recognised and passed over; what is scheduled stays the same. For 256 sequences the scheduler takes
2.1 to 2.5 ms of CPU time a position instead of 3.2 to 4.0 (vLLM 0.26.0, no GPU;
`benchmarks.speed.scheduling`). What a step gains has not been measured: off unless `VARIABLE` turns
it on. Imports vLLM when it is called. Limits: models with one group of layers that all attend to
the whole sequence, and no speculative tokens, as everything here has; facts about vLLM hold for
0.26.0 and 0.27.1.
"""

import functools
import os
from typing import Any

from r1recipes.errors import RunError

VARIABLE = "R1RECIPES_SCHEDULING"
"""Environment variable, to compare: with "short" tokens that need nothing are passed over."""


def prepare() -> None:
    """Let vLLM pass tokens over where the variable asks for it, before an engine is made.

    Raises: RunError for a value that is none.
    """
    value = os.environ.get(VARIABLE, "whole")
    if value not in ("whole", "short"):
        raise RunError(f"{VARIABLE} is {value!r}", hint=f"set {VARIABLE}=short, or unset it")
    if value == "short":
        shorten()


def shorten() -> None:
    """Replace `allocate_slots` and `cache_blocks` of vLLM's KVCacheManager by ones that return at
    once where they would do nothing (vllm, v1/core/kv_cache_manager.py and
    v1/core/single_type_kv_cache_manager.py)."""
    from vllm.v1.core.kv_cache_manager import KVCacheManager

    if getattr(KVCacheManager.allocate_slots, "is_short", False):
        return
    allocate_slots, cache_blocks = KVCacheManager.allocate_slots, KVCacheManager.cache_blocks

    @functools.wraps(allocate_slots)
    def allocate(self: Any, request: Any, num_new_tokens: int, *args: Any, **options: Any) -> Any:
        # A sequence that is running has this option alone (Scheduler.schedule).
        if num_new_tokens == 1 and not args and options == {"num_lookahead_tokens": 0}:
            group, name = only_group(self), request.request_id
            num_tokens = request.num_computed_tokens + 1
            if (
                group
                and (blocks := group.req_to_blocks.get(name))
                and num_tokens <= len(blocks) * group.block_size
                and num_tokens <= self.max_model_len
                and min(num_tokens, request.num_tokens) // group.block_size
                <= group.num_cached_block.get(name, 0)
            ):
                return self.empty_kv_cache_blocks
        return allocate_slots(self, request, num_new_tokens, *args, **options)

    @functools.wraps(cache_blocks)
    def cache(self: Any, request: Any, num_tokens: int) -> None:
        group = only_group(self)
        if not group or num_tokens // group.block_size > group.num_cached_block.get(
            request.request_id, 0
        ):
            cache_blocks(self, request, num_tokens)

    vars(allocate)["is_short"] = True
    KVCacheManager.allocate_slots, KVCacheManager.cache_blocks = allocate, cache


def only_group(manager: Any) -> Any:
    """The manager of the blocks of all layers; None where layers differ or keep a window, and where
    blocks are not cached whole."""
    try:
        return manager.only_group
    except AttributeError:
        groups, pool = manager.coordinator.single_type_managers, manager.block_pool
        is_plain = len(groups) == 1 and type(groups[0]).__name__ == "FullAttentionManager"
        is_plain = is_plain and groups[0].block_size == pool.hash_block_size
        manager.only_group = groups[0] if is_plain and manager.enable_caching else None
        return manager.only_group
