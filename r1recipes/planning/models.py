"""The shapes of published and built-in models, each with its source, and what follows from them.

Limits: dense decoders only (grouped-query attention, gated MLP, RMSNorm). A model is known by its
Hub id, not by its files: a fine-tune under another name is unknown.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

from r1recipes.algorithms.base import LoadIn
from r1recipes.recipe import references
from r1recipes.recipe.schema import BUILTIN_MODELS

CPU_PARAMETERS = 0.4e9
"""Weights of the largest model that a CPU is said to train: SmolLM2 135M takes minutes for 10 steps
on 2 cores (docs/cpu.md), and time grows with the weights; assumed."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""A weight in NF4 with double quantisation (2305.14314, section 3): half a byte, a scale of one
byte for 64, a scale of those in 4 for 256 x 64."""


@dataclass(frozen=True)
class ModelShape:
    """The dimensions of a model as its config.json gives them. All counts are of scalars."""

    owner: str
    repositories: tuple[str, ...]
    """Names below `owner` on the Hub; the mirrors below `unsloth` carry the same ones."""
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool
    attention_bias: bool
    """q, k and v have a bias, o has none (Qwen2); False: none of them has one."""
    sliding_window: int | None = None
    """Tokens that attention looks back at most; None where there is no limit."""
    extra_parameters: int = 0
    """Parameters of a block beside two norms and those biases: further norms and biases."""
    capped_attention: bool = False
    """Attention scores are capped (Gemma 2), so training computes and keeps all of them."""
    fused_mlp: bool = True
    """Unsloth has a fused kernel that trains the MLP."""
    windowed_layers: int = 0
    """Layers that look back `window` tokens only, where others keep whole sequences (Gemma 3)."""
    window: int | None = None
    model_type: str | None = None
    """Its family, in `architectures.families`; None: Qwen2 with biases, else Llama."""

    def __hash__(self) -> int:
        """Hash of the numbers that tell models apart; a search needs it 100,000 times."""
        return hash((self.hidden_size, self.intermediate_size, self.num_hidden_layers))

    @cached_property
    def projections(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each linear layer of one decoder block, by peft's names."""
        query = self.num_attention_heads * self.head_dim
        key = self.num_key_value_heads * self.head_dim
        hidden, inner = self.hidden_size, self.intermediate_size
        return {
            "q_proj": (hidden, query),
            "k_proj": (hidden, key),
            "v_proj": (hidden, key),
            "o_proj": (query, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @cached_property
    def linear_parameters(self) -> int:
        """Weights of all blocks' linear layers, the ones that are loaded in 4 bits or FP8."""
        return self.num_hidden_layers * sum(rows * cols for rows, cols in self.projections.values())

    @cached_property
    def embedding_parameters(self) -> int:
        """Token table, and the output head where it is not the same table."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    @cached_property
    def small_parameters(self) -> int:
        """Norms (two a block and the last one), biases, and `extra_parameters`."""
        query, key = (self.projections[name][1] for name in ("q_proj", "k_proj"))
        bias = query + 2 * key if self.attention_bias else 0
        block = 2 * self.hidden_size + bias + self.extra_parameters
        return self.num_hidden_layers * block + self.hidden_size

    @cached_property
    def parameters(self) -> int:
        """All parameters. Derived; equals the published safetensors total of every row."""
        return self.linear_parameters + self.embedding_parameters + self.small_parameters

    @property
    def family(self) -> str:
        """Its `model_type`."""
        return self.model_type or ("qwen2" if self.attention_bias else "llama")

    @cached_property
    def layer_kv_bytes(self) -> int:
        """KV cache of one token and layer in 16 bits: a key and a value for each head."""
        return 4 * self.num_key_value_heads * self.head_dim

    @cached_property
    def kv_layers(self) -> int:
        """Layers that vLLM has a KV cache for: it groups them by whether they have a window, in
        groups of one size, and fills the last group of each kind up
        (vllm/v1/core/kv_cache_utils.py, _get_kv_cache_groups_uniform_page_size)."""
        windowed, whole = self.windowed_layers, self.num_hidden_layers - self.windowed_layers
        if not windowed or not whole:
            return self.num_hidden_layers
        small, large = sorted((windowed, whole))
        size = large if large < 1.5 * small else small
        return (-(-windowed // size) + -(-whole // size)) * size

    @cached_property
    def kv_token_bytes(self) -> int:
        """KV cache of one token in 16 bits, in all layers: within a window none keeps less."""
        return self.kv_layers * self.layer_kv_bytes


@lru_cache(maxsize=256)
def weights_bytes(shape: ModelShape, load_in: LoadIn) -> int:
    """Bytes of all weights in 16 bits, or with the linear layers of the blocks in NF4 or FP8.

    FP8 has a byte for each weight, and a scale in 32 bits for each output channel of a layer
    (vllm, compressed_tensors_w8a8_fp8.py). Engine and training share them.
    """
    rest = 2 * (shape.embedding_parameters + shape.small_parameters)
    each = {"4bit": NF4_BYTES, "fp8": 1, "16bit": 2}[load_in]
    channels = sum(outputs for _, outputs in shape.projections.values())
    scales = 4 * shape.num_hidden_layers * channels if load_in == "fp8" else 0
    return round(shape.linear_parameters * each) + scales + rest


def whole_weight_bytes(name: str, dtype: str) -> int:
    """Bytes of a weight where all weights of a model are trained or merged: 32 bits on a card
    without bfloat16 and for a built-in model, else 16."""
    return 4 if dtype != "bfloat16" or name in BUILTIN else 2


@lru_cache(maxsize=1024)
def adapter_parameters(shape: ModelShape, rank: int, targets: tuple[str, ...]) -> int:
    """Parameters of a LoRA adapter: two matrices of its rank for each target of each layer."""
    widths = sum(sum(shape.projections[name]) for name in targets)
    return shape.num_hidden_layers * rank * widths


def _qwen(
    size: str, hidden: int, inner: int, layers: int, heads: int, kv: int, vocab: int, tied: bool
) -> ModelShape:
    # config.json of Qwen/Qwen2.5-<size> and its Coder (published); head_dim is hidden / heads.
    lines = (f"Qwen2.5-{size}", f"Qwen2.5-Coder-{size}")
    names = tuple(name + variant for name in lines for variant in ("", "-Instruct"))
    dim = hidden // heads
    return ModelShape("Qwen", names, hidden, inner, layers, heads, kv, dim, vocab, tied, True)


def _qwen3(
    size: str, hidden: int, inner: int, layers: int, heads: int, tied: bool, *others: str
) -> ModelShape:
    # config.json of Qwen/Qwen3-<size> (published); queries and keys have a norm for all heads.
    names = (f"Qwen3-{size}", f"Qwen3-{size}-Base", *others)
    dims = (hidden, inner, layers, heads, 8, 128, 151936)
    return ModelShape(
        "Qwen", names, *dims, tied, False, extra_parameters=2 * 128, model_type="qwen3"
    )


MODELS: dict[str, ModelShape] = {
    "qwen2.5-0.5b": _qwen("0.5B", 896, 4864, 24, 14, 2, 151936, True),
    "qwen2.5-1.5b": _qwen("1.5B", 1536, 8960, 28, 12, 2, 151936, True),
    "qwen2.5-3b": _qwen("3B", 2048, 11008, 36, 16, 2, 151936, True),
    "qwen2.5-7b": _qwen("7B", 3584, 18944, 28, 28, 4, 152064, False),
    "qwen2.5-14b": _qwen("14B", 5120, 13824, 48, 40, 8, 152064, False),
    "qwen3-0.6b": _qwen3("0.6B", 1024, 3072, 28, 16, True),
    "qwen3-1.7b": _qwen3("1.7B", 2048, 6144, 28, 16, True),
    "qwen3-4b": _qwen3(
        *("4B", 2560, 9728, 36, 32, True),
        *("Qwen3-4B-Instruct-2507", "Qwen3-4B-Thinking-2507"),
    ),
    "qwen3-8b": _qwen3("8B", 4096, 12288, 36, 32, False),
    "qwen3-14b": _qwen3("14B", 5120, 17408, 40, 40, False),
    # config.json of meta-llama/Llama-3.1-8B (published)
    "llama-3.1-8b": ModelShape(
        "meta-llama",
        (
            "Llama-3.1-8B",
            "Llama-3.1-8B-Instruct",
            "Meta-Llama-3.1-8B",
            "Meta-Llama-3.1-8B-Instruct",
        ),
        *(4096, 14336, 32, 32, 8, 128, 128256),
        tie_word_embeddings=False,
        attention_bias=False,
    ),
    # config.json of meta-llama/Llama-3.2-1B-Instruct at 4e20de36 (published)
    "llama-3.2-1b": ModelShape(
        "meta-llama",
        ("Llama-3.2-1B", "Llama-3.2-1B-Instruct"),
        *(2048, 8192, 16, 32, 8, 64, 128256),
        tie_word_embeddings=True,
        attention_bias=False,
    ),
    # config.json of meta-llama/Llama-3.2-3B (published)
    "llama-3.2-3b": ModelShape(
        "meta-llama",
        ("Llama-3.2-3B", "Llama-3.2-3B-Instruct"),
        *(3072, 8192, 28, 24, 8, 128, 128256),
        tie_word_embeddings=True,
        attention_bias=False,
    ),
    # config.json of meta-llama/Llama-3.3-70B-Instruct (published)
    "llama-3.3-70b": ModelShape(
        "meta-llama",
        ("Llama-3.3-70B-Instruct",),
        *(8192, 28672, 80, 64, 8, 128, 128256),
        tie_word_embeddings=False,
        attention_bias=False,
    ),
    # config.json of google/gemma-3-1b-it (published). Four norms of a block and one each for
    # queries and keys; every sixth layer keeps whole sequences. Larger ones also see.
    "gemma-3-1b": ModelShape(
        "google",
        ("gemma-3-1b-it", "gemma-3-1b-pt"),
        *(1152, 6912, 26, 4, 1, 256, 262144),
        tie_word_embeddings=True,
        attention_bias=False,
        extra_parameters=2 * 1152 + 2 * 256,
        fused_mlp=False,
        windowed_layers=22,
        window=512,
        model_type="gemma3_text",
    ),
    # config.json of HuggingFaceTB/SmolLM2-135M-Instruct (published)
    "smollm2-135m": ModelShape(
        "HuggingFaceTB",
        ("SmolLM2-135M", "SmolLM2-135M-Instruct"),
        *(576, 1536, 30, 9, 3, 64, 49152),
        tie_word_embeddings=True,
        attention_bias=False,
    ),
    # config.json of mistralai/Mistral-7B-Instruct-v0.3 (published)
    "mistral-7b-v0.3": ModelShape(
        "mistralai",
        ("Mistral-7B-v0.3", "Mistral-7B-Instruct-v0.3"),
        *(4096, 14336, 32, 32, 8, 128, 32768),
        tie_word_embeddings=False,
        attention_bias=False,
    ),
    # config.json of microsoft/phi-4 (published). It fuses q, k, v and gate, up; unsloth/phi-4
    # splits them into Llama's layers, which changes names and no count.
    "phi-4": ModelShape(
        "microsoft",
        ("phi-4",),
        *(5120, 17920, 40, 40, 10, 128, 100352),
        tie_word_embeddings=False,
        attention_bias=False,
    ),
}


def _builtin(layers: int, hidden: int, inner: int, heads: int) -> ModelShape:
    dims = (hidden, inner, layers, heads, heads, hidden // heads, 106)
    return ModelShape("builtin", (), *dims, tie_word_embeddings=True, attention_bias=True)


_TINY, _SMALL = BUILTIN_MODELS
BUILTIN: dict[str, ModelShape] = {
    # Chosen by trial, 2026-11: 907,200 parameters learn two-digit sums in 500 cold-start steps of
    # 32. Few layers, assumed cheaper for each generated token: 3 of 160 were not measurably slower.
    _TINY: _builtin(2, 192, 512, 6),
    # 25M parameters, for a GPU; heads of 64, which every attention kernel of vLLM knows.
    _SMALL: _builtin(8, 512, 1376, 8),
}
"""Models that are built on the spot; a character is a token."""


def find(name: str) -> ModelShape | None:
    """The shape behind a Hub id such as `unsloth/phi-4-unsloth-bnb-4bit`, or None if unknown."""
    owner, slash, repository = name.lower().partition("/")
    plain = references.without_4bit(repository)
    for shape in MODELS.values():
        if slash and owner in (shape.owner.lower(), "unsloth"):
            if plain in (repository.lower() for repository in shape.repositories):
                return shape
    return None
