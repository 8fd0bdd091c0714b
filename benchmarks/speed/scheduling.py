"""CPU time of vLLM's scheduler for a decoded position, whole and shortened, and whether both
schedule the same.

    python -m benchmarks.speed.scheduling OUT.json [--sequences 8 64 128 256] [--tokens 200]

vLLM's scheduler and output processor run as in its engine, on prompts of 100 tokens in groups of 8,
and the model is replaced by tokens that are made up; nothing is computed. Each number is the median
of --rounds, in CPU time of the thread. Limits: needs vllm and no GPU; the model runner, which takes
CPU time of its own, is not in it.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from benchmarks import about
from r1recipes.training.backends.unsloth import scheduling

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}
END = 1023
"""The token that ends a completion."""
GROUP, PROMPT_TOKENS, BLOCK = 8, 100, 16
MAX_LENGTH = 1024


class Engine:
    """vLLM's scheduler and output processor, with tokens from `drawn` in place of a model."""

    def __init__(self, folder: Path, max_num_seqs: int, num_blocks: int):
        import torch
        from vllm.config import (
            CacheConfig,
            DeviceConfig,
            ModelConfig,
            SchedulerConfig,
            VllmConfig,
        )
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler
        from vllm.v1.engine.output_processor import OutputProcessor
        from vllm.v1.kv_cache_interface import (
            FullAttentionSpec,
            KVCacheConfig,
            KVCacheGroupSpec,
        )
        from vllm.v1.structured_output import StructuredOutputManager

        (folder / "config.json").write_text(json.dumps(CONFIG))
        cache = CacheConfig(block_size=BLOCK, enable_prefix_caching=True)
        config = VllmConfig(
            model_config=ModelConfig(
                model=str(folder), max_model_len=MAX_LENGTH, skip_tokenizer_init=True
            ),
            scheduler_config=SchedulerConfig(
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=4096,
                max_model_len=MAX_LENGTH,
                enable_chunked_prefill=True,
                is_encoder_decoder=False,
                async_scheduling=True,
            ),
            cache_config=cache,
            device_config=DeviceConfig(device="cpu"),
        )
        cache.num_gpu_blocks = num_blocks
        layers = FullAttentionSpec(BLOCK, num_kv_heads=2, head_size=64, dtype=torch.bfloat16)
        init_none_hash(sha256)
        self.hasher = get_request_block_hasher(BLOCK, sha256)
        self.scheduler: Any = AsyncScheduler(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(num_blocks, [], [KVCacheGroupSpec(["layer"], layers)]),
            block_size=BLOCK,
            structured_output_manager=StructuredOutputManager(config),
        )
        self.outputs: Any = OutputProcessor(None, log_stats=False)
        self.seconds: dict[str, float] = {}
        self.positions = 0

    def generate(self, lengths: list[int], seed: int) -> Iterator[Any]:
        """One call of `generate` with completions of these lengths: what is scheduled, step by
        step."""
        self.seconds, self.positions = dict.fromkeys(("schedule", "update", "outputs"), 0.0), 0
        for number, length in enumerate(lengths):
            self._add(number, length, seed)
        queue: list[Any] = []
        while self.scheduler.has_unfinished_requests():
            began = time.thread_time()
            scheduled = self.scheduler.schedule()
            self.seconds["schedule"] += time.thread_time() - began
            yield seen(scheduled, self.scheduler.requests.values())
            queue.append(scheduled)
            if len(queue) == 2:  # as many as `step_with_batch_queue` has under way
                self._update(queue.pop(0), lengths)
        for rest in queue:
            self._update(rest, lengths)

    def _add(self, number: int, length: int, seed: int) -> None:
        from vllm.sampling_params import RequestOutputKind, SamplingParams
        from vllm.v1.engine import EngineCoreRequest
        from vllm.v1.request import Request

        rng = random.Random(f"{seed} {number // GROUP}")
        ids = [rng.randrange(END) for _ in range(PROMPT_TOKENS)]
        params = SamplingParams(
            max_tokens=max(1, MAX_LENGTH - PROMPT_TOKENS - 1),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        params.update_from_generation_config({}, END)
        name = str(number)
        self.scheduler.add_request(Request(name, ids, params, None, block_hasher=self.hasher))
        request = EngineCoreRequest(
            request_id=name,
            external_req_id=name,
            prompt_token_ids=ids,
            mm_features=None,
            sampling_params=params,
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        self.outputs.add_request(request, None, None, 0, None)

    def _update(self, scheduled: Any, lengths: list[int]) -> None:
        from vllm.v1.outputs import ModelRunnerOutput

        names = [*scheduled.num_scheduled_tokens]
        made = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: index for index, name in enumerate(names)},
            sampled_token_ids=[self._drawn(name, lengths[int(name)]) for name in names],
        )
        began = time.thread_time()
        updated = self.scheduler.update_from_output(scheduled, made)
        between = time.thread_time()
        for each in updated.values():
            self.outputs.process_outputs(each.outputs, 0.0, None)
        self.seconds["update"] += between - began
        self.seconds["outputs"] += time.thread_time() - between
        self.positions += 1

    def _drawn(self, name: str, length: int) -> list[int]:
        request = self.scheduler.requests.get(name)
        if request is None or request.is_prefill_chunk:
            return []
        number = len(request._output_token_ids) + 1
        return [END if number == length else (7 * number + int(name)) % END]


def seen(scheduled: Any, requests: Iterable[Any]) -> SimpleNamespace:
    """All that the model runner is told in a step, and how often sequences were put off so far."""
    cached = scheduled.scheduled_cached_reqs
    return SimpleNamespace(
        tokens=dict(scheduled.num_scheduled_tokens),
        new=[(one.req_id, one.block_ids) for one in scheduled.scheduled_new_reqs],
        cached=[
            *zip(cached.req_ids, cached.new_block_ids, cached.num_computed_tokens, strict=True)
        ],
        finished=sorted(scheduled.finished_req_ids),
        put_off=sum(request.num_preemptions for request in requests),
    )


def measured(num_sequences: int, num_tokens: int, rounds: int) -> dict[str, float]:
    """CPU time of a position in ms, by part."""
    with TemporaryDirectory() as folder:
        engine = Engine(Path(folder), num_sequences, 40_000)
        lengths = [num_tokens + number % 3 for number in range(num_sequences)]
        rows: list[dict[str, float]] = []
        for seed in range(rounds + 1):
            for _ in engine.generate(lengths, seed):
                pass
            rows.append({k: 1000 * s / engine.positions for k, s in engine.seconds.items()})
    parts = {part: statistics.median(row[part] for row in rows[1:]) for part in rows[0]}
    return {part: round(ms, 3) for part, ms in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the .json file to write")
    parser.add_argument("--sequences", type=int, nargs="+", default=[8, 64, 128, 256])
    parser.add_argument("--tokens", type=int, default=200, help="of a completion")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", choices=("whole", "short"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        scheduling.prepare()
        results = {n: measured(n, args.tokens, args.rounds) for n in args.sequences}
        args.out.write_text(json.dumps(results))
        return
    rows: dict[str, Any] = {}
    for kind in ("whole", "short"):
        with TemporaryDirectory() as folder:
            out = Path(folder) / "out.json"
            words = [sys.executable, "-m", "benchmarks.speed.scheduling", str(out), "--one", kind]
            words += ["--tokens", str(args.tokens), "--rounds", str(args.rounds), "--sequences"]
            environment = os.environ | {scheduling.VARIABLE: kind}
            subprocess.run([*words, *map(str, args.sequences)], env=environment, check=True)
            rows[kind] = json.loads(out.read_text())
    about.write(args.out, {"tokens": args.tokens, "rounds": args.rounds, "ms_per_position": rows})
    for kind, each in rows.items():
        for number, parts in each.items():
            print(f"{kind:6} {number:>4} sequences {sum(parts.values()):6.2f} ms  {parts}")


if __name__ == "__main__":
    main()
