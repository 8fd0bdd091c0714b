"""Writes the built-in models as GGUF, with the `gguf` package.

llama.cpp's converter recognises tokenizers by a hash of their output, and does not know that of the
built-in models, which has one token for each character. This module writes a Qwen2 model with a
unigram tokenizer ("t5" in GGUF) whose pieces all have score 0: it splits text into characters in
exactly one way, and a character outside the vocabulary becomes <unk>. A sentencepiece BPE ("llama")
would throw there, since there are no byte tokens. Limits: several unknown characters in a row
become one <unk>, not one each.
"""

import json
from pathlib import Path
from typing import Any

SPACE = "\u2581"
"""How GGUF's unigram tokenizer writes a space."""


def write(merged: Path, file: Path, outtype: str) -> None:
    """A merged folder of a built-in model -> GGUF with its matrices in f16 or q8_0."""
    import gguf

    config = json.loads((merged / "config.json").read_text())
    writer = gguf.GGUFWriter(file, "qwen2")
    kinds = {"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("r1recipes")
    writer.add_file_type(kinds[outtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    _add_tokenizer(writer, merged)
    _add_tensors(writer, merged, config["num_hidden_layers"], outtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, merged: Path) -> None:
    from gguf import TokenType
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(merged, local_files_only=True)
    added, types = tokenizer.added_tokens_decoder, []
    words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    for number, word in enumerate(words):
        if word == tokenizer.unk_token:
            types.append(TokenType.UNKNOWN)
        elif number in added:
            types.append(TokenType.CONTROL if added[number].special else TokenType.USER_DEFINED)
        else:
            types.append(TokenType.NORMAL)
    writer.add_tokenizer_model("t5")
    writer.add_token_list([word.replace(" ", SPACE) for word in words])
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types(types)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)
    writer.add_chat_template(tokenizer.chat_template)


def _add_tensors(writer: Any, merged: Path, num_layers: int, outtype: str) -> None:
    """Add the weights under GGUF's names; vectors stay in 32 bits, as with the converter."""
    import gguf
    import numpy
    from safetensors.numpy import load_file

    kind = {"f16": gguf.GGMLQuantizationType.F16, "q8_0": gguf.GGMLQuantizationType.Q8_0}[outtype]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, num_layers)
    for path in sorted(merged.glob("*.safetensors")):
        for name, weight in load_file(path).items():
            target = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert target is not None, f"a built-in model has no tensor {name}"
            weight = weight.astype(numpy.float32)
            if weight.ndim == 1:
                writer.add_tensor(target, weight)
            else:
                writer.add_tensor(target, gguf.quants.quantize(weight, kind), raw_dtype=kind)
