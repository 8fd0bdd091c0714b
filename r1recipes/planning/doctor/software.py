"""Texts of errors that are about numbers, kernels, files, the network or packages: the cause, and
its mend.

The texts were read in threads of vLLM, Unsloth, TRL, torch, Triton, bitsandbytes, NCCL and the Hub;
tests/fixtures/error_texts.jsonl has them with their sources. Limits: English messages; what is
about the machine is `texts`'s.
"""

from collections.abc import Callable
from typing import Literal

from r1recipes.errors import command
from r1recipes.machine import host

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
    "damaged file",
    "access",
    "network",
    "disk",
    "cache folder",
    "process group",
    "fork",
    "setting",
]

Words = tuple[str, str]
_DOCTOR = command("doctor")
_AGAIN = command("run", "--resume")


def _numbers() -> Words:
    text = "the model's output is no longer a number: training has diverged, or float16 overflows"
    return text, "lower `train.learning_rate` or `train.max_grad_norm`"


def _index() -> Words:
    text = (
        "an index lies outside its table, most often a token for which the model has no embedding"
    )
    return text, f"CUDA_LAUNCH_BLOCKING=1 {_AGAIN}  # names the operation"


def _kernel() -> Words:
    text = (
        "a kernel failed on the card: a fault of a library, of the driver, or, where the kernel "
        "log has an Xid, of the card"
    )
    return text, f"CUDA_LAUNCH_BLOCKING=1 {_AGAIN}  # names the operation"


def _watchdog() -> Words:
    text = "the card also drives a display, whose watchdog ends long kernels"
    return text, f"{_AGAIN}  # with the display on another card, or without one"


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
    return text, _DOCTOR


def _bitsandbytes() -> Words:
    text = "bitsandbytes has no library for torch's CUDA, or cannot load it"
    return text, "python -m bitsandbytes  # says which one it looked for"


def _engine() -> Words:
    return "the engine ended in a process of its own, and the log says why", _DOCTOR


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
    return text, _DOCTOR


def _tokenizer() -> Words:
    text = "the tokenizer lacks a token to pad with, or a chat template"
    return text, "set `model.chat_template`, or name an instruct model of the same family"


def _damaged() -> Words:
    text = "a file of weights is damaged, was not downloaded whole, or is of another model"
    return text, "hf download MODEL --force-download"


def _access() -> Words:
    text = "the Hub refuses the repository: it is gated, private, or its name is wrong"
    return text, "hf auth login  # after its owner granted access on its page"


def _rate() -> Words:
    return "the Hub got too many requests from this address", "hf auth login  # allows more"


def _offline() -> Words:
    text = "a file is not in the Hub's cache, and HF_HUB_OFFLINE forbids to ask for it"
    return text, f"HF_HUB_OFFLINE=0 {_AGAIN}"


def _certificate() -> Words:
    text = "a proxy or an antivirus program answers with a certificate of its own"
    return text, f"SSL_CERT_FILE=/path/to/its/certificate.pem {_AGAIN}"


def _network() -> Words:
    if host.place() == "kaggle":
        text = "the notebook has no internet, which Kaggle gives to verified accounts"
        return text, "# Settings > Turn on internet, then run it again"
    text = "the network or the Hub did not answer, or broke off; what was downloaded stays"
    return text, "curl -sSI https://huggingface.co  # then start again"


def _disk() -> Words:
    return "a disk is full, over its quota, or cannot be written", "df -h . ~/.cache /tmp"


def _caches() -> Words:
    folders = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "VLLM_CACHE_ROOT")
    elsewhere = " ".join(f"{name}=/tmp/{name.lower()}" for name in folders)
    return "the folder of a compiler's cache cannot be written", f"{elsewhere} {_AGAIN}"


def _mount() -> Words:
    text = "a mounted disk, such as Google Drive or a network folder, is gone"
    return text, "mount it again, and keep `--run-dir` on a local disk"


def _group() -> Words:
    text = "NCCL or Gloo, through which even one process is set up, cannot connect to itself"
    if host.place() == "container":
        return text, "docker run --shm-size 8g --ipc host ..."
    return text, f"NCCL_DEBUG=INFO GLOO_SOCKET_IFNAME=lo VLLM_HOST_IP=127.0.0.1 {_AGAIN}"


def _fork() -> Words:
    text = "a process was forked after CUDA was in use, as by a reward that starts processes"
    return text, f"VLLM_WORKER_MULTIPROC_METHOD=spawn {_AGAIN}"


def _segments() -> Words:
    text = "PYTORCH_CUDA_ALLOC_CONF has expandable_segments, which standby does not allow"
    return text, f"env -u PYTORCH_CUDA_ALLOC_CONF -u PYTORCH_ALLOC_CONF {_AGAIN}"


def _nameless() -> Words:
    text = "this container runs as a user without a name, which torch asks for its cache"
    return text, f"USER=me LOGNAME=me TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor {_AGAIN}"


PATTERNS: tuple[tuple[SoftwareSubject, str, Callable[[], Words]], ...] = (
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
        r"unspecified launch failure|STATUS_(?:EXECUTION_FAILED|MAPPING_ERROR|"
        r"INTERNAL_ERROR(?!.*Create))|"
        r"cudaError(?:IllegalAddress|LaunchFailure|MisalignedAddress)|CUDA_ERROR_LAUNCH_FAILED|"
        r"CUDA_ERROR_ILLEGAL_(?:ADDRESS|INSTRUCTION)|CUDA exception: Warp",
        _kernel,
    ),
    (
        "processor memory",
        r"[Oo]ut of resources?: (?:shared memory|threads|tensor memory|triton_|\w+_)|"
        r"No valid triton configs",
        _processor,
    ),
    (
        "precision",
        r"(?i:bfloat16|bf16)\S* (?:is )?(?:only supported|not supported)|doesn't support bf16|"
        r"only supports? Ampere|fp8e\w+ not supported|not supported for the current GPU|"
        r"[Mm]inimum (?:compute )?capability|STATUS_NOT_SUPPORTED",
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
        r"CUDA Setup failed|[Cc]ould not (?:load|find) (?:the )?bitsandbytes|"
        r"symbol not found at line \d+ in file|Configured \w+ binary not found|libbitsandbytes|"
        r"no attribute '[cC]\w*(?:blockwise|"
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
    ("setting", r"Expandable segments are not compatible", _segments),
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
        r"Tokenizer class \w+ does not exist|untagged enum (?:ModelWrapper|PyPreTokenizer)",
        _newer_tokenizer,
    ),
    (
        "tokenizer",
        r"valid pad token|does not have a (?:pad|padding) token|chat_template is not set|"
        r"Asking to pad but",
        _tokenizer,
    ),
    (
        "cache folder",
        r"(?:Permission denied|Read-only file system): '[^']*(?:\.triton|\.cache/(?:vllm|"
        r"flashinfer|torch)|torchinductor|\.nv/|\.config/vllm)",
        _caches,
    ),
    (
        "disk",
        r"Not enough free disk space|PytorchStreamWriter failed|unexpected pos \d+ vs \d+|"
        r"No space left on device|Disk quota exceeded|Read-only file system|\bos error (?:28|30|"
        r"122)\b",
        _disk,
    ),
    (
        "disk",
        r"Stale file handle|Transport endpoint is not connected|No locks available|"
        r"Input/output error|\bos error (?:5|107|116)\b",
        _mount,
    ),
    (
        "damaged file",
        r"[Ee]rror while deserializing header|HeaderTooLarge|MetadataIncompleteBuffer|"
        r"PytorchStreamReader failed|Unable to load weights from|Consistency check failed|"
        r"does not appear to have a file named|no file named \S+|invalid load key|"
        r"unable to open file <|"
        r"size mismatch for \S+: copying a param|Error\(s\) in loading state_dict",
        _damaged,
    ),
    ("network", r"429 (?:Client Error|Too Many)|had to rate limit you|Too Many Requests", _rate),
    ("network", r"offline mode is enabled|outgoing traffic has been disabled", _offline),
    (
        "access",
        r"gated repo|awaiting a review|Invalid username or password|40[13] (?:Client Error|"
        r"Forbidden|Unauthorized)|Repository Not Found|"
        r"is not a valid model identifier|exist on the Hub|No config file found|"
        r"Invalid (?:user token|credentials)",
        _access,
    ),
    ("network", r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", _certificate),
    (
        "process group",
        r"NCCL (?:error|WARN)(?!.*/dev/shm)|nccl\w+Error|\[c10d\]|connectFullMesh|"
        r"server socket has failed to listen|client socket has timed out|"
        r"makeDeviceForHostname|Unable to find address for|[Aa]ddress already in use|"
        r"Duplicate GPU detected|"
        r"collective operation timeout",
        _group,
    ),
    (
        "network",
        r"Max retries exceeded|name resolution|Name or service not known|getaddrinfo failed|"
        r"[Cc]ouldn't connect to|Connection (?:reset by peer|refused|aborted|timed out)|"
        r"locate the file on the Hub|read operation timed out|Read timed out|Server disconnected|"
        r"without sending complete message body|IncompleteRead|Response ended prematurely|"
        r"EOF occurred in violation|CAS (?:service|Client) [Ee]rror|"
        r"\b5\d\d (?:Server Error|Bad Gateway|Service Unavailable|Gateway)|Gateway Time-?out|"
        r"Proxy(?:Error| Authentication)|ConnectTimeout|"
        r"ReadTimeout|No address associated with hostname|Network is unreachable",
        _network,
    ),
)
"""Subject, pattern and words, in the order in which they are tried."""
ENGINE = (
    r"[Ee]ngine core initialization failed|EngineCore encountered an issue|EngineDeadError|"
    r"Engine process failed to start|EngineCore failed to start"
)
"""Message of vLLM where its own process ended: the cause stands in the log."""
LAST: tuple[tuple[SoftwareSubject, str, Callable[[], Words]], ...] = (("engine", ENGINE, _engine),)
"""What is tried last, since it says only where the cause stands."""
