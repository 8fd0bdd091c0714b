"""Texts of errors, each with what it is about, and exceptions with what the user is told."""

import errno
import os
from pathlib import Path

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import PlanError, RunError, command
from r1recipes.machine import gpu, host, packages
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.packages import Finding
from r1recipes.planning import out_of_memory
from r1recipes.planning.doctor import failures, texts
from tests.driver import MIB, FakeCard

CARD = Gpu(0, "NVIDIA T4", 14 * 2**30, 14 * 2**30, 7.5, "580.0")
LOG, FOLDER = Path("runs/a/train.log"), Path("runs/a")

CARD_TEXTS = {
    "a training pass": [
        "CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a total capacity of 14.56 GiB",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA driver error: out of memory",
        "CUDA_ERROR_OUT_OF_MEMORY",
        "Triton Error [CUDA]: out of memory",
        "cudaErrorMemoryAllocation: the API call failed",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUFFT_ALLOC_FAILED",
        "std::bad_alloc: cudaErrorMemoryAllocation: out of memory",
    ],
    "handle": [
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling cublasCreate(handle)",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "cuDNN error: CUDNN_STATUS_SUBLIBRARY_INITIALIZATION_FAILED",
        "cusolver error: CUSOLVER_STATUS_NOT_INITIALIZED, when calling `cusolverDnCreate(handle)`",
        "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`",
        "CUDA error: CUSPARSE_STATUS_NOT_INITIALIZED when calling `cusparseCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasCreate(handle)`",
    ],
    "when it woke": ["CUDA Error: out of memory at /workspace/csrc/cumem_allocator.cpp:62"],
    "held by": [
        "Free memory on device (5.1/14.7 GiB) on startup is less than desired GPU memory "
        "utilization (0.9, 13.3 GiB).",
        "Free memory on device cuda:0 (0.4/23.6 GiB) on startup is less than desired GPU memory "
        "utilization (0.7, 16.5 GiB). Decrease GPU memory utilization.",
    ],
    "no KV cache": [
        "No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
        "1.2 GiB KV cache is needed, which is larger than the available KV cache memory (0.4 GiB)",
    ],
}
MACHINE_TEXTS: dict[str | None, list[str]] = {
    "main memory": [
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 1073741824 bytes.",
        "std::bad_alloc",
        "[Errno 12] Cannot allocate memory",
        "Cannot allocate memory (os error 12)",
        "MemoryError: ",
        "_ArrayMemoryError: Unable to allocate 29.8 GiB for an array with shape (4000000000,)",
        "Unable to allocate 1.5 GiB for an array with shape (2, 100000000) and data type float64",
        "ArrowMemoryError: malloc of size 1073741824 failed",
        "realloc of size 268435456 failed",
        "memory allocation of 805306368 bytes failed",
        "unable to mmap 15112345600 bytes from file </models/a.safetensors>: no memory (12)",
        "the worker process died with SIGKILL",
        "a process was ended by signal 9",
        "Worker exited with exitcode: -9",
        "Out of memory: Killed process 4242 (python3)",
        "Failed to allocate 2.0 GiB of CPU memory",
    ],
    "pinned memory": [
        "CUDA error: out of memory (cudaHostAlloc)",
        "cudaHostAlloc failed: out of memory",
        "CUDA error: out of memory\nException raised from allocate at CachingHostAllocator.cpp:44",
        "Failed to allocate pinned memory: out of memory",
        "cudaMallocHost: out of memory",
        "cudaHostRegister failed: out of memory",
        "cuMemHostAlloc failed with error code 2",
    ],
    "shared memory": [
        "DataLoader worker (pid 77) is killed by signal: Bus error. It is possible that "
        "dataloader's workers are out of shared memory. Please try to raise its limit.",
        "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient "
        "shared memory (shm).",
        "unable to open shared memory object </torch_7_1> in read-write mode",
    ],
    "limit": [
        "RuntimeError: can't start new thread",
        "OSError: [Errno 24] Too many open files: 'train.log'",
        "BlockingIOError: [Errno 11] Resource temporarily unavailable",
        "OpenBLAS blas_thread_init: pthread_create failed for thread 3 of 64",
    ],
    "compiler": [
        "Failed to find C compiler. Please specify via CC environment variable or set triton.knobs",
        "main.c:4:10: fatal error: Python.h: No such file or directory",
        "/usr/bin/ld: cannot find -lcuda: No such file or directory",
        "AssertionError: libcuda.so cannot found!",
        "CalledProcessError: Command '['/usr/bin/gcc', '/tmp/a/main.c', '-O3']' returned non-zero",
        "[Errno 2] No such file or directory: 'gcc'",
        "RuntimeError: Ninja is required to load C++ extensions",
        "CUDA_HOME environment variable is not set. Please set it to your CUDA install root.",
        "Could not find nvcc, please set CUDAHOME",
    ],
    "driver": [
        "CUDA driver version is insufficient for CUDA runtime version",
        "The NVIDIA driver on your system is too old (found version 12040).",
        "Unexpected error from cudaGetDeviceCount(). Error 804: forward compatibility was attempted"
        " on non supported HW",
        "the provided PTX was compiled with an unsupported toolchain.",
        "CUDA error: system not yet initialized",
        "Failed to initialize NVML: Driver/library version mismatch",
        "Found no NVIDIA driver on your system.",
        "No CUDA GPUs are available",
        "CUDA error: no CUDA-capable device is detected",
        "CUDA unknown error - this may be due to an incorrectly set up environment",
        "Unsloth cannot find any torch accelerator? You need a GPU.",
    ],
    "kernels": [
        "CUDA error: no kernel image is available for execution on the device",
        "NVIDIA GeForce RTX 5080 with CUDA capability sm_120 is not compatible with the current "
        "PyTorch installation.",
        "CUDA error: invalid device function",
        "Torch not compiled with CUDA enabled",
        "ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'",
    ],
    "libraries": [
        "vllm/_C.abi3.so: undefined symbol: _ZN3c104cuda29c10_cuda_check_implementationEiPKcS2_ib",
        "libcudart.so.13: cannot open shared object file: No such file or directory",
        "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found",
        "libstdc++.so.6: version `GLIBCXX_3.4.32' not found",
        "operator torchvision::nms does not exist",
        "libgomp.so.1: cannot allocate memory in static TLS block",
        "Detected that PyTorch and torchvision were compiled with different CUDA major versions.",
    ],
    "busy card": [
        "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "all CUDA-capable devices are busy or unavailable",
    ],
    "broken card": [
        "CUDA error: uncorrectable ECC error encountered",
        "NVMLError_GpuIsLost: GPU is lost",
        "GPU 0000:01:00.0 has fallen off the bus",
    ],
    None: [
        "bad shape",
        "The expanded size of the tensor (5) must match the existing size (4)",
        "index 9 is out of bounds for dimension 0 with size 4",
        "Expected all tensors to be on the same device",
    ],
}


def plan() -> planning.Plan:
    loaded = recipe.load("qwen2.5-1.5b")
    target = planning.Target.elsewhere(CARD)
    return planning.make(loaded.recipe, target, base_dir=loaded.path.parent, preset="8GB")


PLAN = plan()


def failure(error: Exception, phase: out_of_memory.Phase = "first step") -> RunError:
    made = failures.classify(error, lambda: PLAN, phase, folder=FOLDER, log=LOG)
    assert isinstance(made, RunError)
    return made


def cases(table: dict) -> list[tuple]:
    return [(text, subject) for subject, listed in table.items() for text in listed]


def test_there_are_as_many_cases_as_the_bar_asks_for():
    assert len(cases(CARD_TEXTS)) + len(cases(MACHINE_TEXTS)) >= 95


@pytest.mark.parametrize(("text", "kind"), cases(CARD_TEXTS))
def test_a_text_about_the_memory_of_the_card(text, kind):
    assert out_of_memory.is_out_of_memory(text) and texts.subject_of(text) is None
    made = failure(RuntimeError(text))
    named = "training pass" if kind == "a training pass" else kind
    assert made.kind == "oom" and named in str(made) and made.problems[0].hint
    wanted = "nvidia-smi" if kind == "held by" else "--set preset."
    assert wanted in made.problems[0].hint


@pytest.mark.parametrize(("text", "subject"), cases(MACHINE_TEXTS))
def test_a_text_about_the_machine(text, subject):
    assert texts.subject_of(text) == subject
    made = failure(RuntimeError(text))
    assert made.kind == ("memory" if subject in texts.OF_MAIN_MEMORY else "crash")
    hint = made.problems[0].hint or ""
    assert str(LOG) in hint and hint.startswith("the traceback" if subject is None else "`")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "memory", "main memory is used up"),
        (MemoryError(), "memory", "main memory is used up"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "disk", "cannot be written"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "crash", "a limit on threads"),
        (ValueError("bad shape"), "crash", "ValueError: bad shape"),
    ],
)
def test_errors_that_have_a_number_or_a_type_of_their_own(error, kind, words):
    made = failure(error)
    assert made.kind == kind and words in str(made)


def test_what_an_engine_wraps_is_looked_for():
    try:
        try:
            raise RuntimeError("CUDA out of memory. Tried to allocate 224.00 MiB")
        except RuntimeError as cause:
            raise ValueError("Engine core initialization failed. See root cause above.") from cause
    except ValueError as error:
        made = failure(error, "load")
    assert made.kind == "oom" and "when it was loaded" in str(made)
    assert "Tried to allocate 224.00 MiB" in str(made)


def test_an_error_of_this_package_stays_as_it_is():
    error = PlanError("no")
    assert failures.classify(error, plan, "load", folder=FOLDER, log=LOG) is error


def test_pinned_memory_that_only_the_code_names():
    """`torch.empty(..., pin_memory=True)` says "CUDA error: out of memory" and no more."""

    def pin_memory() -> None:
        raise RuntimeError("CUDA error: out of memory")

    try:
        pin_memory()
    except RuntimeError as error:
        made = failure(error)
    assert made.kind == "memory" and "can be pinned" in str(made)


@pytest.mark.parametrize("place", ["wsl", "container", None])
def test_main_memory_is_told_with_its_size_and_who_takes_it(place, monkeypatch):
    monkeypatch.setattr(host, "place", lambda: place)
    monkeypatch.setattr(host, "memory_bytes", lambda: 64 * 2**30)
    monkeypatch.setattr(host, "available_bytes", lambda: 2**30)
    monkeypatch.setattr(host, "memory_limit", lambda: 8 * 2**30 if place == "container" else None)
    takers = [host.Taker(7, "chrome", 3 * 2**30, False), host.Taker(8, "python3", 2**30, True)]
    monkeypatch.setattr(host, "largest_processes", lambda count: takers[:count])
    cause = texts.cause_of("std::bad_alloc")
    assert cause is not None and "chrome (process 7) 3.0 GiB" in cause.sentence
    size = "container may take 8.0" if place == "container" else "this machine has 64.0"
    assert size in cause.sentence and "1.0 are free" in cause.sentence
    mend = {"wsl": ".wslconfig", "container": "docker update --memory", None: "kill 7"}[place]
    assert cause.mend is not None and mend in cause.mend


def test_pinned_memory_in_wsl2_is_a_setting_of_windows(monkeypatch):
    monkeypatch.setattr(host, "place", lambda: "wsl")
    cause = texts.cause_of("cudaHostAlloc failed: out of memory")
    assert cause is not None and "WSL2" in cause.sentence and ".wslconfig" in (cause.mend or "")


def test_the_largest_processes_are_read_from_the_system():
    (largest, *_) = host.largest_processes(3)
    own = [taker for taker in host.largest_processes(10**6) if taker.is_own]
    assert largest.used_bytes >= own[0].used_bytes > 2**20 and own[0].pid == os.getpid()


def test_a_card_that_others_hold_is_said_with_who(driver):
    holder = (4242, "/usr/bin/python3", 9000 * MIB)
    driver.says(FakeCard("NVIDIA T4", 5000 * MIB, 9690 * MIB, processes=[holder]))
    made = failure(RuntimeError(CARD_TEXTS["held by"][0]), "load")
    assert "the card is held by python3 (process 4242)" in str(made)
    assert made.problems[0].hint == "try `kill 4242`"


def test_the_mend_is_the_doctors(monkeypatch):
    found = Finding("compiler", "no gcc or clang", "gpu", "module load gcc")
    monkeypatch.setattr(packages, "examine", lambda card: [Finding("torch", "2.11.0"), found])
    monkeypatch.setattr(gpu, "current", lambda: CARD)
    for text in ("Failed to find C compiler.", "no kernel image is available"):
        cause = texts.cause_of(text)
        assert cause is not None and cause.mend == "module load gcc"
    monkeypatch.setattr(packages, "examine", lambda card: [])
    cause = texts.cause_of("no kernel image is available")
    assert cause is not None and cause.mend == command("doctor")
    assert "NVIDIA T4, capability 7.5" in cause.sentence
