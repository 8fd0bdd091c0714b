"""The process that llama-cpp-python runs in: one JSON request on stdin, the answer on stdout.

{"do": "answer", "file", "prompts", "num_tokens", "context"} -> [{"prompt": ids, "answer": ids}]
{"do": "quantize", "source", "file", "type"}                 -> 0
"""

import ctypes
import json
import sys
from typing import Any


def answer(file: str, prompts: list[str], num_tokens: int, context: int) -> list[dict[str, Any]]:
    """Greedy ids of each answer, with its end token if it came to one."""
    from llama_cpp import Llama

    model = Llama(file, n_ctx=context, seed=0, verbose=False)
    found = []
    for text in prompts:
        # The text has the template's own beginning-of-sequence token, if any; none is added.
        ids = model.tokenize(text.encode(), add_bos=False, special=True)
        made: list[int] = []
        model.reset()
        for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
            made.append(token)
            if token == model.token_eos() or len(made) == num_tokens:
                break
        found.append({"prompt": ids, "answer": made})
    return found


def quantize(source: str, file: str, kind: int) -> int:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = kind
    code = llama_cpp.llama_model_quantize(source.encode(), file.encode(), ctypes.byref(params))
    if code:
        raise SystemExit(f"llama_model_quantize returned {code}")
    return code


def main() -> None:
    wanted = json.load(sys.stdin)
    if wanted.pop("do") == "answer":
        result: Any = answer(**wanted)
    else:
        result = quantize(wanted["source"], wanted["file"], wanted["type"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
