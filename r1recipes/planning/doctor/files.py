"""Texts of errors that are about files, folders, the Hub, the network or the process group: the
cause, and its mend.

Texts are of transformers, safetensors, huggingface_hub, httpx, Linux, NCCL and Gloo;
tests/fixtures/error_texts.jsonl has them with their sources. Limits: English messages.
"""

from typing import Literal

from r1recipes.machine import host
from r1recipes.planning.doctor.words import AGAIN, Tell, Words

FileSubject = Literal[
    "missing folder",
    "damaged file",
    "access",
    "network",
    "disk",
    "cache folder",
    "process group",
]


def _no_folder() -> Words:
    text = "there is no such folder of a model, and a name of the Hub has the form `owner/name`"
    return text, "ls  # `model.name` is read from the folder that `run` is started in"


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
    return text, f"HF_HUB_OFFLINE=0 {AGAIN}"


def _certificate() -> Words:
    text = "a proxy or an antivirus program answers with a certificate of its own"
    return text, f"SSL_CERT_FILE=/path/to/its/certificate.pem {AGAIN}"


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
    return "the folder of a compiler's cache cannot be written", f"{elsewhere} {AGAIN}"


def _mount() -> Words:
    text = "a mounted disk, such as Google Drive or a network folder, is gone"
    return text, "mount it again, and keep `--run-dir` on a local disk"


def _group() -> Words:
    text = "NCCL or Gloo, through which even one process is set up, cannot connect to itself"
    if host.place() == "container":
        return text, "docker run --shm-size 8g --ipc host ..."
    return text, f"NCCL_DEBUG=INFO GLOO_SOCKET_IFNAME=lo VLLM_HOST_IP=127.0.0.1 {AGAIN}"


PATTERNS: tuple[tuple[FileSubject, str, Tell], ...] = (
    (
        "cache folder",
        r"(?:Permission denied|Read-only file system|resource busy|Stale file handle|"
        r"Disk quota exceeded|No space left on device|WinError 5\][^']*): '[^']*(?:\.triton|"
        r"\.cache/(?:vllm|flashinfer|torch)|torchinductor|\.nv/|\.config/vllm)|"
        r"WinError 5\].*torchinductor|failed to map segment from shared object",
        _caches,
    ),
    (
        "disk",
        r"(?:Not enough|[Ii]nsufficient|[Oo]ut of) (?:free )?disk space|StorageFull|"
        r"[Dd]isk is full|File too large|\bENOSPC\b|PytorchStreamWriter failed|"
        r"unexpected pos \d+ vs \d+|"
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
        r"Can't find '?[\w.]+\.json'? (?:at|in) '\w|"
        r"does not appear to have a file named|no file named \S+|invalid load key|"
        r"unable to open file <|Unrecognized model in|"
        r"size mismatch for \S+: copying a param|Error\(s\) in loading state_dict|"
        r"(?:expected value|EOF while parsing|trailing characters|key must be a string|invalid "
        r"type: .*|control character .*) at line \d+ column \d+|is not a valid JSON file|"
        r"git-lfs|version https://git-lfs|central directory|[Ff]ile (?:is |seems )?(?:corrupt|"
        r"truncated)|[Cc]hecksum",
        _damaged,
    ),
    (
        "missing folder",
        r"Repo id must (?:be in the form|use alphanumeric)|looks like (?:\.{0,2}/|~|"
        r"[A-Za-z]:[\\/])\S* is not the path|HFValidationError|Can't (?:load|find) [^.]* (?:for|"
        r"at|in|of) '(?:[./~]|[A-Za-z]:[\\/])|Can't find '?[\w.]+\.json'? (?:at|in) '[./~]|"
        r"[Mm]odel (?:path|directory|folder) \S+ (?:not found|"
        r"does not exist|doesn't exist)|path_or_model_id: '|"
        r"does not exist[^.]{0,20} model (?:path|folder)|repository ID or local directory|(?:^|"
        r"[\s'\"])(?:\.{0,2}/|~|[A-Za-z]:[\\/]|[\w.-]+/[\w.-]+/)\S* is not a local folder",
        _no_folder,
    ),
    (
        "network",
        r"CAS (?:service|Client) [Ee]rror|xethub\.hf\.co|appropriate (?:cached )?snapshot folder "
        r"for the specified revision on the local disk\. Please|"
        r"Can't load (?:tokenizer|config|the configuration|image processor|the model) (?:for|of) '"
        r"[\w-]+(?:/[\w.-]+)?'|check your (?:internet|network) connection",
        _network,
    ),
    ("network", r"429 (?:Client Error|Too Many)|had to rate limit you|Too Many Requests", _rate),
    ("network", r"offline mode is enabled|outgoing traffic has been disabled", _offline),
    (
        "access",
        r"gated repo|Gated(?:Repo)?Error|RepositoryNotFound|RevisionNotFound|LocalTokenNotFound|"
        r"is restricted|to ask for access|404 Client Error|(?:Revision|Entry) Not Found|"
        r"Token is required|awaiting a review|Invalid username or password|40[13] (?:Client Error|"
        r"Forbidden|Unauthorized)|Repository Not Found|"
        r"is not a valid model identifier|exist on the Hub|No config file found|"
        r"Invalid (?:user token|credentials)",
        _access,
    ),
    ("network", r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", _certificate),
    (
        "process group",
        r"NCCL (?i:error|WARN|failure)(?!.*/dev/shm)|nccl\w+Error|\[c10d\]|connectFullMesh|"
        r"Dist(?:Backend|Store|Network)Error|[Tt]imed out (?:after \d+ seconds )?"
        r"(?:waiting for clients|initializing process group)|"
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
        r"EOF occurred in violation|\b5\d\d (?:Server Error|Bad Gateway|Service Unavailable|"
        r"Gateway)|Gateway Time-?out|Proxy(?:Error| Authentication)|(?:Connect|Read|Pool|"
        r"Write)Timeout|Distant resource does not seem|client has been closed|firewall and proxy|"
        r"ConnectionError|RemoteDisconnected|RemoteProtocolError|SSLError|SSLEOFError|"
        r"[Cc]onnection (?:was )?(?:closed|lost|broken)|Request timed out|HfHubHTTPError|"
        r"No address associated with hostname|Network is unreachable",
        _network,
    ),
)
"""Subject, pattern and words, in the order in which they are tried."""
LAST: tuple[tuple[FileSubject, str, Tell], ...] = (
    (
        "process group",
        r"\bNCCL\b|[Pp]rocess ?[Gg]roup|\bTCPStore\b|\b[Gg]loo\b|torch\.distributed",
        _group,
    ),
    (
        "access",
        r"(?i:(?:hugging ?face|hf)[ _-]?token|huggingface-cli login|hf auth login)",
        _access,
    ),
    (
        "missing folder",
        r"(?i:(?:model|repo)\b.{0,60}local (?:folder|directory|path)|"
        r"local (?:folder|directory|path).{0,60}(?:model|repo)|repo_id or path)",
        _no_folder,
    ),
    (
        "network",
        r"huggingface\.co/(?:api|[\w.-]+/[\w.-]+/resolve)|(?i:internet connection)",
        _network,
    ),
    ("damaged file", r"vocabulary file|vocab_file|tokenizer\.(?:json|model)\b", _damaged),
    ("disk", r"(?i:disk (?:space|quota|is full)|space left)", _disk),
)
"""Words that tell the field alone, tried when no known message was there."""
