"""Names of cards as nvidia-smi, clouds and people write them: `NVIDIA A100-SXM4-80GB`, `T4x2`,
`4090 laptop`, `A40-24Q`.

A name becomes words without the maker and the form, a size, and a kind of slice. Limits: a bare
number after the model is a size in GB; how many cards there are is read over, as a run uses one.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

MIG = re.compile(r"\bmig\b|(?<![a-z\d])\d+g\.(\d+)gb\b")
"""A slice as nvidia-smi writes it: `MIG 3g.20gb`."""
_PART = re.compile(r"^(.*[a-z0-9])-\d-(\d+)c(?:me)?$")
"""A virtual card on a slice, such as `A100-1-5C`."""
_VGPU = re.compile(r"^(.*[a-z0-9][- ])(?:dc-)?(\d+)([abcq])$")
"""A virtual card: model, GB and the letter of its licence (NVIDIA, vGPU software)."""
_COUNT = re.compile(
    r"^\d{1,2}\s*[x×*]\s*(?=[a-z0-9])|(?<![a-z])[x×]\s*\d{1,2}$|:\d+$|\b\d+x\s|"
    r"^(?:dual|double|two|single)\b"
)
_SIZE = re.compile(r"\b(\d+)\s*(?:gib|gb|g)\b(?!\.)")
_GLUED = re.compile(r"\b(rtx|gtx|quadro|titan|tesla|geforce|nvidia|jetson|pro)(?=[a-z\d])")
_NOISE = re.compile(
    r"\b(?:nvidia|geforce|tesla|gpus?|graphics|cards?|tensor|cores?|sxm\d*|hbm\d*e?|gddr\d*x?|"
    r"generation|gen|rev|edition|server|series|desktop|memory|vram|ram|with|design|mega|founders|"
    r"fe|ws|wk|active|collectors|nvl\d+|nvlink|"
    r"cloud|instance|small|medium|large|hopper|ampere|turing|lovelace|grid|dgx|hgx|highgpu|"
    r"developer|kit|devkit|module|superchip|ac|lc|passive|workstation|ultra|std|standard|kaggle|"
    r"colab pro|colab|tier|dc|google|aws|azure|gcp|runpod|vast|lambda|modal|free|asus|msi|gigabyte|"
    r"zotac|palit|pny|evga|dell|hp|lenovo|gainward|inno3d|supermicro|razer|leadtek|"
    r"pascal|maxwell|volta|kepler)\b"
)
_PCIE = re.compile(r"\bpcie? ?(?:[345]\.0|gen ?[345])(?: ?x\d+)?|\bpcie x\d+")
_MIB = re.compile(r"\b(\d{4,6}) ?mi?b\b")
_QUOTED = (
    re.compile(r"nvidia (?:corporation )?\w+(?: / [\w-]+)? \[([^\]]+)\]"),
    re.compile(r"^device \d+ \[([^\]]+)\]"),
    re.compile(r"\bname=['\"]([^'\"]+)['\"]"),
    re.compile(r"^gpu \d+: (.+?) ?\(uuid"),
    re.compile(r"^\| +\d+ +(.+?) +(?:on|off) *\|"),
    re.compile(r"^(?:(?:--)?gres[:/=])?gpu:([a-z][\w-]*)(?::\d+)?$"),
    re.compile(r"^nvidia\.com/gpu\.product[=:] ?(.+)$"),
)
"""A name within a line of lspci, inxi, nvtop, torch, `nvidia-smi -L` and `nvidia-smi`, and in what
a job asks Slurm or Kubernetes for."""
_LABEL = re.compile(
    r"^(?:(?:product |model )?name|model|(?:cuda )?device[- ]?\d*|gpu ?\d*|graphics card|card|"
    r"accelerator|type|cuda:\d+|memory\.total \[mib\])"
    r"(?:\s*[:=]\s*|\s+-\s+|\s*,\s*|(?<=\d)\s+(?=\S))",
    re.IGNORECASE,
)
"""What programs write before a name: `GPU 0:`, `Product Name :`, `accelerator:`."""
_HEADER = re.compile(r"^name, memory\.total \[mib\]\s*\n", re.IGNORECASE)
_DETAILS = re.compile(
    r",? (?:compute capability|pci bus id|driver|vmm)\b.*$|,? pcie gen \d@\d+x$|,\s*count ?= ?\d+$|"
    r"(?<=mib), [\d.]+(?:, [\d.]+)*$|\s+:\s+\w+$|\s\[(?:discrete|integrated)\]$|"
    r"\(?,?\s*\d{2,3} ?w(?: tgp)?\)?$|\s+lite hash rate\b|\s+rev\. ?[a-z]\b|\(\d+ ?gb total\)$|"
    r"\s*\(uuid: .*\)$",
    re.IGNORECASE,
)
"""What they write behind it: capability, bus, driver, watts, a revision."""
_GEFORCE = re.compile(
    r"\b(?:rtx|gtx)? ?(?:[2-5]0[5-9]0|16[356]0) ?(?:ti(?: ?super)?|super|d(?: v2)?)?"
    r"(?! ?[a-z]\b|[a-z\d])"
)
_SAYS_NO_MORE = re.compile(r"(?:\(?\d+ ?gi?b?\)?|laptop|v?ram|gpu|card| )*")
_OF_PEOPLE = re.compile(r"^(?:(?:an?|my|our|one|the|this|single|with|only) )+")
_BOARD_MAKERS = re.compile(
    r"^(?:asus|msi|gigabyte|aorus|zotac|palit|pny|evga|gainward|inno3d|kfa2|galax|colorful|manli|"
    r"leadtek|maxsun|yeston|nvidia (?=.*\bfounders))\b"
)
_MODEL = re.compile(
    r"\b(?:rtx|gtx) ?(?:pro )?a?\d{3,4} ?(?:ti(?: ?super)?|super|d(?: v2)?)?(?![a-z\d])"
)
"""The model in the name of a board, which has the maker's series beside it."""
_LAPTOP = re.compile(r"\b(?:mobile|notebook|max ?q|portable|embedded|laptop)\b")
_WORDS = {"s": "super", "tis": "ti super", "m": "laptop", "l": "laptop"}
"""Endings that people write right after a number: 4070S, 4090M."""
_PROFESSIONAL = {"500", "1000", "2000", "3000", "4000", "4500", "5000", "6000"}
OPTIONAL = frozenset({"rtx", "gtx", "quadro", "jetson"})
"""Words that a name may lack or have too many."""


@dataclass(frozen=True)
class Reading:
    """What a name says."""

    words: frozenset[str]
    size_gb: int | None = None
    mig: bool = False
    vgpu: str | None = None
    """The letter of a virtual card: C and Q can compute, A and B cannot."""

    def without_last_number(self) -> "Reading | None":
        """Read once more, with a bare number as the size: `4060 ti 16`, `A100-80`."""
        numbers = [word for word in self.words if word.isdigit() and len(word) <= 3]
        if self.size_gb is not None or len(numbers) != 1 or len(self.words) < 2:
            return None
        return Reading(self.words - set(numbers), int(numbers[0]))


def bare(name: str) -> str:
    """The name without quotes and without what programs write before and behind it."""
    text = _HEADER.sub("", name.strip()).strip("'\"` ")
    while (shorter := _DETAILS.sub("", _LABEL.sub("", text))) != text and shorter.strip():
        text = shorter.strip()
    return text


def geforce_within(name: str) -> Reading | None:
    """The one GeForce card, with its size, that stands among words of something else, such as
    `Lenovo Legion Pro 7i RTX 4090 laptop 16GB`; None where there are none or several."""
    text = _quoted(bare(name).lower())
    models = _GEFORCE.findall(text)
    if len(models) != 1:
        return None
    rest = _OF_PEOPLE.sub("", text).replace(models[0].strip(), "", 1)
    if "tx" not in models[0] and not _SAYS_NO_MORE.fullmatch(rest.strip()):
        return None
    if re.search(r"\b(?:ada|pro 6000|quadro|blackwell|amd|radeon)\b", text):
        return None
    laptop = " laptop" if _LAPTOP.search(text) else ""
    return Reading(words(models[0] + laptop), _size(text))


def read(name: str) -> Reading:
    """The words, the size and the kind of slice that a name has."""
    text = _model_of_board(_quoted(bare(name).lower()))
    if MIG.search(text):
        sizes = [int(found) for found in MIG.findall(text) if found]
        return Reading(words(MIG.sub(" ", text)), sizes[0] if sizes else None, mig=True)
    if part := _PART.match(text):
        return Reading(words(part[1]), int(part[2]), mig=True)
    virtual = _VGPU.match(text)
    if virtual:
        return Reading(words(virtual[1]), int(virtual[2]), vgpu=virtual[3])
    return Reading(words(text), _size(text))


def _quoted(text: str) -> str:
    """The name in a line of a program's output, with its MiB as GB; any other text as it is."""
    match = next(filter(None, (form.search(text) for form in _QUOTED)), None)
    text = (match[1] if match else text).strip().removesuffix("!").removesuffix("-shared")
    return _MIB.sub(lambda mib: f"{round(int(mib[1]) / 1024)}gb", text)


def _model_of_board(text: str) -> str:
    """Model and size of a board as shops write it: `MSI GeForce RTX 3060 VENTUS 2X 12G OC`."""
    models = _MODEL.findall(text) if _BOARD_MAKERS.match(text) else []
    if len(models) != 1:
        return text
    size = _size(text)
    laptop = " laptop" if _LAPTOP.search(text) else ""
    return f"{models[0]}{laptop}" + (f" {size}gb" if size else "")


def _apart(text: str) -> str:
    """A size that is written right after a word: `4060ti16gb`."""
    return re.sub(r"(ti|super|laptop|ada|[^a-z\d])(\d+ ?gi?b?)$", r"\1 \2", text)


def _size(text: str) -> int | None:
    match = _SIZE.search(_apart(re.sub(r"[-_/()]", " ", text).strip()))
    return int(match[1]) if match else None


@lru_cache(maxsize=1024)
def words(name: str) -> frozenset[str]:
    """The words that tell models apart, such as `rtx`, `4070`, `ti`, `super`."""
    text = _PCIE.sub(" pcie ", re.sub(r"[-_/(),+|\[\]™®]", " ", name.lower()))
    text = re.sub(r"^q(?= ?rtx)", "quadro ", text)
    text = _SIZE.sub(" ", _COUNT.sub(" ", _apart(text.strip())))
    text = _GLUED.sub(r"\1 ", text)
    text = re.sub(r"(?<=\d)(?=[a-z])", " ", text)
    text = re.sub(r"\b(sxm|hbm|gddr) ?(\d) ?[ex]?\b", " ", text)
    text = _LAPTOP.sub(" laptop ", text)
    is_blackwell = "blackwell" in text
    parts = _NOISE.sub(" ", text.replace("blackwell", " ")).split()
    listed: list[str] = []
    for part in parts:
        follows_number = bool(listed) and re.fullmatch(r"\d{4}", listed[-1]) is not None
        listed += (_WORDS.get(part, part) if follows_number else part).split()
    if is_blackwell and "pro" not in listed and _PROFESSIONAL & set(listed):
        listed.append("pro")
    if "pro" in listed:  # `RTX PRO 6000 S` is its form for servers
        listed = [word for word in listed if word != "super"]
    return frozenset(listed)


def plain(named: frozenset[str]) -> frozenset[str]:
    """Words without those that a name may lack; TITAN RTX is told apart by its last one."""
    return named - {"gtx"} if "titan" in named else named - OPTIONAL
