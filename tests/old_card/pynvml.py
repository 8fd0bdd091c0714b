"""Stands before the real pynvml on the path: every card is of compute capability 7.5, as a T4.

So a newer card goes the way of an old one, in float16; its kernels stay those of the newer card.
"""

from typing import Any

from tests import real_pynvml

_real = real_pynvml.load(__file__)
globals().update({name: value for name, value in vars(_real).items() if name[0] != "_"})


def nvmlDeviceGetCudaComputeCapability(handle: Any) -> tuple[int, int]:
    _real.nvmlDeviceGetCudaComputeCapability(handle)  # a handle of no card stays an error
    return 7, 5
