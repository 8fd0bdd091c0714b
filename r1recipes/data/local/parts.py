"""Reads the parts of a folder of a model or an adapter that tell a library what to load: JSON, and
the headers of safetensors.

A library takes a configuration for what it says: it reserves as many layers as a number names, and
raises whatever comes of a wrong type. Here both are looked at first, with the name of the file.
Limits: what an architecture does with its own keys is for the library, `training.backends.weights`.
"""

import errno
import json
import math
import re
from pathlib import Path
from typing import Any

from r1recipes.errors import RecipeError
from r1recipes.machine import hub
from r1recipes.machine.files import foreign

MAX_CONFIG_BYTES = 8 * 2**20
"""Bytes of a configuration; assumed: a tokenizer with thousands of added tokens has one MB."""
MAX_TOKENIZER_BYTES = 64 * 2**20
"""Bytes of tokenizer.json; assumed, that of 262,000 tokens has 33 MB."""
MAX_HEADER_BYTES = 16 * 2**20
"""Bytes of the header of a safetensors file. Assumed: 100,000 tensors have about 10 MB."""
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8,
    "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "C64": 64,
}  # fmt: skip
"""Type of a tensor -> bits of one of its numbers (safetensors 0.6, tensor.rs)."""
MAX_RANK = 65_536
"""Highest rank of a LoRA adapter; assumed, the width of a large model is less."""
HINT = "copy or download this file again"
_REPEATED_GROUP = re.compile(r"\)\s*(?:[*+]|\{)")
"""A group that is repeated: matching a name against two in each other may never end."""
_PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save")
_BY_PATTERN = ("rank_pattern", "alpha_pattern")


def damaged(path: Path, why: str) -> RecipeError:
    """The error about a file of a model or an adapter; its message names the file."""
    return RecipeError(f"`{path}` is damaged: {why}", hint=HINT)


def config(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The object in a configuration; empty where there is none. Raises: RecipeError."""
    try:
        size = foreign.plain_size(path)
        foreign.refuse_beyond(size, limit, "bytes", path)
        return foreign.an_object(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        why = str(error.strerror or error)
        raise RecipeError(f"`{path}` cannot be read: {why}", hint=HINT) from error
    except foreign.Damaged as error:
        raise damaged(path, str(error)) from error


def refuse_damaged(folder: Path) -> None:
    """Raises: RecipeError for a tokenizer that is no JSON, an adapter's configuration with wrong
    types, or weights whose header does not say where its tensors are."""
    config(folder / "tokenizer.json", MAX_TOKENIZER_BYTES)
    num_stored = sum(num_elements(path) for path in sorted(folder.glob("*.safetensors")))
    if (folder / hub.ADAPTER).is_file():
        _check_adapter(folder / hub.ADAPTER)
    elif num_stored:
        _check_sizes(config(folder / "config.json"), folder / "config.json", num_stored)


def num_elements(path: Path) -> int:
    """Numbers in a safetensors file, each of 4 bits or more counted once.

    Raises: RecipeError for a file whose header is not as safetensors 0.6 writes it.
    """
    return sum(math.prod(tensor["shape"]) for tensor in header(path).values())


def header(path: Path) -> dict[str, dict[str, Any]]:
    """Name of a tensor -> `dtype`, `shape`, `data_offsets`. Raises: RecipeError."""
    try:
        size = foreign.plain_size(path)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                message = f"its header has {length:,} bytes" if size >= 8 else "it has no header"
                raise damaged(path, f"{message}, and the file {size:,}")
            foreign.refuse_beyond(length, MAX_HEADER_BYTES, "bytes of header", path)
            tensors = foreign.an_object(file.read(length))
    except OSError as error:
        why = error.strerror if error.errno != errno.EINVAL else "it is not a plain file"
        raise RecipeError(f"`{path}` cannot be read: {why}", hint=HINT) from error
    except foreign.Damaged as error:
        raise damaged(path, f"its header: {error}") from error
    tensors.pop("__metadata__", None)
    _check_places(path, tensors, size - 8 - length)
    return tensors


def refuse_other_weights(folder: Path, shapes: dict[str, list[int]]) -> None:
    """Raises: RecipeError where the weights in a folder are not those of a model whose parameters
    have these shapes.

    Names may be others: transformers renames and joins tensors when it loads them.
    """
    files = sorted(folder.glob("*.safetensors"))
    stored = {name: entry["shape"] for path in files for name, entry in header(path).items()}
    path, num_stored = folder / "config.json", sum(map(math.prod, stored.values()))
    needed, packed = sum(map(math.prod, shapes.values())), "quantization_config" in config(path)
    if files and needed > (_PACKED if packed else 1) * num_stored:
        raise damaged(path, f"it describes {needed:,} weights, and the folder has {num_stored:,}")
    for name, shape in shapes.items():
        if not packed and stored.get(name, shape) != shape:
            message = f"by it `{name}` has the shape {shape}, and in the folder {stored[name]}"
            raise damaged(path, message)


def _check_places(path: Path, tensors: dict[str, Any], num_bytes: int) -> None:
    """Raises: RecipeError for tensors that do not lie one after the other in `num_bytes`."""
    places = []
    for name, tensor in tensors.items():
        if fault := _tensor_fault(name, tensor):
            raise damaged(path, f"tensor `{name}` {fault}")
        places.append((*tensor["data_offsets"], name))
    end = 0
    for first, last, name in sorted(places):
        if first != end:
            raise damaged(path, f"tensor `{name}` begins at byte {first:,}, not at {end:,}")
        end = last
    if end != num_bytes:
        raise damaged(path, f"its tensors have {end:,} bytes, and the file has {num_bytes:,}")


def _tensor_fault(name: str, tensor: Any) -> str | None:
    """What is wrong with the entry of a tensor in a header."""
    if not name.isprintable():
        return "has a name with control characters"
    if not isinstance(tensor, dict):
        return "has no `dtype`, `shape` and `data_offsets`"
    if not isinstance(tensor.get("dtype"), str) or tensor["dtype"] not in BITS:
        return f"has the unknown `dtype` {json.dumps(tensor.get('dtype'))}"
    for key, length in (("shape", None), ("data_offsets", 2)):
        numbers = tensor.get(key)
        if not isinstance(numbers, list) or length not in (None, len(numbers)):
            return f"has no `{key}`"
        if not all(type(n) is int and 0 <= n < 2**48 for n in numbers) or len(numbers) > 16:
            return f"has a `{key}` that is not of whole numbers"
    first, last = tensor["data_offsets"]
    needed = math.prod(tensor["shape"]) * BITS[tensor["dtype"]]
    if (last - first) * 8 != needed:
        return f"has {last - first:,} bytes, and its `shape` needs {needed // 8:,}"
    return None


def _check_adapter(path: Path) -> None:
    """Raises: RecipeError for a LoRA adapter's configuration that PEFT cannot read, or whose
    patterns may take endless time."""
    data = config(path)
    rank = data.get("r", 8)
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise damaged(path, f"`r` must be a whole number from 1 to {MAX_RANK:,}")
    if data.get("layer_replication"):
        raise damaged(path, "`layer_replication` makes other layers than the base has")
    for key in ("lora_alpha", "lora_dropout"):
        if not isinstance(data.get(key, 0), int | float) or not abs(data.get(key, 0)) < 1e9:
            raise damaged(path, f"`{key}` must be a number")
    for key in _BY_PATTERN:
        table = data.get(key) or {}
        if not isinstance(table, dict) or not all(
            isinstance(value, int | float) and 0 < value <= MAX_RANK for value in table.values()
        ):
            raise damaged(path, f"`{key}` must have a number for each pattern")
    patterns = [(key, data.get(key) or []) for key in _PATTERNS]
    patterns += [(key, list(data.get(key) or {})) for key in _BY_PATTERN]
    for key, names in patterns:
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise damaged(path, f"`{key}` must be a text or a list of texts")
        for name in names:
            _check_pattern(path, key, name)


def _check_pattern(path: Path, key: str, pattern: str) -> None:
    if len(pattern) > 2000 or _REPEATED_GROUP.search(pattern):
        raise damaged(path, f"`{key}` has a pattern that repeats a group, or is too long")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise damaged(path, f"`{key}` has a pattern that is not valid: {error}") from error


_WIDTHS = ("hidden_size", "n_embd", "d_model", "vocab_size", "intermediate_size", "ffn_dim")
_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "num_attention_heads", "n_head",
           "num_key_value_heads", "head_dim", "num_experts", "num_local_experts",
           "n_routed_experts", "moe_intermediate_size")  # fmt: skip
"""Keys of a configuration by which the size of a model grows; each has a tensor of its length."""
_PACKED = 16
"""Numbers that are packed into one stored number at most: 2 bits in 32."""


def _check_sizes(data: dict[str, Any], path: Path, num_stored: int) -> None:
    """Raises: RecipeError for sizes of which the stored weights have not even one vector."""
    text = data.get("text_config")
    for table in (data, text if isinstance(text, dict) else {}):
        for key in (*_WIDTHS, *_COUNTS):
            value = table.get(key)
            if value is None or isinstance(value, list):  # of some, a number for each layer
                continue
            if type(value) is not int or value < 1:
                raise damaged(path, f"`{key}` must be a whole number above 0")
            if value > _PACKED * num_stored:
                message = f"`{key}` is {value:.0e}, and the weights have {num_stored:,} numbers"
                raise damaged(path, message)
