"""Texts of errors that are about the driver, the compilers, the compiled packages or the card
itself: the cause, and its mend.

Texts are of CUDA, NVIDIA's container tools, gcc, nvcc, ptxas, Triton, FlashInfer, vLLM and Unsloth;
tests/fixtures/error_texts.jsonl has them with their sources. Limits: English messages.
"""

from typing import Literal

from r1recipes.machine import gpu, host, packages
from r1recipes.machine.packages import Finding
from r1recipes.planning.doctor.card import DRIVER, card_findings
from r1recipes.planning.doctor.words import AGAIN, DOCTOR, Tell, Words

StackSubject = Literal["compiler", "driver", "kernels", "libraries", "busy card", "broken card"]


def _static_tls() -> Words:
    text = "a library came too late for a place in every thread, which is no lack of memory"
    return text, "export LD_PRELOAD=$(gcc -print-file-name=libgomp.so.1)"


def _compiler() -> Words:
    text = "Triton builds its launcher on the first start, for which something is missing"
    return text, _mend_of(packages.examine(gpu.current()), "compiler")


def _no_nvcc() -> Words:
    text = "a kernel is to be compiled, and CUDA's compiler is missing"
    command = host.as_root("apt-get install cuda-nvcc-13-0 ninja-build")
    return text, "module load cuda" if host.cluster() else command


def _driver() -> Words:
    who, command = host.needs_driver(DRIVER)
    text = "the NVIDIA driver is too old for the CUDA of torch or vLLM"
    return f"{text}; {who}" if who else text, command


def _no_driver() -> Words:
    findings = card_findings(gpu.current())
    stopping = [f for f in findings if f.stops or f.mend]
    return "CUDA finds no card it can use", (stopping[0].mend if stopping else None) or DOCTOR


def _lost() -> Words:
    if host.place() == "container":
        return "the container has lost the card, as after a reload of systemd", host.restart()
    return _no_driver()


def _toolkit() -> Words:
    text = "the driver's library in this container or in WSL2 does not fit the driver"
    return text, "apt-get install nvidia-container-toolkit  # on the host; else Docker Desktop"


def _ordinal() -> Words:
    return "CUDA_VISIBLE_DEVICES names a card that is not there", "nvidia-smi -L"


def _unknown() -> Words:
    text = "the driver failed without a reason, as after a suspend or an update of Windows"
    return text, host.restart()


def _translation() -> Words:
    text = "Triton cannot translate a kernel for this card, a fault of its version"
    return text, DOCTOR


def _fabric() -> Words:
    text = "cards that are joined by NVSwitch wait for NVIDIA's fabric manager"
    return text, host.as_root("systemctl start nvidia-fabricmanager")


def _restart() -> Words:
    return "the driver that is loaded and its library are of different versions", host.restart()


def _kernels() -> Words:
    card = gpu.current()
    name = f"{card.name}, capability {card.compute_capability}" if card else "this card"
    text = f"torch or vLLM was built without kernels for {name}"
    return text, _mend_of(packages.examine(card), None)


def _libraries() -> Words:
    text = "compiled packages do not fit one another, such as vLLM and a torch for another CUDA"
    return text, _mend_of(packages.examine(gpu.current()), None)


def _packages() -> Words:
    text = "a package is missing, or its version is not the one that another needs"
    return text, _mend_of(packages.examine(gpu.current()), None)


def _busy() -> Words:
    text = "another process has the card for itself (compute mode), or the driver lost it"
    card = gpu.current()
    held = [f for f in card_findings(card) if f.subject == "GPU in use"] if card else []
    return text, (held[0].mend if held else None) or "nvidia-smi -q -d COMPUTE"


def _mps() -> Words:
    text = "CUDA's service that shares the card (MPS) does not answer"
    return text, "echo quit | nvidia-cuda-mps-control  # then start again"


def _freed() -> Words:
    text = "another program freed memory of the card while the engine measured it"
    return text, AGAIN


def _broken() -> Words:
    return "the card reports a fault of its own, which no setting mends", host.restart()


def _mend_of(findings: list[Finding], subject: str | None) -> str:
    """The mend of what stops a run, as the doctor has it; else the doctor."""
    named = [f for f in findings if f.stops and f.mend and subject in (None, f.subject)]
    return (named[0].mend if named else None) or DOCTOR


KNOWN_FAULTS: tuple[tuple[StackSubject, str, Tell], ...] = (
    ("libraries", r"cannot allocate memory in static TLS block", _static_tls),
    (
        "libraries",
        r"vLLM [\d.x]+ (?:has a known bug|crashes with)|"
        r"CUDA Error: invalid argument at \S*cumem_allocator|"
        r"[Pp]lease (?:update|upgrade) (?:your |to )?(?:the latest )?(?:vLLM|vllm|[Uu]nsloth|"
        r"transformers|trl|TRL|torch|PyTorch|peft)\b",
        _libraries,
    ),
    (
        "driver",
        r"unsatisfied condition: (?:cuda|driver)|please update your driver|CUDA_ERROR_COMPAT_NOT",
        _driver,
    ),
    ("driver", r"lib(?:cuda|nvidia-ml)\.so(?:\.1)?'? (?:was )?not found", _no_driver),
    ("kernels", r"requires \.target|sm_\d+\w* is not (?:supported|defined)", _kernels),
)
"""What quotes other causes, and is tried before them."""
PATTERNS: tuple[tuple[StackSubject, str, Tell], ...] = (
    (
        "compiler",
        r"Failed to find C compiler|(?:Python|pyconfig|std\w+|features|limits)\.h: No such|"
        r"cannot find -lcuda\b|libcuda\.so cannot (?:be )?found|Command '\['[^']*\b(?i:gcc|g\+\+|"
        r"clang|cc|c\+\+|cl|tcc|ldconfig)(?i:\.exe)?'|(?:gcc|g\+\+|clang|cc)' failed with exit|"
        r"[Nn]o C(?:\+\+)? compiler|Microsoft Visual C\+\+|compilation terminated|python3?-dev|"
        r"(?:gcc|g\+\+|cc1plus|clang): (?:not found|fatal error|error)|"
        r"No such file or directory: '(?:gcc|g\+\+|cc|clang)'",
        _compiler,
    ),
    (
        "compiler",
        r"FlashInfer failed to JIT|nvcc fatal +: (?!Unsupported gpu)|"
        r"CUDA compiler and CUDA toolkit|Ninja is required|[Nn]inja build failed|"
        r"Error building extension|CUDA_HOME environment variable is not set|"
        r"[Cc]ould not find nvcc|nvcc:?(?: was| is)? not (?:found|in)|(?:curand|cuda|cublas|cudnn|"
        r"cusparse|cusolver|nv)\w*\.h(?:pp)?: No such file|ninja'? (?:\(build tool\) |is |"
        r"was )?not (?:found|installed)|Command '\['[^']*\b(?:nvcc|ninja)(?:\.exe)?'|"
        r"No such file or directory: '\S*(?:nvcc|ninja)'|(?i:cuda_home|"
        r"cuda toolkit)\S* (?:does not exist|is not set|not found)",
        _no_nvcc,
    ),
    ("compiler", r"PassManager::run failed|LLVM ERROR|working triton installation", _translation),
    (
        "driver",
        r"driver version is insufficient|driver on your system is too old|"
        r"forward compatibility was attempted|unsupported toolchain|unsupported PTX version|"
        r"(?i:CUDA_?ERROR_?UNSUPPORTED_?PTX_?VERSION)|cudaErrorInsufficientDriver|"
        r"cudaErrorCompatNotSupportedOnDevice|not supported in the installed CUDA driver|"
        r"cudaErrorCallRequiresNewerDriver|PTX JIT compilation failed|"
        r"driver (?:version )?(?:is )?(?:too old|outdated|insufficient)|"
        r"requires? (?:an? )?(?:newer |NVIDIA )?driver (?:version )?(?:>=|newer|\d{3})",
        _driver,
    ),
    ("driver", r"system not yet initialized|cudaErrorSystemNotReady", _fabric),
    ("driver", r"[Dd]river/library version mismatch|cudaErrorSystemDriverMismatch", _restart),
    (
        "driver",
        r"named symbol not found|unsupported display driver|libdxcore|CDI devices?|"
        r"invalid runtime name: nvidia|nvidia-container-(?:cli|runtime): (?!requirement)",
        _toolkit,
    ),
    ("driver", r"invalid device ordinal|device < num_gpus|cudaErrorInvalidDevice\b", _ordinal),
    ("driver", r"NVML: Unknown Error", _lost),
    (
        "driver",
        r"CUDA\S* (?:driver )?(?:error)?:? ?unknown error|Error 999|cudaErrorUnknown",
        _unknown,
    ),
    (
        "driver",
        r"Found no NVIDIA driver|No CUDA GPUs are available|no CUDA-capable device is detected|"
        r"cudaErrorNoDevice|CUDA_ERROR_NO_DEVICE|CUDA unknown error|"
        r"cudaErrorInitializationError|NVML: (?:Driver Not Loaded|N/A|GPU access blocked)|"
        r"NVML Shared Library Not Found|CUDA driver initialization failed|"
        r"torch\.cuda\.is_available\(\) is False|Failed to infer device type|"
        r"OS call failed or operation not supported|could not select device driver|"
        r"lib(?:cuda|nvidia-ml)\.so[.\d]*: cannot open|load library failed: libnvidia-ml|"
        r"You need a GPU|communicate with the NVIDIA driver|cannot find any torch accelerator|"
        r"usage limits in Colab|connect to (?:the |a )?GPU backend|[Nn]o GPU (?:was )?(?:found|"
        r"detected|available)|GPU (?:is )?not (?:found|detected|available)|"
        r"(?:load|initialize) NVML|CUDA (?:is )?not available|nvidia-smi: (?:command )?not found",
        _no_driver,
    ),
    (
        "kernels",
        r"no kernel image is available|is not compatible with the current PyTorch|"
        r"invalid device function|Unsupported \.version|not supported on \.target|"
        r"Ptx assembly aborted|PTXASError|PTXAS error|ptxas fatal|not a recognized processor|"
        r"flash_(?:fwd|bwd)\w*\.\w+:\d+\): invalid argument|not compiled with CUDA|"
        r"cudaErrorNoKernelImageForDevice|"
        r"no NVIDIA GPU architectures|CUDA_ERROR_NO_BINARY_FOR_GPU|"
        r"Value 'sm_\w+' is not defined|Unsupported gpu architecture|kernel image is invalid|"
        r"invalid value for --gpu-architecture|STATUS_ARCH_MISMATCH|"
        r"is for sm\d+\S* but was built for|Minimum and Maximum cuda capability",
        _kernels,
    ),
    (
        "libraries",
        r"undefined symbol|cannot open shared object file|GLIBC(?:XX)?_[\d.]+' not found|"
        r"CXXABI_[\d.]+' not found|was compiled against .* but|different CUDA major versions|"
        r"operator \w+::\w+ does not exist|binary incompatibility|compiled using NumPy 1|"
        r"(?:cannot import name '\w+' from|No module named|module) '(?:Unsloth|torch|transformers|"
        r"trl|vllm|unsloth|unsloth_zoo|peft|triton|accelerate|flash_attn|flashinfer|"
        r"huggingface_hub|tokenizers|xformers|torchao|numpy|datasets|safetensors|torchvision|"
        r"cut_cross_entropy|compressed_tensors|outlines|xgrammar|ray)\b|module 'Unsloth\w+' has|"
        r"detected CUDA version .* mismatches|Triton only support CUDA|CUFFT_INTERNAL_ERROR|"
        r"No operator found for `memory_efficient|DLL load failed|WinError (?:126|127|1114)|"
        r"Could not find module '\S+\.dll'|Unable to load any of|VERSION_MISMATCH|"
        r"version incompatibility|failed to open \S*nvrtc|nvrtc-builtins|"
        r"CUBLAS_STATUS_INVALID_VALUE|is required for a normal functioning|"
        r"cumem allocator is not available|xFormers (?:wasn't|was not) buil[dt] with|"
        r"does not recognize this architecture|FlashAttention\w* (?:has been toggled on, but|"
        r"2 is not)|flash[_-]attn\S* (?:package )?(?:seems to be )?(?:is )?not (?:be )?installed|"
        r"\brequires \w[\w.-]* ?[<>=]=? ?\d|DistributionNotFound|PackageNotFoundError|"
        r"VersionConflict|[Ii]ncompatible (?:torch|CUDA|PyTorch) version|ABI mismatch|"
        r"Unsloth: Please file a bug report|Error patching \w+Trainer",
        _libraries,
    ),
    ("busy card", r"Error 80[567]|MPS (?:client|server|control daemon)|cudaErrorMps", _mps),
    ("busy card", r"Error in memory profiling|finish memory profiling", _freed),
    (
        "busy card",
        r"CUDA-capable device(?:\(s\)|s)? (?:is/are|are|is) busy|cudaErrorDevicesUnavailable|"
        r"cudaErrorDeviceUnavailable",
        _busy,
    ),
    (
        "broken card",
        r"uncorrectable (?:ECC|NVLink)|determine the device handle|GPU is lost|fallen off the bus|"
        r"cudaErrorECCUncorrectable|"
        r"hardware (?:error|stack)|NVLink (?:error|failure)|\bXid\b",
        _broken,
    ),
    (
        "driver",
        r"initialize CUDA|cuInit\b|cudaGetDeviceCount|CUDA initialization|"
        r"CUDA error: initialization|(?i:cuda driver library)",
        _no_driver,
    ),
)
"""Subject, pattern and words, in the order in which they are tried."""
LAST: tuple[tuple[StackSubject, str, Tell], ...] = (
    (
        "compiler",
        r"(?i:\bnvcc\b|\bninja\b|torch_extensions|cpp_extension|(?:CUDA|C|C\+\+) compiler\b)",
        _no_nvcc,
    ),
    (
        "driver",
        r"(?i:nvidia driver|\bNVML\b|nvidia-smi|CUDA_VISIBLE_DEVICES|"
        r"\bno (?:CUDA |NVIDIA )?(?:GPUs?|CUDA devices?)\b|find (?:a |any )?(?:NVIDIA )?GPUs?\b)",
        _no_driver,
    ),
    ("kernels", r"\bsm_?\d{2,3}\b|compute_\d{2,3}\b|(?i:compute capability)", _kernels),
    (
        "libraries",
        r"(?i:is not installed|please (?:re)?install|pip3? (?:re)?install|conda install)|"
        r"[\w.-]+ ?[<>=]=\d[\d.]* (?:is|was|are) (?:required|installed)|\.so(?:\.\d+)*: ",
        _packages,
    ),
)
"""Words that tell the field alone, tried when no known message was there."""
