"""The NVIDIA cards since Turing that are sold or rented: memory, compute capability, and what they
do at most, each with its source; and which of them a name means.

Cards that cannot run are named with the reason (`unusable`). Limits: a card that is not listed is
not guessed at; rebuilt cards with more memory are meant only where their size is written.
"""

import difflib
import re
from dataclasses import dataclass, replace
from functools import cache

from r1recipes.machine.cards import clouds, geforce, names, professional, unusable
from r1recipes.machine.cards.card import Card, Peak, Status
from r1recipes.machine.cards.names import Reading
from r1recipes.machine.cards.unusable import MIN_CAPABILITY
from r1recipes.machine.units import GIB

__all__ = [
    "GPUS",
    "MIN_CAPABILITY",
    "UNLISTED",
    "USABLE_SHARE",
    "Card",
    "Fault",
    "Peak",
    "Status",
    "fault",
    "find_gpu",
    "names_a_card",
    "peak_of",
    "size_class",
    "sold_as",
]

GPUS = {
    card.name: card for series in (*geforce.SERIES, *professional.SERIES) for card in series.cards()
}
USABLE_SHARE = 0.90
"""A card sold as 16 GB reports less: T4 14.74, L4 22.16, RTX 4090 23.64, A100 39.56, H100 79.2 GiB
(saved logs of the Unsloth notebooks at bdda2efc). 90 % of the name separates the size classes."""
UNLISTED = Peak(1.008e12, 165e12, "assumed")
"""Assumed of a card whose peak is not known: that of an RTX 4090."""
SAME_SIZE = 0.1
"""How far the memory of a card at hand may lie from a row's, as a share of it, to be that card;
assumed. Drivers, error correction and Windows change it by up to 8 %."""


@dataclass(frozen=True)
class Fault:
    """Why a name is not that of one card that can be used, and what to write instead."""

    message: str
    hint: str
    by_memory: str = ""
    """What to write, beside the hint, for a command that takes an amount of memory."""


def find_gpu(name: str, total_bytes: int | None = None) -> Card | None:
    """The card with a driver's name such as `NVIDIA A100-SXM4-40GB`, or a short one such as `T4`.

    `total_bytes`: the memory of a card that is at hand, which tells sizes apart. None when the card
    is unknown or cannot be used, or when the name fits cards of several sizes and does not say
    which.
    """
    reading = _read(clouds.card_of(name) or name)
    if reading.mig or _lacks_cuda(reading):
        return None
    fitting = _of_size(reading, _named(reading))
    if total_bytes is not None:
        off = {card: abs(card.usable_bytes / total_bytes - 1) for card in _named(reading)}
        fitting = sorted((c for c in off if off[c] <= SAME_SIZE), key=off.__getitem__)[:1]
    return fitting[0] if len(fitting) == 1 else None


def _read(name: str) -> Reading:
    """What a name says; where that is no card, what one GeForce card among other words says."""
    reading = names.read(name)
    if reading.mig or reading.vgpu or _named(reading) or unusable.capability(name) is not None:
        return reading
    within = names.geforce_within(name)
    return within if within and _named(within) else reading


def peak_of(name: str, total_bytes: int | None = None) -> Peak:
    """What a card at hand can do at most, or `UNLISTED`."""
    card = find_gpu(name, total_bytes)
    return card.peak if card else UNLISTED


def fault(name: str) -> Fault:
    """Why `find_gpu` gives no card for a name. Cards of another maker and cards that are too old
    are hinted at no other card."""
    shown, meant = name.strip(), clouds.card_of(name)
    if meant is None:
        return _fault(name, f"`{shown}`", shown)
    if meant == clouds.NO_GPU:
        hint = "name the card that is attached to it, such as `--gpu t4`"
        return Fault(f"`{shown}` is a machine with no GPU of its own", hint)
    return _fault(meant, f"the card of `{shown}`, {meant},", shown)


def _fault(name: str, subject: str, shown: str) -> Fault:
    """Why a name is not that of one card, in a sentence with this subject."""
    reading = _read(name)
    needed = f"a run needs an NVIDIA card of compute capability {MIN_CAPABILITY} or more"
    if reading.mig:
        size = reading.size_gb or 20
        by_memory = f"its memory alone can be planned for: `--vram {size}`"
        return Fault(f"{subject} is a MIG slice, and slices are not supported", "", by_memory)
    older = unusable.capability(name)
    if older is not None:
        return Fault(f"{subject} has compute capability {older}, which is too old", needed)
    if unusable.is_mining(name):
        return Fault(f"{subject} is a mining card, whose arithmetic is throttled", needed)
    if _lacks_cuda(reading):
        text = f"{subject} is a virtual card for desktops, without CUDA"
        return Fault(
            text, f"a virtual card has it as `--gpu '{shown[:-1]}C'` or `--gpu '{shown[:-1]}Q'`"
        )
    if unusable.is_foreign(name) and not _named(reading):
        return Fault(f"{subject} is not an NVIDIA card", needed)
    if not reading.words and reading.size_gb or shown.isdigit() and 0 < int(shown) < 300:
        size = reading.size_gb or int(shown)
        return Fault(f"`{shown}` is an amount of memory, not a card", "", f"`--vram {size}`")
    return _which(shown, reading)


def names_a_card(text: str) -> bool:
    """Whether a text that should be an amount of memory names a card, such as `4090` or `t4`."""
    reading = _read(clouds.card_of(text) or text)
    return bool(_named(reading)) or unusable.capability(text) is not None


def _lacks_cuda(reading: Reading) -> bool:
    """Whether it is a virtual card of the series A or B (NVIDIA, vGPU software: CUDA is there for C
    and Q)."""
    return bool(_named(reading)) and reading.vgpu in ("a", "b")


def _which(shown: str, reading: Reading) -> Fault:
    """The sizes or models that a name may mean."""
    fitting = _named(reading)
    if fitting and reading.size_gb is not None and not _of_size(reading, fitting):
        sizes = " or ".join(f"{card.sold_gb}GB" for card in fitting)
        hint = f"it is sold with {sizes}, as in `--gpu '{fitting[-1].name}'`"
        by_memory = f"or give its memory with `--vram {reading.size_gb}`"
        return Fault(f"no `{shown}` is known", hint, by_memory)
    usual = [card for card in fitting if not card.is_rare]
    if len(usual) > 1:
        options = " or ".join(f"`--gpu '{card.name}'`" for card in usual)
        is_one = len({card.model for card in usual}) == 1
        kinds = "comes in several sizes" if is_one else "is the name of several cards"
        return Fault(f"`{shown}` {kinds}", f"which one? {options}")
    similar = _similar(shown)
    likely = " or ".join(f"`--gpu '{name}'`" for name in similar)
    hint = f"perhaps {likely}" if similar else "names are as in `--gpu t4`, `--gpu 'rtx 4090'`"
    by_memory = "or give its memory, such as `--vram 16`"
    return Fault(f"no NVIDIA card `{shown}` is known", hint, by_memory)


def _similar(name: str) -> list[str]:
    """Cards with the most similar names, at most three; first one that the name contains."""
    models = {card.model for card in GPUS.values()}
    read = names.read(name).words
    contained = [model for model in models if names.words(model) - names.OPTIONAL <= read]
    longest = sorted(contained, key=lambda model: (-len(names.words(model)), model))[:1]
    spelled = {"".join(model.lower().split()).removeprefix("rtx"): model for model in models}
    query = re.sub(r"[^a-z0-9]|nvidia|geforce|rtx|gtx", "", name.lower())
    close = [spelled[key] for key in difflib.get_close_matches(query, spelled, n=3, cutoff=0.5)]
    return list(dict.fromkeys(longest + close))[:3]


@cache
def _index() -> dict[frozenset[str], list[Card]]:
    """Words of a name -> the cards that it may mean."""
    index: dict[frozenset[str], list[Card]] = {}
    for card in GPUS.values():
        for name in (card.model, *card.aliases):
            named = names.words(name)
            for key in {named, names.plain(named), named - {"rtx", "gtx"}, named - {"jetson"}}:
                if card not in index.setdefault(key, []):
                    index[key].append(card)
    return index


def _named(reading: Reading) -> list[Card]:
    """The cards of all sizes that have these words, with as few of them read over as possible."""
    for key in (
        reading.words,
        reading.words - {"rtx", "gtx"},
        names.plain(reading.words),
        names.plain(reading.words) - {"pcie"},
    ):
        if key and key in _index():
            return _index()[key]
    again = reading.without_last_number()
    return (_named(again) if again else []) or _named_twice(reading.words)


@cache
def _forms() -> list[tuple[Card, set[frozenset[str]]]]:
    """Each card that has several names, with the words of each."""
    forms = [
        (card, {names.plain(names.words(name)) for name in (card.model, *card.aliases)})
        for card in GPUS.values()
    ]
    return [(card, named) for card, named in forms if len(named) > 1]


def _named_twice(words: frozenset[str]) -> list[Card]:
    """The card of a text with two of its names and nothing else: `DGX Spark (GB10)`."""
    twice = []
    for card, forms in _forms():
        named = [form for form in forms if form and form <= words]
        if len(named) > 1 and names.plain(words) == frozenset().union(*named):
            twice.append(card)
    return twice


def _of_size(reading: Reading, cards: list[Card]) -> list[Card]:
    """Those of the size that was written, or of the usual sizes where none was."""
    size = reading.size_gb
    again = reading.without_last_number()
    if again and cards and reading.words not in _index() and _named(again) == cards:
        size = again.size_gb
    if reading.vgpu and size and cards:  # a part of the memory of the largest
        same = [card for card in cards if card.model == cards[0].model]
        largest = max(same, key=lambda card: card.sold_gb)
        return [_part(largest, size)] if size <= largest.sold_gb else []
    if size is None:
        return [card for card in cards if not card.is_rare]
    exact = [card for card in cards if card.sold_gb == size]
    exact = exact or [c for c in cards if any(f"{size}gb" in a.split() for a in c.aliases)]
    of_laptops = _index().get(reading.words | {"laptop"}, [])
    exact = exact or [card for card in of_laptops if card.sold_gb == size]
    # as drivers report it: a T4 has 15 GB, an L4 22 or 23
    return exact or [c for c in cards if c.usable_bytes // GIB <= size < c.sold_gb]


def _part(card: Card, size_gb: int) -> Card:
    """A virtual card with a part of the memory; its share that can be used is that of the whole."""
    usable = card.usable_bytes * size_gb // card.sold_gb
    source = f"its share of the {card.name}; a virtual card keeps more for itself"
    name = f"{card.model} vGPU {size_gb}GB"
    return replace(card, name=name, usable_bytes=usable, status="derived", source=source)


def sold_as(gigabytes: float) -> list[int]:
    """Usable bytes of each card that is sold with this much memory of its own.

    Of those with a source; only where there are none, of those whose figure is derived.
    """
    cards = [c for c in GPUS.values() if c.sold_gb == gigabytes and not c.is_unified]
    sourced = [card.usable_bytes for card in cards if card.status != "derived"]
    return sourced or [card.usable_bytes for card in cards]


def size_class(usable_bytes: int) -> str:
    """The size that a card with this much usable memory is sold in, such as `16GB`.

    It is the smallest size that holds so much and of which `USABLE_SHARE` is there, else the
    largest that is there in full.
    """
    sold = sorted({card.sold_gb for card in GPUS.values() if not card.is_rare})
    fitting = [gb for gb in sold if gb * GIB * USABLE_SHARE <= usable_bytes <= gb * GIB]
    smaller = [gb for gb in sold if gb * GIB <= usable_bytes]
    return f"{(fitting or smaller[-1:] or [max(1, usable_bytes // GIB)])[0]}GB"
