"""Reads the units behind a number.

A unit is a known one in any spelling (cm, centimetres) or a plain plural noun (apples, golf balls).
Words that change a value (times, thirds, below zero) are not units. Symbols are case-sensitive,
since mm is not Mm. Limits: units are never converted, so that 36 cm is not 0.36 m; words are
English.
"""

import re
from fractions import Fraction

from r1recipes.rewards.answers.number_words import SMALL_NUMBERS

_PREFIXES = ("", "n", "\u03bc", "u", "m", "c", "d", "k", "M", "G", "T")
_BASES = ("m", "g", "s", "L", "l", "N", "J", "W", "V", "A", "Hz", "Pa", "mol", "eV", "Wh", "\u03a9",
          "cal", "B", "bit")  # fmt: skip
_SYMBOLS = {prefix + base for prefix in _PREFIXES for base in _BASES} - {"m", "u", "d"}
_SYMBOLS |= set(
    """m K \u00b0C \u00b0F \u00b0 lb oz ft in yd mi min h d wk mo yr t ha bar atm rad dB
    ppm ppb rpm hp gal qt tsp tbsp px pt hPa kbps Mbps Gbps $ kr""".split()
)
_SYMBOLS |= set("\u20ac\u00a3\u00a5\u20b9\u20a9\u20bd\u20ba\u00a2")
_ONE_LETTER = frozenset("mgshLlNJWV\u03a9")
"""Symbols of one letter that may follow a number without being taken for a variable."""
_GLUED = frozenset("gshL")
"""Symbols that may follow it without a space: 5m may be five million, 5x is a product."""

_ALIASES = {
    "$": "dollar dollars usd us$ buck bucks", "\u20ac": "euro euros eur",
    "\u00a3": "gbp quid", "\u00a5": "yen jpy \u5186", "\u5143": "yuan rmb cny \u5143",
    "\u20b9": "rupee rupees rs inr", "\u20a9": "won krw", "\u20bd": "ruble rubles rub",
    "\u00a2": "cent cents", "pound": "pound pounds", "lb": "lbs", "m": "meter meters metre metres",
    "cm": "centimeter centimeters centimetre centimetres", "dm": "decimeter decimeters decimetre",
    "mm": "millimeter millimeters millimetre millimetres",
    "km": "kilometer kilometers kilometre kilometres kms", "in": "inch inches",
    "ft": "foot feet", "yd": "yard yards yds", "mi": "mile miles", "g": "gram grams gm",
    "kg": "kilogram kilograms kilo kilos kgs", "mg": "milligram milligrams",
    "t": "tonne tonnes ton tons", "oz": "ounce ounces", "s": "second seconds sec secs",
    "min": "minute minutes mins", "h": "hour hours hr hrs", "d": "day days",
    "wk": "week weeks", "mo": "month months", "yr": "year years yrs",
    "L": "liter liters litre litres l", "mL": "milliliter milliliters millilitre millilitres ml",
    "\u00b0": "degree degrees deg degs", "\u00b0C": "celsius", "\u00b0F": "fahrenheit",
    "gal": "gallon gallons", "N": "newton newtons", "J": "joule joules", "W": "watt watts",
    "V": "volt volts", "A": "ampere amperes amp amps", "Hz": "hertz", "Pa": "pascal pascals",
    "rad": "radian radians", "mi/h": "mph", "\u03bcg": "mcg",
    "km/h": "kmh kph", "cm^3": "cc", "mol": "moles mole",
    "": "unit units",
}  # fmt: skip
_WORD_PREFIXES = {
    "nano": "n",
    "micro": "\u03bc",
    "milli": "m",
    "kilo": "k",
    "mega": "M",
    "giga": "G",
}
_PREFIXED = re.compile(f"({'|'.join(_WORD_PREFIXES)})([a-z]+)")
_CANONICAL = {word: name for name, spelled in _ALIASES.items() for word in spelled.split()}
_EAST_ASIAN = {
    "\u5143": "\u5143", "\u5186": "\u00a5", "\u4e2a": "", "\u500b": "", "\u53ea": "", "\u672c": "",
    "\u4eba": "\u4eba", "\u5c81": "yr", "\u6b73": "yr", "\u5929": "d", "\u5c0f\u65f6": "h",
    "\u5206\u949f": "min", "\u79d2": "s", "\u7c73": "m", "\u5398\u7c73": "cm", "\u516c\u91cc": "km",
    "\u5343\u514b": "kg", "\u514b": "g", "\u5ea6": "\u00b0", "\u5e74": "yr", "\u516c\u65a4": "kg",
}  # fmt: skip
CURRENCY = re.compile(
    r"(?:(?:US|AU|CA|HK|NZ|A|C|S|R)?\$|[\u20ac\u00a3\u00a5\u20b9\u20a9\u20bd\u20ba]"
    r"|(?:USD|EUR|GBP|JPY|INR|CNY|RMB|KRW|RUB|Rs)(?![A-Za-z])\.?)\s*"
)

_IRREGULAR = frozenset(
    "people children men women sheep fish mice geese teeth deer data dice".split()
)
_CLOSERS = frozenset(
    """total left altogether overall remaining each exactly precisely old long tall wide high deep
    away apart more extra additional ago only""".split()
)
_LINKS = frozenset("of per a an each every in for the on".split())
_NO_UNIT = frozenset(
    """times halves thirds quarters fourths fifths sixths sevenths eighths ninths tenths
    hundredths thousandths tens hundreds thousands millions billions trillions dozens
    scores plus minus less is was has does this thus its as us his hers ours yours theirs
    yes unless across towards always sometimes besides perhaps versus modulus millones
    billones docenas douzaines centaines milliers squared cubed square cube root roots log
    power factorial short off fewer debt loss deficit negative positive opposite inverse
    reciprocal and or not no never but than below above under over before after past to
    from between until up down at most least about around approximately approx roughly
    nearly almost maybe probably possibly likely wrong false incorrect right correct true
    if when because since so else otherwise with without by then remainder modulo mod base
    max min maximum minimum million billion trillion thousand hundred dozen half third
    quarter fifth tenth percent point guess think believe st nd rd th ish tops fails
    equals seems exceeds lacks differs misses means pair pairs couple couples score gross
    trio trios duo duos percentage basis permille""".split()
)
_TOKEN = re.compile(
    r"[A-Za-z\u03bc\u03a9\u00b0$\u20ac\u00a3\u00a5\u20b9\u20a9\u20bd\u20ba\u00a2]+\.?"
    r"(?:\^\s?(?:\{\s?-?[1-4]\s?\}|-?[1-4])|(?<=[a-z])[23](?!\w))?|/"
)
_PHRASE = re.compile(rf"(?:{_TOKEN.pattern})(?:[ \u00b7*-]*(?:{_TOKEN.pattern})){{0,7}}")


_RUSSIAN = re.compile(
    "\u044f\u0431\u043b\u043e\u043a[\u0430\u043e]?|\u0433\u0440\u0443\u0448[\u0430\u0438]?|\u043a\u043d\u0438\u0433[\u0430\u0438]?"
    "|\u0448\u0442\u0443\u043a[\u0430\u0438]?|\u0447\u0435\u043b\u043e\u0432\u0435\u043a\u0430?|\u043a\u043e\u043d\u0444\u0435\u0442[\u0430\u044b]?"
    "|\u0440\u0443\u0431\u043b(?:\u044c|\u044f|\u0435\u0439)|\u0434(?:\u0435\u043d\u044c|\u043d\u044f|\u043d\u0435\u0439)|\u0433\u043e\u0434\u0430?|\u043b\u0435\u0442"
    "|\u0447\u0430\u0441(?:\u0430|\u043e\u0432)?|\u043c\u0438\u043d\u0443\u0442[\u0430\u044b]?|\u0441\u0435\u043a\u0443\u043d\u0434[\u0430\u044b]?"
    "|(?:\u043a\u0438\u043b\u043e|\u0441\u0430\u043d\u0442\u0438)?\u043c\u0435\u0442\u0440(?:\u0430|\u043e\u0432)?"
    "|(?:\u043a\u0438\u043b\u043e)?\u0433\u0440\u0430\u043c\u043c(?:\u0430|\u043e\u0432)?",
    re.IGNORECASE,
)
"""Russian nouns that stand behind numbers in word problems; any other word, such as the one for
"almost", may change the number."""


def read_unit(tail: str, value: Fraction, *, is_glued: bool, expected: str = "") -> str | None:
    """The canonical unit in a text behind a number; "" for no text, None if it is not a unit.

    `value` matters for nouns: "1 apple", but "5 apples". The unit of the reference (`expected`)
    always counts as one.
    """
    tail = tail.strip()
    if not tail:
        return ""
    if tail in _EAST_ASIAN:
        return _EAST_ASIAN[tail]
    if not is_glued and _RUSSIAN.fullmatch(tail):
        return tail.casefold()
    if not _PHRASE.fullmatch(tail):
        return None
    tokens = [token.rstrip(".") for token in _TOKEN.findall(tail)]
    if is_glued and (_is_decade(tokens, value, expected) or re.fullmatch("[a-z]\\d", tokens[0])):
        return None
    if is_glued and len(tokens[0]) == 1 and tokens[0].isalpha() and tokens[0] not in _GLUED:
        return None
    unit = _measure(_without_closers(tokens))
    if unit is None and not is_glued:
        unit = _noun(tokens, value)
    if unit is None and expected and " ".join(tokens) == expected:
        return expected
    return unit


def same_unit(left: str, right: str) -> bool:
    """Whether two canonical units agree: one is missing, or they are the same."""
    if not left or not right or left == right:
        return True
    if "pound" in (left, right) and {left, right} <= {"pound", "lb", "\u00a3"}:
        return True
    short, long = sorted((left, right), key=len)  # $36 an hour, where the reference says $36
    return not short.isalpha() and long.startswith(f"{short}/")


def _is_decade(tokens: list[str], value: Fraction, expected: str) -> bool:
    """Whether 1990s is a decade and not a number of seconds."""
    return tokens == ["s"] and expected != "s" and 1000 <= value < 3000 and value % 10 == 0


def _without_closers(tokens: list[str]) -> list[str]:
    """The words without those that add nothing: 36 cm in total, 5 years old."""
    while tokens and tokens[-1] in _CLOSERS:
        tokens = tokens[:-1]
    return tokens[:-1] if tokens[1:] and tokens[-1] == "in" and tokens[:1] != ["in"] else tokens


def _measure(tokens: list[str]) -> str | None:
    """A known unit, its powers and quotients: cm^2, square feet, miles per hour, m/s."""
    made, power, over = "", "", False
    for token in tokens:
        word = token.casefold()
        if word in ("square", "sq", "cubic", "cu"):
            power = "^2" if word.startswith("sq") else "^3"
        elif word in ("per", "/", "a", "an", "every") and made:
            over = True
        elif word in ("squared", "cubed") and made:
            made += "^2" if word == "squared" else "^3"
        elif token in ("C", "F") and made == "\u00b0":
            made += token
        else:
            name = _named(token)
            if name is None:
                return None
            if "^-" in name and made:  # m s^-1 is m/s
                if over:
                    return None
                name, over = name.replace("^-", "^").removesuffix("^1"), True
            made += ("/" if over else " " if made else "") + (name and name + power)
            power, over = "", False
    made = {"\u00b0 \u00b0C": "\u00b0C", "\u00b0 \u00b0F": "\u00b0F"}.get(made, made.strip())
    return None if over or power else made


def _named(token: str) -> str | None:
    """The canonical name of one known unit with its power; None for any other word."""
    token = re.sub(r"(?<=[a-z])([23])$", r"^\1", token)  # cm2
    stem, raised, power = token.replace(" ", "").replace("{", "").replace("}", "").partition("^")
    if len(stem) == 1 and stem.isalpha() and stem not in _ONE_LETTER:
        return None
    name = _CANONICAL.get(stem)
    if name is None and stem in _SYMBOLS:
        name = stem
    if name is None:
        name = _CANONICAL.get(stem.casefold())
    if name is None and stem.isupper() and stem.lower() in _SYMBOLS:
        name = stem.lower()
    prefixed = _PREFIXED.fullmatch(stem.casefold()) if name is None else None
    if prefixed and (base := _CANONICAL.get(prefixed[2])):
        symbol = _WORD_PREFIXES[prefixed[1]] + base
        name = symbol if symbol in _SYMBOLS else None
    if name and name[0] == "u" and name[1:] in _BASES:
        name = "\u03bc" + name[1:]
    return name and name + raised + power


def _noun(tokens: list[str], value: Fraction) -> str | None:
    """A plain noun phrase in the plural ("golf balls") without words that change the value."""
    lowered = [token.casefold() for token in tokens]
    if any(len(word) < 2 and word != "a" or word in _NO_UNIT for word in lowered):
        return None
    if any(word in SMALL_NUMBERS for word in lowered):
        return None  # another number
    if any(not word.isalpha() and word != "/" for word in lowered):
        return None
    head: list[str] = []
    for word in lowered:
        if word in _LINKS or word == "/":
            break
        if word not in _CLOSERS:
            head.append(word)
    if not head:
        is_closed = lowered[-1] in _CLOSERS and all(
            word in _CLOSERS or word == "in" for word in lowered
        )
        return "" if is_closed else None
    plurals = [word for word in head if _is_plural(word)]
    if not plurals and not 0 < abs(value) <= 1:
        return None
    noun = (plurals or head)[-1]
    return _CANONICAL.get(noun, _singular(noun))


def _is_plural(word: str) -> bool:
    return (
        word in _IRREGULAR
        or word in _CANONICAL
        or (len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")))
    )


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "zes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if _is_plural(word) and word.endswith("s") else word


_LAST_WORDS = re.compile(r"(?<=[\w)}])((?:\s+[A-Za-z]{2,12}){1,3})((?:\^\{?[23]\}?)?)$")


def without_unit(text: str) -> tuple[str, str]:
    """An expression without the unit behind it, and that unit: 2\u221a5 and cm."""
    match = _LAST_WORDS.search(text[-60:])
    if match is None:
        return text, ""
    last_words = match[1].split()
    for first in range(len(last_words)):
        tokens = [*last_words[first:-1], last_words[-1] + match[2]]
        unit = _measure(tokens)
        if unit is not None:
            tail = len(match[2]) + sum(len(word) + 1 for word in last_words[first:])
            return text[: len(text) - tail].rstrip(), unit
    return text, ""


def is_known_unit(unit: str) -> bool:
    """Whether a canonical unit is one of measure or a currency, and not a noun."""
    return all(
        part in _SYMBOLS or part in _ALIASES for part in re.split(r"[\s/]|\^\d", unit) if part
    )
