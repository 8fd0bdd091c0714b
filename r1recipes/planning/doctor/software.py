"""Texts of errors that are about numbers, kernels, tokenizers, the engine or settings: the cause,
and its mend.

The texts were read in threads of vLLM, Unsloth, TRL, torch, Triton and bitsandbytes;
tests/fixtures/error_texts.jsonl has them with their sources. Limits: English messages; what is
about the machine is `texts`'s.
"""

from typing import Literal

from r1recipes.planning.doctor.words import AGAIN, DOCTOR, Tell, Words

SoftwareSubject = Literal[
    "numbers",
    "index",
    "kernel fault",
    "processor memory",
    "precision",
    "bitsandbytes",
    "engine",
    "unknown model",
    "length",
    "tokenizer",
    "fork",
    "setting",
]


def _numbers() -> Words:
    text = "the model's output is no longer a number: training has diverged, or float16 overflows"
    return text, "lower `train.learning_rate` or `train.max_grad_norm`"


def _index() -> Words:
    text = (
        "an index lies outside its table, most often a token for which the model has no embedding"
    )
    return text, f"CUDA_LAUNCH_BLOCKING=1 {AGAIN}  # names the operation"


def _kernel() -> Words:
    text = (
        "a kernel failed on the card: a fault of a library, of the driver, or, where the kernel "
        "log has an Xid, of the card"
    )
    return text, f"CUDA_LAUNCH_BLOCKING=1 {AGAIN}  # names the operation"


def _watchdog() -> Words:
    text = "the card also drives a display, whose watchdog ends long kernels"
    return text, f"{AGAIN}  # with the display on another card, or without one"


def _processor() -> Words:
    text = (
        "a Triton kernel needs more of a processor's own shared memory than this card has, which "
        "no setting of memory changes"
    )
    return text, "name a model with smaller attention heads, or a newer card"


def _too_old_for() -> Words:
    text = "this card has no kernels for the number format: bfloat16 needs compute capability 8.0"
    return text, "leave out `dtype`, `kv_cache_dtype` and the attention that was set"


def _two_precisions() -> Words:
    text = "layers in two precisions meet, as where versions of packages do not fit one another"
    return text, DOCTOR


def _bitsandbytes() -> Words:
    text = "bitsandbytes has no library for torch's CUDA, or cannot load it"
    return text, "python -m bitsandbytes  # says which one it looked for"


def _engine() -> Words:
    return "the engine ended in a process of its own, and the log says why", DOCTOR


def _unknown_model() -> Words:
    text = "vLLM has no class for the architecture of the model"
    return text, "name a model of a family in docs/models.md"


def _length() -> Words:
    text = "a sequence is longer than the engine or the model takes"
    return text, "lower `max_seq_length` of the preset, or shorten the prompts"


def _sentencepiece() -> Words:
    text = "the tokenizer is in a format for which sentencepiece or tiktoken is missing"
    return text, "python -m pip install sentencepiece tiktoken protobuf"


def _newer_tokenizer() -> Words:
    text = "the tokenizer was saved by a newer transformers or tokenizers than is installed"
    return text, DOCTOR


def _tokenizer() -> Words:
    text = "the tokenizer lacks a token to pad with, or a chat template"
    return text, "set `model.chat_template`, or name an instruct model of the same family"


def _fork() -> Words:
    text = "a process was forked after CUDA was in use, as by a reward that starts processes"
    return text, f"VLLM_WORKER_MULTIPROC_METHOD=spawn {AGAIN}"


def _segments() -> Words:
    text = "PYTORCH_CUDA_ALLOC_CONF has expandable_segments, which standby does not allow"
    return text, f"env -u PYTORCH_CUDA_ALLOC_CONF -u PYTORCH_ALLOC_CONF {AGAIN}"


def _lost_segments() -> Words:
    text = "torch's allocator lost count of its expandable segments, most often on a full card"
    return text, f"env -u PYTORCH_CUDA_ALLOC_CONF -u PYTORCH_ALLOC_CONF {AGAIN}"


def _nameless() -> Words:
    text = "this container runs as a user without a name, which torch asks for its cache"
    return text, f"USER=me LOGNAME=me TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor {AGAIN}"


def _template() -> Words:
    text = "the chat template does not take these messages, most often the one of the system"
    return text, "leave out `prompt.system`, or name an instruct model of the same family"


PATTERNS: tuple[tuple[SoftwareSubject, str, Tell], ...] = (
    (
        "numbers",
        r"probability tensor contains either|NaN or Inf found in input tensor|"
        r"non-finite|Minimum loss scale reached|found inf or nan",
        _numbers,
    ),
    (
        "index",
        r"device-side assert|srcIndex < srcSelectDimSize|index out of bounds.* failed|"
        r"is out of vocabulary|piece id is out of range|Assertion `[^`]*(?:idx|index|"
        r"t >= 0)[^`]*` failed",
        _index,
    ),
    ("kernel fault", r"launch timed out and was terminated|cudaErrorLaunchTimeout", _watchdog),
    (
        "kernel fault",
        r"illegal memory access|misaligned address|illegal instruction|invalid program counter|"
        r"invalid configuration argument|invalid resource handle|global/shared address space|"
        r"unspecified launch failure|STATUS_(?:EXECUTION_FAILED|MAPPING_ERROR|"
        r"INTERNAL_ERROR(?!.*Create))|cudaError(?:IllegalAddress|LaunchFailure|MisalignedAddress)|"
        r"CUDA_ERROR_LAUNCH_FAILED|CUDA_ERROR_ILLEGAL_(?:ADDRESS|INSTRUCTION)|CUDA exception: Warp",
        _kernel,
    ),
    (
        "processor memory",
        r"(?<!_)[Oo]ut ?[Oo]f ?[Rr]esources?\b|too many resources requested|"
        r"No valid triton configs",
        _processor,
    ),
    (
        "precision",
        r"(?i:bfloat16|bf16)\S* (?:is )?(?:only supported|not supported)|doesn't support bf16|"
        r"only supports? Ampere|fp8e\w+ not supported|not supported for the current GPU|"
        r"[Mm]inimum (?:compute )?capability|CUBLAS\w*_STATUS_NOT_SUPPORTED",
        _too_old_for,
    ),
    (
        "precision",
        r"expected scalar type \w+ but found \w+|must have the same dtype|"
        r"expected m1 and m2 to have the same dtype|should be the same dtype",
        _two_precisions,
    ),
    (
        "bitsandbytes",
        r"(?i:cuda setup\b)|[Cc]ould not (?:load|find) (?:the )?bitsandbytes|"
        r"Required library version not found|(?:CUDA|ROCm) VERSION MISMATCH|SETUP ERROR: Missing|"
        r"Attempted to use bitsandbytes|CPU-only (?:version of )?bitsandbytes|"
        r"bitsandbytes (?:library load error|was compiled without)|No compatible \w+ binary|"
        r"8-bit optimizer is not|(?:No module named|cannot import name '\w+' from|"
        r"metadata was found for) '?bitsandbytes|symbol not found at line \d+ in file|"
        r"Configured \w+ binary not found|libbitsandbytes|no attribute '[cC]\w*(?:blockwise|"
        r"managed_ptr|gemm|8bit)\w*'|'str2optimizer\w+' is not defined|"
        r"requires? (?:the latest version of )?bitsandbytes",
        _bitsandbytes,
    ),
    (
        "fork",
        r"Cannot re-initialize CUDA in forked subprocess|before the current process has finished "
        r"its bootstrapping phase",
        _fork,
    ),
    (
        "setting",
        r"Expandable segments are not compatible|standby mode cannot start because|"
        r"expandable_segments\S* (?:is |are )?not (?:compatible|supported)",
        _segments,
    ),
    ("setting", r"(?:expandable_segment_?|handles_\.at\(i\)) INTERNAL ASSERT", _lost_segments),
    ("setting", r"getpwuid\(\): uid not found", _nameless),
    (
        "length",
        r"longer than the maximum model length|greater than the derived max_model_len|"
        r"maximum context length is|too long and exceeds limit|exceeds? (?:the )?max_model_len",
        _length,
    ),
    (
        "unknown model",
        r"Model architectures .* (?:are not supported|failed to be inspected)|"
        r"No model architectures are specified|has no vLLM implementation",
        _unknown_model,
    ),
    (
        "tokenizer",
        r"instantiate the backend tokenizer|requires? the (?:SentencePiece|tiktoken|protobuf) lib|"
        r"(?:sentencepiece|tiktoken)` is required|No module named '(?:sentencepiece|tiktoken)",
        _sentencepiece,
    ),
    (
        "tokenizer",
        r"Tokenizer class \w+ does not exist|untagged enum \w+",
        _newer_tokenizer,
    ),
    (
        "tokenizer",
        r"valid pad token|does not have a (?:pad|padding) token|chat_template is not set|"
        r"no (?:padding|pad) token is (?:defined|set)|pad_token(?:_id)?`? (?:is|was) (?:not set|"
        r"None|not defined)|no chat template|chat template is not (?:set|defined)|"
        r"Asking to pad but|(?:no|lacks a|without a|missing) (?:pad|padding)[ _]token|"
        r"pad(?:ding)?[ _]token (?:is )?(?:missing|required)|'padding_value' .* NoneType",
        _tokenizer,
    ),
    (
        "tokenizer",
        r"roles must alternate|[Ss]ystem role (?:is )?not supported|jinja2\.exceptions|"
        r"Template(?:Syntax)?Error",
        _template,
    ),
)
"""Subject, pattern and words, in the order in which they are tried."""
ENGINE = (
    r"[Ee]ngine core initialization failed|EngineCore encountered an issue|EngineDeadError|"
    r"Engine process failed to start|EngineCore failed to start|WorkerProc (?:initialization "
    r"failed|hit an exception)|vllm_process failed to load|"
    r"(?:[Ee]ngine|EngineCore|[Ww]orker)\S* (?:proc\w* )?(?:\S+ )?(?:has |is |was |unexpectedly )?"
    r"(?:died|dead|gone|crashed|terminated|exited|shut ?down)\b|"
    r"Background loop (?:has errored|is stopped)|AsyncEngineDead|MQEngineDead|"
    r"Engine loop (?:has died|is not running)"
)
"""Message of vLLM where its own process ended: the cause stands in the log."""
FIRST: tuple[tuple[SoftwareSubject, str, Tell], ...] = (
    ("engine", r"There are some potential root causes", _engine),
)
"""Message of Ray that lists what may have been, and is no word on what was."""
LAST: tuple[tuple[SoftwareSubject, str, Tell], ...] = (
    ("engine", ENGINE, _engine),
    (
        "bitsandbytes",
        r"(?i:bitsandbytes.{0,80}(?:librar|fail|binary|import|version|install|compil|not avail))",
        _bitsandbytes,
    ),
    (
        "tokenizer",
        r"(?i:\bnot (?:configured with|have|set|define|specify) (?:a |any |the )?pad(?:ding)?[ _]"
        r"token|\bto pad\b.{0,60}tokenizer.{0,60}\bnot\b)",
        _tokenizer,
    ),
)
"""What is tried last: that a cause stands elsewhere, and words that tell the field alone."""
