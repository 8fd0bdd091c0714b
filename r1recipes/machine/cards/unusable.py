"""Accelerators that no run can use, with the reason: older than vLLM's kernels, or not NVIDIA's.

Limits: the older cards that are still sold, rented or lent; an unlisted one is "not known".
"""

import re

from r1recipes.machine.cards import names

MIN_CAPABILITY = 7.5
"""Oldest compute capability that vLLM's wheels have kernels for, and CUDA 13, which they are built
with (read in vllm, _C_stable_libtorch.abi3.so: sm_75 and newer)."""

_OLDER = {
    7.2: "jetson xavier, jetson agx xavier, jetson xavier nx, xavier nx",
    7.0: "v100, v100s, titan v, quadro gv100, gv100, titan v ceo, dgx station, pg503",
    6.2: "jetson tx2, tx2",
    6.1: (
        "p4, p40, p6, titan x, titan xp, gtx 1080 ti, gtx 1080, gtx 1070 ti, gtx 1070, gtx "
        "1060, gtx 1050 ti, gtx 1050, gt 1030, gt 1010, mx 150, mx 230, mx 250, mx 330, mx "
        "350, mx150, mx250, mx230, mx330, mx350, quadro p400, quadro p500, quadro p520, quadro "
        "p600, quadro p620, quadro p1000, quadro p2000, quadro p2200, quadro p3000, quadro "
        "p3200, quadro p4000, quadro p4200, quadro p5000, quadro p5200, quadro p6000, p102 "
        "100, p104 100, p106 090, p106 100"
    ),
    6.0: "p100, quadro gp100, gp100",
    5.3: "jetson nano, jetson tx1, tx1",
    5.2: (
        "tesla m4, m40, m60, m6, gtx titan x, gtx 980 ti, gtx 980, gtx 970, gtx 965, gtx 960, "
        "gtx 950, quadro m2000, quadro m2200, quadro m3000, quadro m4000, quadro m5000, "
        "quadro m5500, quadro m6000"
    ),
    5.0: (
        "m10, gtx 750 ti, gtx 750, quadro k2200, quadro k1200, quadro k620, quadro m620, "
        "quadro m1000, quadro m1200, gtx 960m, gtx 950m, gtx 860m, gtx 850m, 940m, 940mx, 930m, "
        "930mx, 920mx, mx 110, mx 130, mx110, mx130"
    ),
    3.7: "k80",
    3.5: (
        "k40, k20, k20x, gtx titan, titan black, titan z, gtx 780 ti, gtx 780, gt 710, gt 730, "
        "quadro k5200, quadro k6000"
    ),
    3.0: (
        "k10, grid k1, grid k2, k520, gtx 770, gtx 760, gtx 690, gtx 680, gtx 670, gtx 660 ti, "
        "gtx 660, gtx 650 ti, gtx 650, gt 640, quadro k2000, quadro k4000, quadro k4200, "
        "quadro k5000"
    ),
    2.1: "gtx 560 ti, gtx 560, gtx 550 ti, gtx 460",
    2.0: "gtx 590, gtx 580, gtx 570, gtx 480, gtx 470, tesla c2050, tesla c2075, tesla m2090",
}
"""Compute capability -> cards (published, developer.nvidia.com/cuda-legacy-gpus)."""
_TOLD_APART = {"tesla": "tesla", "gtx titan x": "gtx|maxwell"}
"""Names that mean another card without a word that is read over otherwise."""
_FOREIGN = re.compile(
    r"\b(?:apple|m[1-9](?:\s*(?:pro|max|ultra))?$|amd|radeon|instinct|mi\s*\d{2,3}|rx\s*\d{3,4}|"
    r"vega|w[67]\d00|firepro|rdna\d?|cdna\d?|strix|ryzen|intel|arc|battlemage|iris|xe|gaudi\d?|"
    r"habana|hl[- ]?\d{3}|ponte|flex\s*\d{3}|b(?:50|60|570|580)\b|tpu|"
    r"v[2-7][- ]?(?:e|p|i|lite(?:pod)?)?(?:[- ]?\d+)?$|"
    r"trillium|ironwood|trainium\d?|trn\d|inferentia\d?|inf\d|groq|lpu|cerebras|wse|graphcore|ipu|"
    r"ascend|910[abc]|kunlun|biren|cambricon|mlu\s*\d{3}|moore|mtt|maia|tenstorrent|adreno|mali|"
    r"\d{4}\s*xtx?\b|\bmac(?:book|\s*studio|\s*mini|\s*pro)?\b|imac|snapdragon|npu|cpu$|mps$|rocm|"
    r"xpu$|gfx\d+\w?$|xilinx|qualcomm|sambanova|hygon|dcu|iluvatar|metax|a[57]\d0\b)",
)
"""Makers and series of others; `a770` is Intel's, and NVIDIA has no A with three digits but A100,
A400, A500, A800."""


def capability(name: str) -> float | None:
    """The compute capability of a card that is too old for vLLM; None for any other name."""
    named = names.plain(names.read(name).words - {"pcie"})
    for oldest, listed in sorted(_OLDER.items()):
        for older in listed.split(", "):
            form = names.plain(names.words(older))
            same = named in (form, form | {"laptop"}, form | {"m"})
            told_apart = _TOLD_APART.get(older.partition(" ")[0] if "tesla" in older else older)
            if same and (told_apart is None or re.search(told_apart, name.lower())):
                return oldest
    return None


def is_mining(name: str) -> bool:
    """Whether a name is that of a card that is sold for mining."""
    return re.search(r"\bcmp\s*\d{2,3}\s*hx", name.lower()) is not None


def is_foreign(name: str) -> bool:
    """Whether a name is that of an accelerator of another maker."""
    text = re.sub(r"[_/()]", " ", name.lower()).strip()
    return "nvidia" not in text and _FOREIGN.search(text) is not None
