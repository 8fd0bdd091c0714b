"""Texts of errors that are about the machine and not about the recipe: the cause, and its mend.

Texts are of torch, CUDA, vLLM, Triton, Unsloth, glibc, numpy, pyarrow and the kernel. What is about
the memory of the card is `out_of_memory`'s; what is about numbers, kernels, files, the network or
packages is `software`'s, and `cause_of` reads both. Limits: English messages; one cause for each
text, the first whose pattern it has.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from r1recipes.errors import command
from r1recipes.machine import gpu, host, packages
from r1recipes.machine.packages import Finding
from r1recipes.machine.units import gib
from r1recipes.planning.doctor import software
from r1recipes.planning.doctor.card import DRIVER, card_findings

Subject = Literal[
    software.SoftwareSubject,
    "pinned memory",
    "main memory",
    "shared memory",
    "limit",
    "compiler",
    "driver",
    "kernels",
    "libraries",
    "busy card",
    "broken card",
]


OF_MAIN_MEMORY = ("main memory", "pinned memory", "shared memory")


@dataclass(frozen=True)
class Cause:
    """What an error is about."""

    subject: Subject
    sentence: str
    mend: str
    """The one command that mends it; with a backtick, a sentence on what to change."""


_DOCTOR = command("doctor")


def _main_memory() -> tuple[str, str]:
    total, available = host.memory_bytes(), host.available_bytes()
    limit = host.memory_limit()
    size = f"this machine has {gib(total)} GiB"
    if limit is not None and limit < total:
        size = f"this container may take {gib(limit)} GiB"
    free = "" if available is None else f", of which {gib(min(available, limit or total))} are free"
    largest = host.largest_processes(2)
    takers = " and ".join(f"{p.name} (process {p.pid}) {gib(p.used_bytes)} GiB" for p in largest)
    sentence = f"main memory is used up: {size}{free}" + (f"; {takers} take most" if takers else "")
    match host.place():
        case "wsl":
            mend = "wsl.exe --shutdown  # once %UserProfile%\\.wslconfig has a larger `memory=`"
        case "container" if limit is not None and limit < total:
            mend = "docker update --memory 64g --memory-swap 64g CONTAINER  # on the host"
        case _:
            others = [p for p in largest if not p.is_own]
            mend = "ps aux --sort=-rss | head"
            if others:
                mend = f"kill {others[0].pid}  # {others[0].name}, if it is not needed"
    return sentence, mend


def _pinned_memory() -> tuple[str, str]:
    available = host.available_bytes()
    free = "" if available is None else f", and {gib(available)} GiB of it are free"
    sentence = f"main memory that can be pinned for the card is short{free}"
    if host.place() == "wsl":
        mend = "wsl.exe --shutdown  # once %UserProfile%\\.wslconfig has a larger `memory=`"
        return f"{sentence}; WSL2 pins only a part of its own", mend
    return sentence, f"ulimit -l unlimited  # or end programs that {_DOCTOR} shows"


def _shared_memory() -> tuple[str, str]:
    text = "/dev/shm, through which processes share memory, is too small"
    if host.place() == "container":
        return text, "docker run --shm-size 8g ..."
    return text, host.as_root("mount -o remount,size=8G /dev/shm")


def _limit() -> tuple[str, str]:
    return "a limit on threads, processes or open files is reached", "ulimit -n 65536 -u unlimited"


def _static_tls() -> tuple[str, str]:
    text = "a library came too late for a place in every thread, which is no lack of memory"
    return text, "export LD_PRELOAD=$(gcc -print-file-name=libgomp.so.1)"


def _compiler() -> tuple[str, str]:
    text = "Triton builds its launcher on the first start, for which something is missing"
    return text, _mend_of(packages.examine(gpu.current()), "compiler")


def _no_nvcc() -> tuple[str, str]:
    text = "a kernel is to be compiled, and CUDA's compiler is missing"
    command = host.as_root("apt-get install cuda-nvcc-13-0 ninja-build")
    return text, "module load cuda" if host.cluster() else command


def _driver() -> tuple[str, str]:
    who, command = host.needs_driver(DRIVER)
    text = "the NVIDIA driver is too old for the CUDA of torch or vLLM"
    return f"{text}; {who}" if who else text, command


def _no_driver() -> tuple[str, str]:
    findings = card_findings(gpu.current())
    stopping = [f for f in findings if f.stops or f.mend]
    return "CUDA finds no card it can use", (stopping[0].mend if stopping else None) or _DOCTOR


def _lost() -> tuple[str, str]:
    if host.place() == "container":
        return "the container has lost the card, as after a reload of systemd", host.restart()
    return _no_driver()


def _toolkit() -> tuple[str, str]:
    text = "the driver's library in this container or in WSL2 does not fit the driver"
    return text, "apt-get install nvidia-container-toolkit  # on the host; else Docker Desktop"


def _ordinal() -> tuple[str, str]:
    return "CUDA_VISIBLE_DEVICES names a card that is not there", "nvidia-smi -L"


def _unknown() -> tuple[str, str]:
    text = "the driver failed without a reason, as after a suspend or an update of Windows"
    return text, host.restart()


def _translation() -> tuple[str, str]:
    text = "Triton cannot translate a kernel for this card, a fault of its version"
    return text, _DOCTOR


def _fabric() -> tuple[str, str]:
    text = "cards that are joined by NVSwitch wait for NVIDIA's fabric manager"
    return text, host.as_root("systemctl start nvidia-fabricmanager")


def _restart() -> tuple[str, str]:
    return "the driver that is loaded and its library are of different versions", host.restart()


def _kernels() -> tuple[str, str]:
    card = gpu.current()
    name = f"{card.name}, capability {card.compute_capability}" if card else "this card"
    text = f"torch or vLLM was built without kernels for {name}"
    return text, _mend_of(packages.examine(card), None)


def _libraries() -> tuple[str, str]:
    text = "compiled packages do not fit one another, such as vLLM and a torch for another CUDA"
    return text, _mend_of(packages.examine(gpu.current()), None)


def _busy() -> tuple[str, str]:
    text = "another process has the card for itself (compute mode), or the driver lost it"
    card = gpu.current()
    held = [f for f in card_findings(card) if f.subject == "GPU in use"] if card else []
    return text, (held[0].mend if held else None) or "nvidia-smi -q -d COMPUTE"


def _freed() -> tuple[str, str]:
    text = "another program freed memory of the card while the engine measured it"
    return text, command("run", "--resume")


def _broken() -> tuple[str, str]:
    return "the card reports a fault of its own, which no setting mends", host.restart()


def _mend_of(findings: list[Finding], subject: str | None) -> str:
    """The mend of what stops a run, as the doctor has it; else the doctor."""
    named = [f for f in findings if f.stops and f.mend and subject in (None, f.subject)]
    return (named[0].mend if named else None) or _DOCTOR


_Words = Callable[[], tuple[str, str]]
_PATTERNS: tuple[tuple[Subject, str, _Words], ...] = (
    ("libraries", r"cannot allocate memory in static TLS block", _static_tls),
    (
        "pinned memory",
        r"(?:cudaHost(?:Alloc|Register)|cudaMallocHost|cuMem(?:Host)?AllocHost|cuMemHostAlloc|"
        r"cuMemHostRegister|CachingHostAllocator|CUDA host alloc|pin(?:ned)?[_ ]?memory|"
        r"page-locked)",
        _pinned_memory,
    ),
    (
        "shared memory",
        r"out of shared memory \(shm\)|insufficient shared memory|shared memory segment|unable to "
        r"(?:open|allocate) shared memory|torch_shm|</?torch_\d+\w*>: No space|"
        r"No space left on device: '/dev/shm|"
        r"killed by signal: Bus error",
        _shared_memory,
    ),
    (
        "main memory",
        r"DefaultCPUAllocator|not enough memory: you tried to allocate|\bbad_alloc\b(?!: cuda)|"
        r"Cannot allocate memory|\b(?:Array)?MemoryError\b|Unable to allocate .*for an array|"
        r"unable to mmap|memory allocation of \d+ bytes failed|malloc of size \d+ failed|"
        r"[Oo]ut of (?:host|system|CPU) memory|Out of memory: Killed|oom[-_]kill|"
        r"\bSIGKILL\b|signal: Killed|^.*: \d+ Killed |os error 1455|Killed signal terminated|"
        r"signal 9\b|"
        r"exit ?code:? -9\b|\bos error 12\b|"
        r"realloc of size \d+ failed|[Ff]ailed to allocate .*(?:host|CPU) (?:memory|buffer)",
        _main_memory,
    ),
    (
        "limit",
        r"can't start new thread|pthread_create failed|Too many open files|"
        r"Resource temporarily unavailable|received 0 items of ancdata",
        _limit,
    ),
    (
        "compiler",
        r"Failed to find C compiler|Python\.h: No such file|cannot find -lcuda\b|"
        r"libcuda\.so cannot (?:be )?found|Command '\['\S*(?:gcc|clang|cc|ldconfig)'|"
        r"(?:gcc|g\+\+|clang|cc)' failed with exit|"
        r"(?:gcc|g\+\+|cc1plus|clang): (?:not found|fatal error|error)|No such file or directory: "
        r"'(?:gcc|g\+\+|cc|clang)'",
        _compiler,
    ),
    (
        "compiler",
        r"Ninja is required|[Nn]inja build failed|Error building extension|"
        r"CUDA_HOME environment variable is not set|[Cc]ould not find nvcc|"
        r"nvcc:?(?: was)? not found|(?:curand|cuda|cublas|cudnn)\w*\.h: No such file|"
        r"No such file or directory: '\S*(?:nvcc|ninja)'",
        _no_nvcc,
    ),
    ("compiler", r"PassManager::run failed|LLVM ERROR|working triton installation", _translation),
    (
        "driver",
        r"driver version is insufficient|driver on your system is too old|"
        r"forward compatibility was attempted|unsupported toolchain|unsupported PTX version|"
        r"(?i:CUDA_?ERROR_?UNSUPPORTED_?PTX_?VERSION)|cudaErrorInsufficientDriver|"
        r"cudaErrorCompatNotSupportedOnDevice|not supported in the installed CUDA driver|"
        r"cudaErrorCallRequiresNewerDriver",
        _driver,
    ),
    ("driver", r"system not yet initialized|cudaErrorSystemNotReady", _fabric),
    ("driver", r"[Dd]river/library version mismatch|cudaErrorSystemDriverMismatch", _restart),
    ("driver", r"named symbol not found|unsupported display driver", _toolkit),
    ("driver", r"invalid device ordinal|device < num_gpus|cudaErrorInvalidDevice\b", _ordinal),
    ("driver", r"NVML: Unknown Error", _lost),
    ("driver", r"CUDA (?:driver )?error: unknown error|Error 999|cudaErrorUnknown", _unknown),
    (
        "driver",
        r"Found no NVIDIA driver|No CUDA GPUs are available|no CUDA-capable device is detected|"
        r"cudaErrorNoDevice|CUDA_ERROR_NO_DEVICE|CUDA unknown error|"
        r"cudaErrorInitializationError|NVML: (?:Driver Not Loaded|N/A|GPU access blocked)|"
        r"NVML Shared Library Not Found|CUDA driver initialization failed|"
        r"torch\.cuda\.is_available\(\) is False|Failed to infer device type|"
        r"OS call failed or operation not supported|could not select device driver|"
        r"lib(?:cuda|nvidia-ml)\.so[.\d]*: cannot open|load library failed: libnvidia-ml|"
        r"You need a GPU|communicate with the NVIDIA driver|cannot find any torch accelerator",
        _no_driver,
    ),
    (
        "kernels",
        r"no kernel image is available|is not compatible with the current PyTorch|"
        r"invalid device function|not compiled with CUDA|cudaErrorNoKernelImageForDevice|"
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
        r"(?:cannot import name '\w+' from|No module named|module) '(?:torch|transformers|trl|vllm|"
        r"unsloth|unsloth_zoo|peft|triton|accelerate|flash_attn|flashinfer|huggingface_hub|"
        r"tokenizers|xformers|torchao)\b|detected CUDA version .* mismatches|"
        r"Unable to load any of|VERSION_MISMATCH|version incompatibility|"
        r"failed to open \S*nvrtc|nvrtc-builtins|CUBLAS_STATUS_INVALID_VALUE|"
        r"is required for a normal functioning|cumem allocator is not available|"
        r"xFormers (?:wasn't|was not) buil[dt] with|"
        r"does not recognize this architecture",
        _libraries,
    ),
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
)


_ALL: tuple[tuple[Subject, str, _Words], ...] = (
    *_PATTERNS[:3],
    *software.PATTERNS,
    *_PATTERNS[3:],
    *software.LAST,
)
"""What stands first is tried first: shared memory before NCCL, bitsandbytes before any library."""


def cause_of(text: str) -> Cause | None:
    """The cause of an error with this text; None for a text that says no more than what it says."""
    for subject, pattern, words in _ALL:
        if re.search(pattern, text):
            sentence, mend = words()
            return Cause(subject, sentence, mend)
    return None


def subject_of(text: str) -> Subject | None:
    """What `cause_of` finds an error to be about, without asking the machine."""
    return next((subject for subject, pattern, _ in _ALL if re.search(pattern, text)), None)
