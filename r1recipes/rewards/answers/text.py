r"""Normalises the text of an answer, so that different spellings become the same text.

It removes invisible characters, HTML, Markdown, code fences, LaTeX wrappers (\boxed, \text, $...$)
and phrases such as "The answer is", and maps digits and signs of other scripts to ASCII. Time is
linear in the length of the text, which the callers limit. Limits: phrases are recognised in
English, and the most common ones in ten other languages.
"""

import html
import re
import unicodedata

MAX_WRAPPINGS = 8
"""Pairs of quotes or brackets around an answer; assumed, nobody writes more."""

NEGATIONS = frozenset(
    """not no never none neither nor cannot can't isn't aren't wasn't weren't doesn't don't didn't
    won't without except but instead wrong false incorrect unlikely untrue rather
    nobody nothing""".split()
)
HEDGES = frozenset(
    """about approximately approx around roughly nearly almost circa ca maybe perhaps probably
    possibly possible likely think guess believe suppose assume might could may should estimate
    estimated unsure uncertain seems appears ish somewhere unknown close near""".split()
)
DOUBTFUL = NEGATIONS | HEDGES | {"or", "either", "if", "unless", "supposing"}
"""A phrase with one of these words does not lead to an answer."""

_ANSWER_NOUNS = (
    "answer|ans|result|solution|output|conclusion|option|choice|antwort|lösung|ergebnis|respuesta|"
    "resultado|solución|réponse|résultat|resposta|risposta|ответ|відповідь|odpowiedź|antwoord"
)

_SAME = {
    "\u066b": ".", "\u066c": ",", "\u066a": "%", "\u060c": ",", "\u061b": ";", "\u061f": "?",
    "\u3002": ".", "\uff61": ".", "\u3001": ",", "\u2044": "/", "\u2215": "/", "\u2236": ":",
    "\u2212": "-", "\u00ba": "\u00b0", "\u02da": "\u00b0", "\u2103": "\u00b0C", "\u2109": "\u00b0F",
    "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'", "\u02bc": "'", "\u00b4": "'",
    "\u2032": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u201f": '"', "\u2033": '"',
    "\u00ab": '"', "\u00bb": '"', "\u300c": '"', "\u300d": '"', "\u300e": '"', "\u300f": '"',
    "\u300a": '"', "\u300b": '"', "\u2022": "*", "\u25cf": "*", "\u22c5": "\u00b7",
    "\u2219": "\u00b7", "\u2715": "\u00d7", "\u2716": "\u00d7", "\u2a2f": "\u00d7",
    "\u301c": "~", "\u223c": "~", "\u2248": "~", "\u2243": "~", "\u2245": "~", "\u2a7d": "\u2264",
    "\u2a7e": "\u2265", "\u2266": "\u2264", "\u2267": "\u2265", "\u27f6": "\u2192",
    "\u21d2": "\u2192", "\u2234": "\u2192", "\u2126": "\u03a9", "\u00b5": "\u03bc",
    "\u02b9": "'", "\u27e8": "(", "\u27e9": ")", "\u2329": "(", "\u232a": ")",
    "\u221b": "\u221a[3]",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207d\u207e\u207f",
    "0123456789+-()n",
)
_RAISED = re.compile(
    "[\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207d\u207e\u207f]+"
)
_LOWERED = re.compile("[\u2080-\u2089]+")
_ONE_LOWERED = re.compile(r"_\{\s*(\w)\s*\}")
_TAG = re.compile(
    r"</?(?:b|i|em|strong|u|span|code|mark|center|font|small|big|sub|div|p|br|pre)\s*/?>", re.I
)
_FENCE = re.compile(r"\s*```[A-Za-z0-9]*\n?(.*?)\n?```\s*", re.DOTALL)
_EMPHASIS = re.compile(r"(?<![\w)*])\*{1,3}(?=[^\s*])([^*\n]+)(?<=\S)\*{1,3}(?![\w(*])")
_MARK = re.compile(r"(?:#{1,6}\s*|\*\s+)(?=\S)")
_SIZE = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|rm|bf|it)(?![A-Za-z])\s?"
)
_NO_SPACE = re.compile(r"\\!\s*")
_SPACE = re.compile(r"(?<!\\)\\(?:[,;: ]|quad(?![A-Za-z])|qquad(?![A-Za-z]))|\\\\(?=\s*$)")
_GROUPING = re.compile(
    r"\\(?P<dress>text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt|bb|cal)|operatorname|mbox|"
    r"emph|underline|boldsymbol)\s*\{|\\(?P<box>boxed|fbox)\s*\{|(?P<escaped>\\[{}])|(?P<brace>[{}])"
)
_COMMANDS = {
    "leq": "\u2264", "le": "\u2264", "leqslant": "\u2264", "geq": "\u2265", "ge": "\u2265",
    "geqslant": "\u2265", "lt": "<", "gt": ">", "neq": "\u2260", "ne": "\u2260", "approx": "~",
    "sim": "~", "simeq": "~", "cong": "~", "equiv": "\u2261", "times": "\u00d7", "cdot": "\u00b7",
    "ast": "*", "div": "\u00f7", "pm": "\u00b1", "mp": "\u2213", "infty": "\u221e", "pi": "\u03c0",
    "degree": "\u00b0", "dots": "...", "ldots": "...", "cdots": "...", "to": "\u2192",
    "rightarrow": "\u2192", "Rightarrow": "\u2192", "implies": "\u2192", "therefore": "\u2192",
    "cup": "\u222a", "cap": "\u2229", "in": "\u2208", "dfrac": "\\frac", "tfrac": "\\frac",
    "cfrac": "\\frac", "sqrt": "\u221a", "pounds": "\u00a3", "euro": "\u20ac", "cent": "\u00a2",
    "emptyset": "\u2205", "varnothing": "\u2205", "alpha": "\u03b1", "beta": "\u03b2",
    "gamma": "\u03b3", "delta": "\u03b4", "theta": "\u03b8", "lambda": "\u03bb", "mu": "\u03bc",
    "omega": "\u03c9", "phi": "\u03c6", "sigma": "\u03c3", "lbrace": "\\{", "rbrace": "\\}",
    "lvert": "|", "rvert": "|", "textdegree": "\u00b0", "prime": "'", "colon": ":",
    "land": "\u2227", "wedge": "\u2227", "lor": "\u2228", "vee": "\u2228", "neg": "\u00ac",
    "lnot": "\u00ac", "langle": "(", "rangle": ")", "angle": "\u2220", "triangle": "\u25b3",
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_DEGREES = re.compile(r"\^\s*(?:\{\s*(?:\u00b0|\\circ)\s*\}|\u00b0|\\circ(?![A-Za-z]))")
_ASCII = re.compile(r"\+\s?/?\s?-(?=\s?[\d.])|<?=+>|<=|=<|>=|!=|=/=|<>|==|:=|<?-+>")
_ASCII_SIGNS = {
    "<=": "\u2264", "=<": "\u2264", ">=": "\u2265", "!=": "\u2260", "=/=": "\u2260",
    "<>": "\u2260", "==": "=", ":=": "=", "=>": "\u21d2",
}  # fmt: skip
_BEFORE = "\ue000"  # of the private use area, which `_Characters` empties first: an escaped dollar


class _Characters(dict[int, str]):
    """A table for str.translate that fills itself: each character in its normal form."""

    def __missing__(self, code: int) -> str:
        self[code] = plain = _plain(chr(code))
        return plain


def _plain(character: str) -> str:
    if character in "\n\t" or character.isascii() and character.isprintable():
        return character
    if character in _SAME:
        return _SAME[character]
    category = unicodedata.category(character)
    if category in ("Cf", "Co", "Cn", "Me") or "\ufe00" <= character <= "\ufe0f":
        return ""  # invisible
    if category in ("Cc", "Cs", "Zs", "Zl", "Zp"):
        return " "
    if category == "Pd":
        return "-"
    if category == "Nd":
        return str(unicodedata.decimal(character))
    compatible = unicodedata.normalize("NFKC", character)
    if "\u2044" in compatible:  # one half and its kind; a mixed fraction needs the space
        return f" {compatible.replace(chr(0x2044), '/')} "
    return compatible


_CHARACTERS = _Characters()


def tidy(text: str) -> str:
    """The text in normal characters, without invisible ones, HTML or code fences; stripped.

    A raised digit is a power: 10\u00b3 becomes 10^{3}, never 103.
    """
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = text.replace("<sup>", "^{").replace("</sup>", "}")
        text = _TAG.sub(" ", text) if "<br" in text or "<p" in text else _TAG.sub("", text)
    if not text.isascii():
        text = _RAISED.sub(lambda run: "^{" + run[0].translate(_SUPERSCRIPTS) + "}", text)
        text = _LOWERED.sub(lambda run: "_{" + unicodedata.normalize("NFKC", run[0]) + "}", text)
        text = unicodedata.normalize(
            "NFC", unicodedata.normalize("NFC", text).translate(_CHARACTERS)
        )
    else:
        text = text.translate(_CHARACTERS)
    fenced = _FENCE.fullmatch(text) if "```" in text else None
    return (fenced[1] if fenced else text).strip()


def clean(text: str) -> str:
    """`tidy`, without Markdown and LaTeX wrappers, in single spaces. Case is unchanged.

    The braces of a set, \\{1, 2\\}, stay escaped, commands with a meaning such as \\frac stay, and
    "$" stays where it is a currency.
    """
    text = tidy(text)
    if "*" in text:
        text = _EMPHASIS.sub(r"\1", text)
    if mark := _MARK.match(text):
        text = text[mark.end() :]
    text = text.replace("{,}", ",").replace("\\$", _BEFORE)
    if text.count("$") % 2 == 0:  # mathematics is between two of them
        text = text.replace("$", " ")
    text = text.replace(_BEFORE, "$")
    if "\\" in text:
        text = _without_latex(text)
    if any(sign in text for sign in "<>=+"):
        text = _ASCII.sub(_unicode_sign, text)
    if "_{" in text:
        text = _ONE_LOWERED.sub(r"_\1", text)
    return " ".join(text.split())


def _unicode_sign(match: re.Match[str]) -> str:
    sign = match[0]
    if sign[0] == "+":
        return "\u00b1"
    return _ASCII_SIGNS.get(sign, "\u2192")


def _without_latex(text: str) -> str:
    text = text.replace("\\(", " ").replace("\\)", " ").replace("\\[", " ").replace("\\]", " ")
    text = _SPACE.sub(" ", _NO_SPACE.sub("", text).replace("~", " "))
    text = _SIZE.sub("", text.replace("\\%", "%").replace("\\#", "#").replace("\\&", "&"))
    text = _COMMAND.sub(_plain_command, _undress(text.replace("\\_", "_")))
    return _DEGREES.sub("\u00b0", text)


def _plain_command(match: re.Match[str]) -> str:
    plain = _COMMANDS.get(match[1])
    if plain is None:
        return match[0]
    return f" {plain} " if plain == "\u2192" else plain


def _undress(text: str) -> str:
    """The text without \\boxed{}, \\text{} and the like, but with their content."""
    pieces: list[str] = []
    closers: list[str] = []
    last = 0
    for match in _GROUPING.finditer(text):
        pieces.append(text[last : match.start()])
        last = match.end()
        if match["dress"] or match["box"]:
            space = " " if match["box"] else ""
            pieces.append(space)
            closers.append(space)
        elif match["brace"] == "{":
            pieces.append("{")
            closers.append("}")
        elif match["brace"] == "}":
            pieces.append(closers.pop() if closers else "}")
        else:
            pieces.append(match["escaped"])
    pieces.append(text[last:])
    return "".join(pieces)


_PAIRS = {'"': '"', "'": "'"}
_MARKDOWN = ("`", "_", "*")
_BRACKETS = {"(": ")", "[": "]"}


def unwrap(text: str, *, brackets: bool = False) -> str:
    """The text without quotes, backticks and, where asked, brackets around it, and full stop."""
    pairs = _PAIRS | _BRACKETS if brackets else _PAIRS
    for _ in range(MAX_WRAPPINGS):
        before = text
        text = text.strip()
        if text[-1:] in (".", ",", ";") and text[-2:-1] not in ("", "."):
            text = text[:-1].rstrip()
        if len(text) > 2 and text[0] == text[-1] and text[0] in _MARKDOWN:
            text = text.strip(text[0])
        closer = pairs.get(text[:1])
        if closer and len(text) > 2 and text[-1] == closer:
            inner = text[1:-1]
            if closer not in inner and text[0] not in inner:
                text = inner
        if text == before:
            break
    return text


_LEAD = re.compile(
    rf"""(?:(?:so|thus|hence|therefore|then|ok|okay|finally|in\ conclusion|in\ summary|well)
    (?:,\s*|:\s*|\s+))*
    (?:(?:the|my|our|your|la|le|el|die|das|o|a|il)\s+)?
    (?:(?:final|correct|right|best|exact|numerical|required)\s+)*
    (?:{_ANSWER_NOUNS})
    (?:\s+(?:to|of|for)\s+(?:this|the)\s+(?:question|problem|puzzle|equation|exercise))?
    \s*(?:(?:is|was|would\ be|will\ be|must\ be|becomes|equals|ist|lautet|es|est|\u00e8|\u00e9
      |\u044d\u0442\u043e|jest)\b\s*:?
      |[:=]|\u2192|-(?=\s))\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_LEAD_CJK = re.compile(
    "(?:\u6240\u4ee5|\u56e0\u6b64|\u6545)?[,\uff0c]?(?:\u6211)?(?:\u6b63\u786e|\u6700\u7ec8)?\u7684?"
    "(?:\u7b54\u6848|\u6b63\u89e3|\u7b54\u3048|\u7ed3\u679c|\u7d50\u679c|\u9009\u9879|\u9078\u9805"
    "|\u9009\u62e9|\u9078\u64c7|\u9009|\u9078|\ub2f5|\uc815\ub2f5)"
    "(?:\u5e94\u8be5)?(?:\u662f|\u4e3a|\u70ba|\u306f|\u9009|\uc740|\ub294)?\\s*:?\\s*"
)
_TAIL = re.compile(
    r"\s+is\s+(?:the|my|our)\s+(?:final\s+|correct\s+|right\s+)*"
    r"(?:answer|result|solution|choice|option)$",
    re.IGNORECASE,
)
_COPULA = re.compile(r"\b(?:is|are|was|were|it's|that's|there's)\s+:?\s*", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def without_lead(text: str) -> list[str]:
    """The text without a phrase such as "The answer is"; empty where it has none."""
    whole = unwrap(text)
    short = _TAIL.sub("", whole)
    match = _LEAD.match(short) or _LEAD_CJK.match(short)
    if match and match.end() < len(short):
        short = short[match.end() :]
    return [unwrap(short)] if short != whole else []


def remainders(text: str) -> list[str]:
    """The texts that may be the answer itself, the most literal first.

    "The answer is Paris." gives itself and "Paris". A phrase that expresses doubt or denial ("the
    wrong answer is", "it might be") is not removed. `text` is clean.
    """
    texts = [unwrap(text), *without_lead(text)]
    last = texts[-1][:500]
    copulas = list(_COPULA.finditer(last))
    if len(texts) == 1 and copulas:
        subject, rest = last[: copulas[-1].start()], texts[-1][copulas[-1].end() :]
        if rest and not doubts(subject) and not re.search(r"\d", subject):
            texts.append(unwrap(rest))
    return texts


def doubts(subject: str) -> bool:
    """Whether a phrase before an answer denies or doubts it; "of possible ways" does not."""
    subject = re.sub(r"\b(?:of|all) (?:the )?possible\b", "", subject, flags=re.IGNORECASE)
    return not DOUBTFUL.isdisjoint(words(subject))


def words(text: str) -> list[str]:
    """The words of a text in lower case, with their apostrophes."""
    return _WORD.findall(text.casefold())


def same_text(answer: str, reference: str) -> bool:
    """Whether two clean texts are the same without case, quotes, articles and last marks.

    Texts of one or two letters keep their case: CO is not Co, and a move R is not a move r.
    """
    left, right = _comparable(answer), _comparable(reference)
    if not left or left.casefold() != right.casefold():
        return False
    letters = sum(character.isalpha() for character in right)
    return (
        left == right or letters > 2 or right.casefold() in ("ok", "no", "n/a") or _is_clock(right)
    )


def _is_clock(text: str) -> bool:
    return re.fullmatch(r"[\d:. ]+[ap]\.?m\.?", text.casefold()) is not None


_ARTICLE = re.compile(r"(?:the|an?)\s+(?=[^\W\d_]{3}|\d{4}s\b)", re.IGNORECASE)
_LOOSE = re.compile(r"\s*([-:/,;\u2192\u2220\u25b3])\s*")
_FORMULA = re.compile(r"(?<=[A-Za-z)])_(?=\d)")
_NOON = re.compile(r"\b([ap])\.m\b\.?", re.IGNORECASE)


def _comparable(text: str) -> str:
    text = unwrap(unwrap(text).rstrip("!"))
    text = text.replace("\\{", "{").replace("\\}", "}")
    text = _NOON.sub(r"\1m", _FORMULA.sub("", text))
    return _LOOSE.sub(r"\1", _ARTICLE.sub("", text, count=1) if _ARTICLE.match(text) else text)
