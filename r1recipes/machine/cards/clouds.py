"""Names of rented machines -> the card that each has: `g5.xlarge`, `a2-highgpu-1g`,
`Standard_NC24ads_A100_v4`, `gpu_1x_a100`, `a10g-largex2`, `BM.GPU4.8`.

An instance type never changes its card. Sources: the lists of instance types of AWS, Google Cloud,
Azure, Oracle, Lambda, Hugging Face, Scaleway and DigitalOcean, and of Kubernetes' autoscaler.
Limits: a type that is not listed is read as the name of a card; how many cards it has is read over.
"""

import re

from r1recipes.machine.cards import names

NO_GPU = "no GPU"
"""Stands for the card of a machine that has none."""

_AWS = {
    "g2": "K520", "g3": "M60", "g3s": "M60", "g4ad": "Radeon Pro V520", "g4dn": "T4",
    "g5": "A10G", "g5g": "T4G", "g6": "L4", "gr6": "L4", "g6e": "L40S",
    "g7": "RTX PRO 4500 Server", "g7e": "RTX PRO 6000 Server",
    "p2": "K80", "p3": "V100", "p3dn": "V100", "p4d": "A100 40GB", "p4de": "A100 80GB",
    "p5": "H100", "p5e": "H200", "p5en": "H200", "p6-b200": "B200", "p6-b300": "B300",
    "p6e-gb200": "GB200", "p6e-gb300": "GB300",
    "dl1": "Gaudi", "dl2q": "Qualcomm AI 100", "trn1": "Trainium", "trn1n": "Trainium",
    "trn2": "Trainium2", "trn2u": "Trainium2", "inf1": "Inferentia", "inf2": "Inferentia2",
    "vt1": "Xilinx U30",
}  # fmt: skip
_AWS_BARE = {"g4dn", "g5", "g5g", "g6", "g6e", "gr6", "g7e", "p3dn", "p4d", "p4de", "p5", "p5e",
             "p5en", "p6-b200", "p6-b300", "p6e-gb200"}  # fmt: skip
"""Families that are named without a size; `p4` and `p6` are Tesla cards and not among them."""
_AWS_TYPE = re.compile(
    r"(?:ml\.)?([a-z]+\d[a-z\d]*(?:-[a-z]+\d+)?)\.(?:nano|micro|small|medium|(?:\d*x)?large|"
    r"metal[-\w]*)"
)
_L4_PARTS = {"large": 3, "xlarge": 3, "2xlarge": 6, "4xlarge": 12}
"""GB of the L4 that the sizes of g6f and gr6f have."""

_GOOGLE = {
    "a2-highgpu": "A100 40GB", "a2-megagpu": "A100 40GB", "a2-ultragpu": "A100 80GB",
    "a3-highgpu": "H100", "a3-megagpu": "H100", "a3-edgegpu": "H100", "a3-ultragpu": "H200",
    "a4-highgpu": "B200", "a4x-highgpu": "GB200", "a4x-maxgpu": "GB300",
    "g2-standard": "L4", "g2-custom": "L4", "g4-standard": "RTX PRO 6000 Server",
    "ct": "TPU", "tpu": "TPU",
}  # fmt: skip
_GOOGLE_TYPE = re.compile(
    r"(?:(a\dx?-(?:high|mega|ultra|edge|max)gpu|g[24]-(?:standard|custom))(?:-[\d-]+g?)?"
    r"|(ct|tpu)\dp?[a-z]*-hightpu-\d+t)"
)
_GOOGLE_PLAIN = re.compile(r"(?:n[1-4]d?|e2|c[2-4]d?|t2[ad]|m[1-4])-(?:standard|high\w+|custom).*")

_AZURE_TYPE = re.compile(r"(?:standard_)?(n(?:[dvgp]|cc?)\d+\w*)")
_AZURE = (
    (r"\w+_mi300x_\w+", "MI300X"), (r"\w+_gb300_\w+", "GB300"), (r"\w+_gb200_\w+", "GB200"),
    (r"\w+_h200_\w+", "H200"), (r"nc\w+_h100_v5", "H100 NVL"), (r"\w+_h100_v5", "H100"),
    (r"nd96asr(?:_a100)?_v4", "A100 40GB"), (r"\w+_a100_v4", "A100 80GB"),
    (r"\w+_rtxpro6000\w*", "RTX PRO 6000 Server"), (r"nc\w+_t4_v3", "T4"),
    (r"nv6ads_a10_v5", "A10-4Q"), (r"nv12ads_a10_v5", "A10-8Q"), (r"nv18ads_a10_v5", "A10-12Q"),
    (r"n[cv]\w+_a10_v\d", "A10"), (r"nv\w+_v4", "Radeon MI25"), (r"ng\w+", "Radeon V620"),
    (r"nv\w+_v710_v5", "Radeon V710"), (r"nv\d+s?(?:_v[23])?", "M60"), (r"np\w+", "Xilinx U250"),
    (r"nd40rs_v2", "V100"), (r"nd\d+r?s", "P40"), (r"nc\d+r?s_v3", "V100"),
    (r"nc\d+r?s_v2", "P100"), (r"nc\d+r?", "K80"),
)  # fmt: skip
"""What the name of an Azure machine is, without `Standard_`, and its card; the first that fits."""
_AZURE_PLAIN = re.compile(r"standard_[abdefhlm]\w*")

_OTHERS = (
    # Oracle; its older shapes are numbered by generation
    (r"(?:vm|bm)\.gpu2\.\d", "P100"), (r"(?:vm|bm)\.gpu3\.\d", "V100"),
    (r"bm\.gpu4\.8", "A100 40GB"), (r"bm\.gpu\.b4\.8", "A100 40GB"),
    (r"bm\.gpu\.a100-v2\.8", "A100 80GB"), (r"(?:vm|bm)\.gpu\.([a-z]+\d+[a-z]*)\.\d+", r"\1"),
    # Lambda
    (r"gpu_\dx_a100(?:_sxm4)?", "A100 40GB"), (r"gpu_\dx_rtx6000", "Quadro RTX 6000"),
    # Hugging Face
    (r"a100-large(?:x\d)?", "A100 80GB"), (r"cpu-(?:basic|upgrade|xl|performance)", NO_GPU),
    (r"zero-a10g|zerogpu", "H200"), (r"([a-z]+\d+[a-z]?)(?:-?(?:small|medium|large))?x\d+", r"\1"),
    # Scaleway: cards and GB of all of them; DigitalOcean
    (r"(l4|l40s|h100|h200|b200|b300)(?:-sxm)?-\d-\d+g", r"\1"), 
    (r"render-s", "P100"), (r"gpu-3070-s", "RTX 3070"),
    (r"gpu-(\d000ada)x\d(?:-\d+gb)?", r"\1"), (r"gpu-([a-z]+\d+[a-z]?)x\d(?:-\d+gb)?", r"\1"),
    # Nebius; IBM; Alibaba
    (r"gpu-([a-z]+\d+[a-z]?)-(?:sxm|pcie|[a-e])", r"\1"), 
    (r"gx[23]d?-\w+?x\d+(l4|l40s|v100|h100|h200)", r"\1"),
    (r"ecs\.gn6v-.+", "V100"), (r"ecs\.gn6i-.+", "T4"), (r"ecs\.gn5i?-.+", "P100"),
    (r"ecs\.gn7i-.+", "A10"), (r"ecs\.gn7-.+", "A100 40GB"), (r"ecs\.gn7e-.+", "A100 80GB"),
    # Google's names of accelerators: the A100 80GB has another one
    (r"nvidia[-_]tesla[-_]a100", "A100 40GB"), (r"(nvidia[-_].*)-vws", r"\1"),
    # Colab
    (r"(?:colab[ -])?g4(?: gpu)", "RTX PRO 6000"),
    # NVIDIA's own machines
    (r"dgx[- ]?[12]", "V100"), (r"dgx station a100", "A100"), (r"dgx station gb300", "GB300"),
)  # fmt: skip
_PLAIN_AWS = re.compile(r"(?:[acdhimrtxz]\d[a-z]*|u-\d+tb1|mac\d)(?:-\w+)?\.\w+")


def card_of(name: str) -> str | None:
    """The name of the card that a rented machine has; `NO_GPU` where it has none, and None for what
    is not the name of such a machine."""
    text = re.sub(r"\s*\([^)]*\)$", "", names.bare(name).lower())
    return _of_aws(text) or _of_google(text) or _of_azure(text) or _of_others(text)


def _of_aws(text: str) -> str | None:
    if text in _AWS_BARE:
        return _AWS[text]
    match = _AWS_TYPE.fullmatch(text)
    if match is None:
        return None
    family, size = match[1], text.rpartition(".")[2]
    if family in ("g6f", "gr6f") and size in _L4_PARTS:
        return f"L4-{_L4_PARTS[size]}Q"
    return _AWS.get(family) or (NO_GPU if _PLAIN_AWS.fullmatch(text.removeprefix("ml.")) else None)


def _of_google(text: str) -> str | None:
    match = _GOOGLE_TYPE.fullmatch(text)
    if match:
        return _GOOGLE.get(match[1] or match[2])
    return NO_GPU if _GOOGLE_PLAIN.fullmatch(text) else None


def _of_azure(text: str) -> str | None:
    match = _AZURE_TYPE.fullmatch(text.removesuffix("_promo"))
    if match:
        return next((card for form, card in _AZURE if re.fullmatch(form, match[1])), None)
    return NO_GPU if _AZURE_PLAIN.fullmatch(text) else None


def _of_others(text: str) -> str | None:
    for form, card in _OTHERS:
        match = re.fullmatch(form, text)
        if match:
            return match.expand(card)
    return None
