"""Values in a text next to a name that says what they are: `cvv=987`, `<cvv>737</cvv>`, `exp 12/27`.

It needs no grammar, so it also reads what is cut off, or written by hand in a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Final

from pipeline.transforms.encodings import Edit
from pipeline.transforms.names import HINTS, Meaning, applies, is_card_context, meaning_of

Token = Callable[[str, str], str]

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.\-\[\]]*")
# By their first letters, so that a letter is compared with few of them.
_HINT = re.compile(
    "|".join(
        f"{first}(?:{'|'.join(re.escape(hint[1:]) for hint in hints)})"
        for first, hints in groupby(sorted(HINTS, reverse=True), key=itemgetter(0))
    )
)
_CAPITALS = re.compile(r"[A-Z]+")
_CODE_WORD = re.compile(r"(?:cv|cs|ca|pin|code).*(?<![0-9])[0-9]{3,4}\]?\Z", re.I)
_PHRASE: Final = 4
_BACK: Final = 96  # characters before a hint in which its phrase begins
_LONGEST_WORD: Final = 80
_LONGEST_SHAPE: Final = 32  # characters of what looks like a date or a code
_NEAR: Final = 4096  # how far an element or an object is followed

# From a name to its value: quotes that end the name, a sign, and quotes or brackets that begin the value.
_KEYED = re.compile(
    r"""(?:['’]s(?:\s(?:full\s)?name)?)?["'\\\])]{0,8}\s{0,8}(?:;(?:s:[0-9]{1,5}:|[idb]:)|(?:\r?\n[A-Za-z-]{1,32}:[^\r\n]{0,80}){0,3}"""
    r"""(?<=["'\n])(?:\r?\n){2}|=>|->|:=|[=:>|]|(?<=["'\]]),|,(?=\s?["']))(?:<!\[CDATA\[|[\s"'\\\[({]){0,24}"""
    r"""(?:(?:value|val|content|text)["'\\]{0,6}\s{0,4}[=:>][\s"'\\]{0,12})?"""
)
_PAIRED = re.compile(
    r"""["'\\]{1,8}[\s,;]{1,12}["'\\]{0,8}(?:value|val|content|text)["'\\]{0,8}\s{0,4}[=:>][\s"'\\]{0,12}"""
)
_UNQUOTED = re.compile(r"[^\s&,;<>\"'|)\]}\\{\[(]{1,512}")
_UNQUOTED_NAME = re.compile(r"[^&,;<>|\"'\n\r={}\[\]()\\:]{1,256}")
# What must follow a name for anything to be its value.
_MAY_FOLLOW = re.compile(
    r"""[^0-9A-Za-z]{0,12}(?:[\d"'\\\])}=:>|,]|[A-Z]|(?:is|was|code|value|number|no|nr|num|of|the|on|date|by|name|entered|given)\b)"""
)
_SPACED_EXPIRY = re.compile(r"(?:0?[1-9]|1[0-2])\s?[/\-.]\s?(?:20)?[2-4][0-9](?![0-9])")
_LAST_WORD = re.compile(r"[\s+]+[\w.\-]+\Z")
_PROSE_CODE = re.compile(
    r"[^0-9A-Za-z]{0,12}(?:(?:is|was|number|code|value|no|nr|num|of|the|entered|given)\b[^0-9A-Za-z]{0,6}){0,3}(\d{3,4})(?![0-9A-Za-z])"
)
_PROSE_PIN = re.compile(r"[^0-9A-Za-z]{0,6}(?:(?:is|was|code|number)\b[^0-9A-Za-z]{0,4}){0,2}(\d{4,6})(?![0-9A-Za-z])")
_PROSE_EXPIRY = re.compile(
    r"[^0-9A-Za-z]{0,8}(?:(?:is|on|date|by)\b[^0-9A-Za-z]{0,4}){0,2}"
    r"((?:0?[1-9]|1[0-2])\s?[/\-]\s?(?:20)?[2-4][0-9](?![0-9])(?!\s?[/\-]\s?[0-9])|(?:0[1-9]|1[0-2])[2-4][0-9](?![0-9A-Za-z]))"
)
_PROSE_NAME = re.compile(
    r"[^0-9A-Za-z]{0,4}(?:(?:is|was|name)\b[^0-9A-Za-z]{1,4})?((?:[A-Z][A-Z'.\-]+[ +]){1,3}[A-Z][A-Z'.\-]+)\b"
)
_IN_WORD = re.compile(r"(?<![0-9])([0-9]{3,4})\]?\Z")
_PLAIN_CARD = re.compile(r"[0-9](?:[ \-]?[0-9]){11,18}(?![0-9])")
_NOTHING = re.compile(
    r"[\W_]*|(?:null|none|true|false|nil|undefined|n/a|redacted|masked|hidden|v[0-9]+:[0-9a-f]{32})[\W_]*|[*xX•#]+",
    re.I,
)
_IS_NAME = re.compile(r"\s*:")
_TOKEN = re.compile(r"v[0-9]+:[0-9a-f]{32}(?![0-9A-Za-z])")
_CLOSERS: Final = {"{": "}", "[": "]", "(": ")"}
# What groups the names after a card's: an element, a bracket, or lines (YAML, TOML).
_GROUPED = re.compile(r"[<{(\[\n]")
_IN_TAG = re.compile(r"<(?:[A-Za-z_][\w.\-]{0,60}:)?\Z")
_OPENS = re.compile(
    r"""(?P<lines>:[ ]?(?:\r?\n[ \t]+[^\n]{0,256}){1,20}|(?<=\])(?:\r?\n[^\n\[]{1,256}){1,20})"""
    r"""|["'\]]{0,2}\s{0,2}(?:=>|[=:])?\s{0,4}(?:Array\s{0,4})?[({\[]"""
)
_PAIR = re.compile(
    r"""(?<![A-Za-z0-9_.\-])(?:[A-Za-z]\w{0,30}:(?=[\w.\-]{1,60}=))?(?P<name>[A-Za-z][\w.\-]{0,60})["'\]]{0,2}\s{0,3}(?P<sign>=>|[=:])\s{0,3}"""
    r"""(?:(?P<quote>["'])(?P<quoted>[^"'\\\n<>]{1,256})|(?P<plain>[^\s,;"'<>(){}\[\]=:][^,;"'<>(){}\[\]=:\n]{0,255}))"""
)
_TAG = re.compile(r"<((?:[A-Za-z_][\w.\-]{0,60}:)?([A-Za-z_][\w.\-]{0,80}))(?:\s[^<>]{0,400})?(?<!/)>")
_ALNUM = re.compile(r"\w")
_MARKUP = re.compile(r"(<[^<>]*>)")


def may_be_named(text: str) -> bool:
    """A quick look that never misses: False means that `named_in` finds none."""
    return _HINT.search(text.lower()) is not None


def says_something(text: str, *, is_piece: bool = False) -> bool:
    """Whether any words of the text name what a card's data may follow, there or after a piece of JSON."""
    if len(text) > _NEAR:  # not worth a separate look
        return True
    for phrase, _, _ in _hinted(text):
        if _meaning_of(phrase) is not None:
            return True
        # Within a card's object or element also plain names count; in prose the word alone is nothing.
        word = phrase[-1]
        if is_card_context(word) and ((is_piece and word == text.strip()) or _GROUPED.search(text)):
            return True
    return False


def _hinted(text: str) -> Iterator[tuple[list[str], int, int]]:
    """The words with a hint and the few after each: with what is before them in the phrase, and where."""
    lower = text.lower()
    if len(lower) != len(text):  # a few letters become two
        lower = _CAPITALS.sub(lambda match: match[0].lower(), text)
    done = 0
    for hint in _HINT.finditer(lower):
        if hint.start() < done:
            continue
        phrase: list[str] = []
        left = -1  # words that may still be part of a phrase with a hint
        before = -1
        for match in _WORD.finditer(text, max(done, hint.start() - _BACK)):
            start, end = match.span()
            if start != before + 1 or text[before] not in " -":
                phrase.clear()
                left = min(left, 0)
            before = end
            phrase.append(match[0][-_LONGEST_WORD:])
            if end >= hint.end():
                left = _PHRASE if _HINT.search(lower, max(start, end - _LONGEST_WORD), end) else left - 1
                if left <= 0:
                    done = end
                    break
                yield phrase[-_PHRASE:], start, end
        else:
            return


def starred(text: str) -> str:
    """The text with a star for each letter and digit."""
    return _ALNUM.sub("*", text)


def named_in(text: str, token: Token | None, *, beside_card: bool) -> list[Edit]:
    """What is to change in a text so that no named value can be read. A holder's name becomes `token(name, value)`.

    `beside_card`: a card number is in the same text, so dates beside `expiry` are a card's.
    """
    if not may_be_named(text):
        return []
    edits = list(_elements(text, token, beside_card)) if "</" in text else []
    done = within = 0
    for phrase, start, end in _hinted(text):
        if start >= within and is_card_context(phrase[-1]):
            edits += (group := _group(text, phrase[-1], start, end, token, beside_card))[0]
            within = group[1]
        if (
            start < done
            or _TOKEN.match(text, start)
            or not (_MAY_FOLLOW.match(text, end) or _CODE_WORD.search(phrase[-1][-_LONGEST_WORD:]))
        ):
            continue
        for edit in _after(text, phrase, start, end, token, beside_card):
            edits.append(edit)
            done = edit.end
    return edits


def _group(
    text: str, context: str, start: int, end: int, token: Token | None, beside_card: bool
) -> tuple[list[Edit], int]:
    """Plain names (`holder`, `code`) within a card's element or object: `<card holder="…"/>`, `Card(code=737)`.

    Also where the group ends. Names that say it by themselves are found without one.
    """
    if _IN_TAG.search(text, max(0, start - _LONGEST_WORD), start):
        closers = text.find(">", end, end + _NEAR)
        stop = closers if closers >= 0 else min(len(text), end + _NEAR)
    elif opened := _OPENS.match(text, end):
        stop = opened.end() if opened["lines"] else _closed(text, opened.end() - 1)
    else:
        return [], end
    edits = []
    at = end
    while pair := _PAIR.search(text, at, stop):
        first, after = pair.span("quoted" if pair["quote"] else "plain")
        value = text[first:after]
        if not pair["quote"] and text[after : after + 1] in ("=", ":") and (last := _LAST_WORD.search(value)):
            value = value[: last.start()]
        after = first + len(value.rstrip())
        at = max(after, pair.end("sign"))
        name = pair["name"]
        meaning = None if meaning_of(name) else meaning_of(name, context)
        value = text[first:after]
        if meaning is None or _NOTHING.fullmatch(value) or _TOKEN.match(text, first):
            continue
        if meaning == "card":
            if _PLAIN_CARD.fullmatch(value) and "*" not in value:
                edits.append(Edit(first, after, _middle(value)))
        elif applies(meaning, value, beside_card=beside_card):
            edits.append(Edit(first, after, token(name, value) if meaning == "holder" and token else starred(value)))
    return edits, stop


def _closed(text: str, opened: int) -> int:
    """Where the bracket at a place is closed; only as far as it matters."""
    opener = text[opened]
    depth, closer = 0, _CLOSERS[opener]
    end = min(len(text), opened + _NEAR)
    for i in range(opened, end):
        depth += (text[i] == opener) - (text[i] == closer)
        if depth == 0:
            return i
    return end


def _after(
    text: str, phrase: list[str], start: int, end: int, token: Token | None, beside_card: bool
) -> Iterator[Edit]:
    """The value behind the words that end at a place, if they name one."""
    name = phrase[-1]
    meaning = _meaning_of(phrase)
    if meaning is None:
        return
    if meaning in ("code", "pin") and (tail := _IN_WORD.search(name)) and len(name) > 4:
        yield Edit(start + tail.start(1), start + tail.end(1), "*" * len(tail[1]))
        return
    gap = _KEYED.match(text, end) or _PAIRED.match(text, end)
    edit = _keyed(text, gap, name, meaning, token, beside_card) if gap else None
    edit = edit or _prose(text, end, name, meaning, token)
    if edit:
        yield edit


def _meaning_of(phrase: list[str]) -> Meaning | None:
    """What up to four words in a row mean; the last alone goes first."""
    found = meaning_of(phrase[-1])
    for count in range(2, len(phrase) + 1):
        longer = meaning_of(" ".join(phrase[-count:]))
        if found == "maybe_expiry" and longer is None:
            return None
        if longer and (found is None or found.startswith("maybe_")):
            found = longer
    return found


def _keyed(
    text: str, gap: re.Match[str], name: str, meaning: Meaning, token: Token | None, beside_card: bool
) -> Edit | None:
    start = gap.end()
    opener = next((c for c in reversed(gap[0]) if not c.isspace() and c not in "\"'\\"), "")
    if opener in _CLOSERS and opener in gap[0][1:] and meaning not in ("card", "maybe_expiry", "maybe_code"):
        return _block(text, start, gap[0].rindex(opener) + gap.start(), opener)
    quote = gap[0][-1:] if gap[0][-1:] in "\"'" else ""
    end = _value_end(text, start, quote, meaning, is_markup=opener == ">")
    value = text[start:end]
    is_next_name = quote and _IS_NAME.match(text, end + 1)
    if is_next_name or _NOTHING.fullmatch(value) or _TOKEN.match(text, start):
        return None
    if meaning == "card":
        match = _PLAIN_CARD.match(text, start)
        return Edit(*match.span(), _middle(match[0])) if match and "*" not in value else None
    if not applies(meaning, value, beside_card=beside_card):
        return None
    if meaning == "holder" and token:
        return Edit(start, end, token(name, value.replace("+", " ")))
    return Edit(start, end, starred(value))


def _value_end(text: str, start: int, quote: str, meaning: Meaning, *, is_markup: bool) -> int:
    if quote:
        end = re.compile(rf"[^\\{quote}]*").match(text, start)
        return end.end() if end else start
    if is_markup:
        close = text.find("<", start, start + _NEAR)
        if close >= 0:
            return close
    if meaning in ("expiry", "maybe_expiry") and (spaced := _SPACED_EXPIRY.match(text, start)):
        return spaced.end()
    if meaning in ("maybe_expiry", "maybe_code"):
        short = _UNQUOTED.match(text, start, start + _LONGEST_SHAPE)
        return short.end() if short else start
    match = (_UNQUOTED_NAME if meaning == "holder" else _UNQUOTED).match(text, start)
    if match is None:
        return start
    value = match[0]
    if meaning == "holder" and text[match.end() : match.end() + 1] in ("=", ":") and (last := _LAST_WORD.search(value)):
        value = value[: last.start()]
    return start + len(value.rstrip())


def _block(text: str, start: int, opened: int, opener: str) -> Edit | None:
    """A list or an object under a name: nothing of it can be read."""
    end = _closed(text, opened)
    value = text[start:end]
    return None if _NOTHING.fullmatch(value) else Edit(start, end, starred(value))


def _prose(text: str, end: int, name: str, meaning: Meaning, token: Token | None) -> Edit | None:
    if meaning in ("code", "maybe_code"):
        match = _PROSE_CODE.match(text, end)
    elif meaning == "pin":
        match = _PROSE_PIN.match(text, end)
    elif meaning in ("expiry", "maybe_expiry"):
        match = _PROSE_EXPIRY.match(text, end)
    else:
        match = _PROSE_NAME.match(text, end) if meaning == "holder" else None
        if match and token:
            return Edit(*match.span(1), token(name, match[1]))
    return Edit(*match.span(1), starred(match[1])) if match else None


def _middle(number: str) -> str:
    """A number with its separators, the digits between the first six and the last four as stars."""
    places = [i for i, c in enumerate(number) if c.isdigit()]
    hidden = set(places[6:-4])
    return "".join("*" if i in hidden else c for i, c in enumerate(number))


def _elements(text: str, token: Token | None, beside_card: bool) -> Iterator[Edit]:
    """XML elements by their names, and by the card's element that they are in."""
    context, within, done = "", 0, 0
    for tag in _TAG.finditer(text):
        if tag.start() < done:
            continue
        if tag.start() >= within:
            context = ""
        name = tag[2]
        meaning = meaning_of(name, context)
        if meaning is None:
            if is_card_context(name):
                close = text.find(f"</{tag[1]}", tag.end(), tag.end() + _NEAR)
                context, within = name, close if close >= 0 else tag.end() + _NEAR
            continue
        close = text.find(f"</{tag[1]}", tag.end(), tag.end() + _NEAR)
        if close < 0:
            close = text.find("<", tag.end(), tag.end() + _NEAR)
        end = close if close >= 0 else min(len(text), tag.end() + _NEAR)
        value = text[tag.end() : end]
        new = _element(name, value, meaning, token, beside_card)
        if new is not None and new != value:
            yield Edit(tag.end(), end, new)
            done = end


def _element(name: str, value: str, meaning: Meaning, token: Token | None, beside_card: bool) -> str | None:
    inner = value.removeprefix("<![CDATA[").removesuffix("]]>")
    if _NOTHING.fullmatch(inner):
        return None
    if meaning == "card":
        match = _PLAIN_CARD.fullmatch(inner.strip())
        return value.replace(match[0], _middle(match[0])) if match else None
    if not applies(meaning, inner.strip(), beside_card=beside_card):
        return None
    if meaning == "holder" and token and "<" not in inner:
        return value.replace(inner, token(name, inner))
    parts = _MARKUP.split(value.replace("<![CDATA[", "").replace("]]>", ""))
    if all(part.startswith("<") or _NOTHING.fullmatch(part) for part in parts):
        return None
    return "".join(part if part.startswith("<") else starred(part) for part in parts)
