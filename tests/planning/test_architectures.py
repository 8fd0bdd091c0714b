"""Shapes of models from config.json: local folders, a server like the Hub's, its cache."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from r1recipes.errors import PlanError
from r1recipes.planning import architectures, models
from tests.configs import LLAMA
from tests.helpers import hint

NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True}


def folder(tmp_path: Path, **config) -> str:
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    return "model"


def find(tmp_path: Path, **config) -> architectures.Checkpoint:
    return architectures.find(folder(tmp_path, **config), tmp_path, offline=True)


def test_a_local_folder_has_the_catalogues_shape(tmp_path):
    checkpoint, published = find(tmp_path, **LLAMA), models.MODELS["llama-3.1-8b"]
    assert checkpoint.shape.projections == published.projections and not checkpoint.quantised
    assert checkpoint.shape.parameters == published.parameters


@pytest.mark.parametrize("name", ["model/tmp", "mdoel/tmpl", "model/tmpll"])
def test_a_slip_in_a_folders_name_is_pointed_to_the_folder(tmp_path, name):
    (tmp_path / "model" / "tmpl").mkdir(parents=True)
    (tmp_path / "model" / "tmpl" / "config.json").write_text(json.dumps(LLAMA))
    with pytest.raises(architectures.Unreachable) as raised:
        architectures.find(name, tmp_path, offline=True)
    assert "did you mean the folder `model/tmpl`?" in hint(raised)


def test_what_config_leaves_out_has_the_families_meaning(tmp_path):
    qwen = find(tmp_path, **LLAMA | {"model_type": "qwen2", "num_key_value_heads": None}).shape
    assert qwen.attention_bias and qwen.num_key_value_heads == 32 and qwen.head_dim == 128
    wide = find(tmp_path, **LLAMA | {"model_type": "qwen3", "head_dim": 256}).shape
    assert wide.head_dim == 256 and not wide.attention_bias
    assert wide.projections["q_proj"] == (4096, 8192)


def test_a_sliding_window_counts_where_it_is_used(tmp_path):
    window = LLAMA | {"sliding_window": 4096}
    assert find(tmp_path, **window | {"model_type": "mistral"}).shape.sliding_window == 4096
    for some_layers in ("qwen2", "gemma2", "gemma3_text"):
        assert find(tmp_path, **window | {"model_type": some_layers}).shape.sliding_window is None
    null = LLAMA | {"model_type": "mistral", "sliding_window": None}
    assert find(tmp_path, **null).shape.sliding_window is None


def test_a_4_bit_checkpoint_is_recognised(tmp_path):
    assert find(tmp_path, **LLAMA | {"quantization_config": NF4}).quantised
    assert architectures.find("unsloth/phi-4-unsloth-bnb-4bit", tmp_path, offline=True).quantised
    assert not find(tmp_path, **LLAMA | {"quantization_config": None}).quantised


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes in 8 bits"),
        ({"bits": 4}, "an unknown method"),
        ("awq", "an unknown method"),
    ],
)
def test_another_quantisation_is_refused_by_name(tmp_path, config, words):
    with pytest.raises(PlanError, match=f"quantised with {words}, which cannot") as raised:
        find(tmp_path, **LLAMA | {"quantization_config": config})
    assert "16-bit" in hint(raised)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "mixtral", "num_local_experts": 8}, "mixture of experts (mixtral)"),
        ({"model_type": "qwen3_moe", "num_experts": 128}, "mixture of experts (qwen3_moe)"),
        ({"model_type": "deepseek_v3", "n_routed_experts": 256}, "mixture of experts (deepseek_v3"),
        ({"model_type": "mllama", "text_config": {}}, "more than text (mllama)"),
        ({"model_type": "gemma3", "text_config": LLAMA}, "more than text (gemma3)"),
        ({"model_type": "qwen2_5_vl", "vision_config": {}}, "more than text (qwen2_5_vl)"),
        ({"model_type": "llama", "vision_config": {}}, "more than text (llama)"),
        ({"model_type": "mamba"}, "unknown architecture `mamba`"),
        ({"model_type": "falcon_h1"}, "unknown architecture `falcon_h1`"),
        ({"model_type": "bert"}, "unknown architecture `bert`"),
        ({"model_type": ["llama"]}, "unknown architecture"),
        ({"model_type": 7}, "unknown architecture `7`"),
        ({"model_type": None}, "config.json of `model` has no `model_type`"),
        ({}, "config.json of `model` has no `model_type`"),
        ({"num_experts": 8}, "`model` is a mixture of experts, which is not supported"),
        ({"vision_config": {}}, "`model` takes more than text, which is not supported"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path, config, words):
    without = {key: value for key, value in LLAMA.items() if key != "model_type"}
    with pytest.raises(PlanError) as raised:
        find(tmp_path, **without | config)
    assert words in str(raised.value) and raised.value.problems[0].hint


@pytest.mark.parametrize(
    ("config", "words", "advice"),
    [
        ({"model_type": "gemma3", "text_config": LLAMA}, "more than text", "a `gemma3_text`"),
        ({"model_type": "mistral3", "text_config": LLAMA}, "more than text", "a `ministral3`"),
        ({"model_type": "qwen3_5", "text_config": LLAMA}, "gated delta nets", "supported are"),
        ({"model_type": "qwen3_5_text"}, "no class for its text part", "supported are"),
        ({"model_type": "gemma4", "text_config": LLAMA}, "differ from one another", "supported"),
        ({"model_type": "gemma4_text"}, "differ from one another", "supported are"),
        ({"model_type": "gpt_oss", "num_local_experts": 32}, "does not share", "supported are"),
        ({"model_type": "lfm2"}, "convolutions", "supported are"),
    ],
)
def test_well_known_models_are_refused_with_the_reason(tmp_path, config, words, advice):
    with pytest.raises(architectures.Refused, match=words) as raised:
        find(tmp_path, **LLAMA | config)
    assert advice in hint(raised)


def test_layers_with_a_window_share_blocks_of_the_kv_cache_in_groups(tmp_path):
    """26 layers of Gemma 3 1B: 22 with a window and 4 without are seven groups of 4."""
    assert models.MODELS["gemma-3-1b"].kv_layers == 28
    assert models.MODELS["gemma-3-1b"].kv_token_bytes == 28 * 2 * 2 * 256
    window = LLAMA | {"model_type": "gemma3_text", "sliding_window": 512, "head_dim": 128}
    for layers, every, groups in ((32, 6, 35), (36, 6, 36), (32, 2, 32), (32, 1, 32), (32, 64, 32)):
        config = window | {"num_hidden_layers": layers, "sliding_window_pattern": every}
        assert find(tmp_path, **config).shape.kv_layers == groups
    listed = ["sliding_attention"] * 17 + ["full_attention"] * 15  # nearly as many: one group each
    assert find(tmp_path, **window | {"layer_types": listed}).shape.kv_layers == 34


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "x"),
        ("hidden_size", True),
        ("vocab_size", 0),
        ("num_hidden_layers", None),
        ("intermediate_size", [14336, 14336]),
        ("num_attention_heads", 32.0),
        ("num_key_value_heads", "8"),
        ("head_dim", -128),
        ("num_hidden_layers", 10**400),
    ],
)
def test_a_number_that_is_none_is_named(tmp_path, key, value):
    with pytest.raises(PlanError, match=f"config.json of `model` has .* `{key}`"):
        find(tmp_path, **LLAMA | {key: value})


def test_a_damaged_config_is_named(tmp_path):
    path = tmp_path / folder(tmp_path) / "config.json"
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(PlanError, match="is not JSON"):
            architectures.find("model", tmp_path, offline=True)
    path.write_text("[]")
    with pytest.raises(PlanError, match="is not a model's configuration"):
        architectures.find("model", tmp_path, offline=True)
    path.unlink()
    with pytest.raises(PlanError, match="cannot be read"):
        architectures.find("model", tmp_path, offline=True)
    path.mkdir()
    with pytest.raises(PlanError, match="cannot be read"):
        architectures.find("model", tmp_path, offline=True)
    (tmp_path / "weights.gguf").write_bytes(b"")
    with pytest.raises(PlanError, match="`weights.gguf` is a file"):
        architectures.find("weights.gguf", tmp_path, offline=True)


class _Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does for one model, and 404 for the rest."""

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body: bool):
        known = self.path == "/someone/model/resolve/main/config.json"
        content = json.dumps(LLAMA).encode() if known else b"{}"
        self.send_response(200 if known else 404)
        if known:
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("ETag", '"b"')
        else:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def test_the_hubs_config_is_fetched_once_and_then_read_from_the_cache(tmp_path):
    """In a process of its own: the Hub's address is read when its library is imported."""
    server = HTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PATH": "",
    }

    def parameters(name: str, offline: bool) -> str:
        code = (
            "import sys; from pathlib import Path; from r1recipes.planning import architectures\n"
            "try: print(architectures.find(sys.argv[1], Path('.'), offline=sys.argv[2] == 'True')"
            ".shape.parameters)\n"
            "except Exception as error: print(type(error).__name__, error)\n"
        )
        command = [sys.executable, "-c", code, name, str(offline)]
        root = str(Path(architectures.__file__).parents[2])
        done = subprocess.run(
            command, env=environment | {"PYTHONPATH": root}, capture_output=True, text=True
        )
        return done.stdout.strip()

    unknown = parameters("someone/model", offline=True)
    assert unknown.startswith("Unreachable") and "offline" in unknown
    assert parameters("someone/model", offline=False) == "8030261248"
    missing = parameters("someone/nothing", offline=False)
    assert missing.startswith("PlanError") and "someone/nothing" in missing
    server.shutdown()
    server.server_close()
    assert parameters("someone/model", offline=True) == "8030261248"
    assert parameters("not a name", offline=False).startswith(
        "PlanError `not a name` is not a folder here, and is not a name on the Hub"
    )
