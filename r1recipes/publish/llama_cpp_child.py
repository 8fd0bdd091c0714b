"""The process that llama-cpp-python runs in: one JSON request on stdin, the answer on stdout.

{"do": "answer", "file", "prompts", "given", "folder", "num_tokens", "context"}
    -> [{"prompt": ids, "answer": ids}], and in `folder` the logits as 0.npy, 1.npy ...
{"do": "quantize", "source", "file", "type"} -> 0
"""

import ctypes
import json
import sys
from pathlib import Path
from typing import Any


def answer(
    file: str,
    prompts: list[str],
    given: list[list[int]],
    folder: str,
    num_tokens: int,
    context: int,
) -> list[dict[str, Any]]:
    """Greedy ids of each answer, with its end token if it came to one, and the logits at each
    position of an answer that is given, (tokens + 1, vocabulary)."""
    import numpy
    from llama_cpp import Llama

    model = Llama(file, n_ctx=context, n_batch=context, seed=0, logits_all=True, verbose=False)
    found = []
    for number, text in enumerate(prompts):
        # The text has the template's own beginning-of-sequence token, if any; none is added.
        ids = model.tokenize(text.encode(), add_bos=False, special=True)
        made: list[int] = []
        model.reset()
        for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
            made.append(token)
            if token == model.token_eos() or len(made) == num_tokens:
                break
        found.append({"prompt": ids, "answer": made})
        whole = ids + given[number]
        model.reset()
        model.eval(whole)
        numpy.save(Path(folder, f"{number}.npy"), model.scores[len(ids) - 1 : len(whole)])
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
