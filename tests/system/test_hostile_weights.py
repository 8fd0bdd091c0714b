"""Damaged or hostile weights, configurations and tokenizers of a run: one line that names the file.

Every case is a whole run of version 0.1.0 with one file changed; `ask` and `export` load nothing
of it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system import test_hostile_runs
from tests.system.test_hostile_runs import Change, assert_refused, content, keys

run, unpacked = test_hostile_runs.run, test_hostile_runs.unpacked
Header = dict[str, Any]


def header(
    change: Callable[[Header, bytes], tuple[Header | bytes, bytes]],
) -> Callable[[str], Change]:
    """Change header and data of a safetensors file."""

    def of_file(name: str) -> Change:
        def apply(run: Path) -> None:
            old = (run / name).read_bytes()
            size = int.from_bytes(old[:8], "little")
            new, data = change(json.loads(old[8 : 8 + size]), old[8 + size :])
            text = new if isinstance(new, bytes) else json.dumps(new).encode()
            (run / name).write_bytes(len(text).to_bytes(8, "little") + text + data)

        return apply

    return of_file


def whole(change: Callable[[bytes], bytes]) -> Callable[[str], Change]:
    return lambda name: lambda run: (run / name).write_bytes(change((run / name).read_bytes()))


def tensor(**changes: Any) -> Callable[[str], Change]:
    """Change the entry of the first tensor."""
    return header(lambda old, data: (old | {_first(old): old[_first(old)] | changes}, data))


def _first(old: Header) -> str:
    return next(name for name in old if name != "__metadata__")


def turned(old: Header, data: bytes) -> tuple[Header, bytes]:
    name = next(n for n in old if n != "__metadata__" and len(old[n]["shape"]) == 2)
    return old | {name: old[name] | {"shape": old[name]["shape"][::-1]}}, data


def renamed(old: Header, data: bytes) -> tuple[Header, bytes]:
    return {(f"{n}\x1b[2J" if n == _first(old) else n): entry for n, entry in old.items()}, data


def without_last(old: Header, data: bytes) -> tuple[Header, bytes]:
    tensors = {name: entry for name, entry in old.items() if name != "__metadata__"}
    last = max(tensors, key=lambda name: tensors[name]["data_offsets"][1])
    end = tensors.pop(last)["data_offsets"][0]
    return tensors, data[:end]


WEIGHTS = {
    "an empty file": whole(lambda old: b""),
    "a cut end": whole(lambda old: old[:-7]),
    "a cut header": whole(lambda old: old[:40]),
    "a header of 2^60": whole(lambda old: (2**60).to_bytes(8, "little") + old[8:]),
    "no JSON": header(lambda old, data: (b"{" * 300, data)),
    "no UTF-8": header(lambda old, data: (b"\xff" * 300, data)),
    "a list": header(lambda old, data: (b"[]", data)),
    "a deep header": header(lambda old, data: (b'{"a": ' + b"[" * 10**5, data)),
    "no tensors": header(lambda old, data: ({}, b"")),
    "a tensor that is a list": header(lambda old, data: (old | {"x": []}, data)),
    "an unknown type": tensor(dtype="EVIL\x1b[2J"),
    "a type that is a number": tensor(dtype=5),
    "a longer type": tensor(dtype="F64"),
    "a shape in words": tensor(shape="x"),
    "a shape of 10^18": tensor(shape=[10**9, 10**9]),
    "a shape of 10^400": tensor(shape=[10**400]),
    "a shape below zero": tensor(shape=[-1]),
    "an empty shape": tensor(shape=[0]),
    "no offsets": tensor(data_offsets=None),
    "offsets beyond the end": tensor(data_offsets=[0, 10**12]),
    "offsets below zero": tensor(data_offsets=[-8, 8]),
    "offsets that overlap": tensor(data_offsets=[4, 8]),
    "a turned shape": header(turned),
    "another name": header(renamed),
    "a tensor less": header(without_last),
}
PLACES = ("adapter/adapter_model.safetensors", "base/model.safetensors")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", WEIGHTS)
def test_hostile_weights_are_refused(run, name, place):
    WEIGHTS[name](place)(run)
    line = assert_refused("ask", run, "hi", "--offline")
    assert place.partition("/")[0] in line


ADAPTER, BASE = "adapter/adapter_config.json", "base/config.json"
GENERATION = "base/generation_config.json"
TOKENIZER, SPECIAL = "adapter/tokenizer.json", "adapter/tokenizer_config.json"
FILES: dict[str, tuple[str, Change]] = {
    "an adapter that is a list": (ADAPTER, content(ADAPTER, "[]")),
    "a rank in words": (ADAPTER, keys(ADAPTER, r="x")),
    "a rank of 10^9": (ADAPTER, keys(ADAPTER, r=10**9)),
    "a rank of 0": (ADAPTER, keys(ADAPTER, r=0)),
    "another rank": ("adapter", keys(ADAPTER, r=3)),
    "an endless alpha": (ADAPTER, keys(ADAPTER, lora_alpha=float("inf"))),
    "a pattern without end": (ADAPTER, keys(ADAPTER, target_modules="(a+)+$")),
    "a pattern that is none": (ADAPTER, keys(ADAPTER, target_modules="(")),
    "modules that are a number": (ADAPTER, keys(ADAPTER, target_modules=5)),
    "modules that the base lacks": ("adapter", keys(ADAPTER, target_modules=["evil"])),
    "a rank for a pattern": (ADAPTER, keys(ADAPTER, rank_pattern={"(a+)+": 10**9})),
    "another kind of adapter": (ADAPTER, keys(ADAPTER, peft_type="EVIL")),
    "10^7 layers more": (ADAPTER, keys(ADAPTER, layer_replication=[[0, 10**7]])),
    "another task": (ADAPTER, keys(ADAPTER, task_type="EVIL")),
    "weights to be made up": ("adapter", keys(ADAPTER, use_dora=True)),
    "a base that is a list": (BASE, content(BASE, "[]")),
    "another model": (BASE, keys(BASE, model_type="evil")),
    "a model that is a number": (BASE, keys(BASE, model_type=5)),
    "unknown positions": (BASE, keys(BASE, rope_parameters={"rope_type": "evil"})),
    "positions in words": (BASE, keys(BASE, rope_parameters="x")),
    "a function of Python": (BASE, keys(BASE, hidden_act="os.system")),
    "a function that is a number": (BASE, keys(BASE, hidden_act=5)),
    "a width in words": (BASE, keys(BASE, hidden_size="x")),
    "a width of 10^6": (BASE, keys(BASE, hidden_size=10**6)),
    "a width of 0": (BASE, keys(BASE, hidden_size=0)),
    "10^9 layers": (BASE, keys(BASE, num_hidden_layers=10**9)),
    "10^4 layers": (BASE, keys(BASE, num_hidden_layers=10**4)),
    "10^8 heads": (BASE, keys(BASE, num_attention_heads=10**8)),
    "3 heads": ("config.json", keys(BASE, num_attention_heads=3)),
    "a vocabulary of 10^12": (BASE, keys(BASE, vocab_size=10**12)),
    "a vocabulary of 3": ("config.json", keys(BASE, vocab_size=3)),
    "an unknown number format": (BASE, keys(BASE, dtype="evil")),
    "compiled code of the Hub": (BASE, keys(BASE, _attn_implementation="evil/kernel:x")),
    "weights elsewhere": ("base", keys(BASE, transformers_weights="../../secret")),
    "settings that are a list": (GENERATION, content(GENERATION, "[]")),
    "an end in words": (GENERATION, keys(GENERATION, eos_token_id="y")),
    "an end of lists": (GENERATION, keys(GENERATION, eos_token_id=[[5]])),
    "a temperature in words": (GENERATION, keys(GENERATION, temperature="hot")),
    "10^5 beams": (GENERATION, keys(GENERATION, num_beams=10**5)),
    "a penalty below zero": (GENERATION, keys(GENERATION, repetition_penalty=-5)),
    "a length in words": (GENERATION, keys(GENERATION, min_length="a")),
    "words that are a number": (GENERATION, keys(GENERATION, bad_words_ids=5)),
    "an early exit": (GENERATION, keys(GENERATION, assistant_early_exit=10**9)),
    "an unknown cache": (GENERATION, keys(GENERATION, cache_implementation="evil")),
    "a tokenizer that is a list": (TOKENIZER, content(TOKENIZER, "[]")),
    "a deep tokenizer": (TOKENIZER, content(TOKENIZER, "[" * 10**5)),
    "a tokenizer of zeros": (TOKENIZER, content(TOKENIZER, b"\0" * 9)),
    "a tokenizer without a model": (TOKENIZER, content(TOKENIZER, '{"version": "1.0"}')),
    "an unknown tokenizer": (TOKENIZER, keys(TOKENIZER, model={"type": "Evil"})),
    "a tokenizer's settings that are a list": (SPECIAL, content(SPECIAL, "[]")),
    "a special token of a list": (SPECIAL, keys(SPECIAL, eos_token=[5])),
    "added tokens in words": (SPECIAL, keys(SPECIAL, added_tokens_decoder={"x": 5})),
    "a side that is none": (SPECIAL, keys(SPECIAL, padding_side="up")),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_configuration_is_refused(run, name):
    file, change = FILES[name]
    change(run)
    line = assert_refused("ask", run, "hi", "--offline")
    assert file in line and not Path("ran-code").exists()
