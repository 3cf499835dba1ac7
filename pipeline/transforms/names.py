"""What a name says about the value behind it: one matcher for columns, JSON members, XML and query strings.

A name is split into words (`cardCvv2`, `card_cvv`, `card[cvv]`, `CARDCVV` → card, cvv), and the words say what it
means: `encryptedPinBlock` is a PIN, `shippingPan` a card number, `pineapple`, `company` and `expiresAt` are nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal

from contract.watched import Policy

# `maybe_…`: only where the value looks so, or something beside it is a card's.
Meaning = Literal["card", "holder", "code", "pin", "track", "expiry", "maybe_expiry", "maybe_code"]

_POLICIES: Final[dict[Meaning, Policy]] = {
    "card": "card",
    "holder": "token",
    "code": "drop",
    "pin": "drop",
    "track": "drop",
    "expiry": "drop",
    "maybe_expiry": "drop",
    "maybe_code": "drop",
}

# Each name with a meaning has one of these in it, in lower case: what a quick look looks for.
HINTS: Final = (
    "cv", "csc", "cav", "card", "pan", "pin", "pvv", "track", "strip", "holder", "secur", "verif", "valid", "thru",
    "exp", "primary", "emboss", "discret", "cc", "secc",
    "sec_c", "sec-c", "amex", "inhab", "titul", "titol", "tarjeta", "carte", "venc", "scad",
    "crypto", "segur", "sicur", "prüf", "pruf", "pruef", "cartao",
)  # fmt: skip

_CODES: Final = frozenset({"cvv", "cvc", "csc", "cvn", "cvd", "cav", "ccv", "icvv", "dcvv", "cvvc", "cvx"})
_CARDS: Final = frozenset({"card", "cards", "creditcard", "debitcard", "paymentcard", "cc", "bankcard"})
_HOLDERS: Final = frozenset({"cardholder", "cardholders", "holder"})
_CODE_WORDS: Final = frozenset({"code", "value", "number", "num", "no", "digits", "cd", "val", "data", "nr", "cvv"})
# Other languages' words, as names in whole; by their letters alone.
_ELSEWHERE: Final[dict[str, Meaning]] = {
    **dict.fromkeys(
        ("titulartarjeta", "titulardelatarjeta", "nombretitular", "titulaire", "titulairecarte", "nomtitulaire",
         "titolare", "titolarecarta", "karteninhaber", "titularcartao", "nometitular", "titulaircarte"), "holder",
    ),
    **dict.fromkeys(
        ("codigoseguridad", "codigodeseguridad", "codigoseguranca", "codigodeseguranca", "codicesicurezza",
         "codicedisicurezza", "cryptogrammevisuel", "kartenprufnummer", "kartenpruefnummer", "prufnummer",
         "pruefnummer", "prufziffer", "pruefziffer"), "maybe_code",
    ),
    **dict.fromkeys(
        ("fechavencimiento", "vencimiento", "fechadevencimiento", "datascadenza", "scadenza"), "maybe_expiry",
    ),
    **dict.fromkeys(("numerotarjeta", "numerodetarjeta", "numerocarte", "numerodecarte", "numerocartao"), "card"),
}  # fmt: skip
# Tags of EMV as names: expiry, and the holder's name. They have no hint: what a terminal sends has the card's number
# or track beside them.
_TAGS: Final[dict[str, Meaning]] = {"5F24": "expiry", "5F20": "holder", "9F0B": "holder"}
_NUMBERS: Final = frozenset({"number", "num", "no", "nr", "nbr", "nmbr", "digits", "pan"})
_EXPIRIES: Final = frozenset({"exp", "expiry", "expiration", "expire", "expires", "expiring", "expired", "expir"})
_THRU: Final = frozenset({"thru", "through", "till", "until", "upto"})
_DATES: Final = frozenset({"date", "dt", "mmyy", "yymm", "mm", "yy", "yyyy", "mmyyyy", "value", "my"})
_PARTS: Final = frozenset({"month", "year", "mm", "yy", "mon", "yr", "yyyy", "mth", "mnth"})
_TRACKS: Final = frozenset(
    {"1", "2", "3", "i", "ii", "one", "two", "data", "info", "equivalent", "image", "raw", "iso"}
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that make of a name something about the value, not the value: `cvvResult`, `pinTries`, `cardholderId`.
_ABOUT: Final = _words(
    "result results response resp check checked checks status state present presence provided verified "
    "valid required attempts attempt tries try retry retries match matched matches indicator ind flag "
    "mode length len type types enabled enable count support supported capability capable method methods "
    "outcome reason version format error errors failed failure failures message passed supplied entered "
    "bypass bypassed requested request requirement policy rule rules hash algorithm limit at by ref "
    "reference "
)
_ABOUT_HOLDER: Final = _ABOUT | _words(
    "id ids uuid token currency authentication auth authenticated verification activated activation "
    "agreement country language locale age ip device account accounts initiated transaction consent group "
    "tier since "
)
_ABOUT_EXPIRY: Final = _words(
    "session token access refresh password cookie cache link url offer coupon quote certificate cert key "
    "secret otp license licence passport subscription trial hold reservation lock lease ttl in seconds "
    "sec secs ms millis minutes hours days at time timestamp after policy auth authorization "
    "authorisation code id jwt request response challenge consent invoice order basket cart ticket "
    "voucher promo promotion message job task state warning reminder notification notice count mandate "
    "agreement "
)
_ABOUT_PIN: Final = _ABOUT | _words(
    "entry pad pads map point points wheel ball board drop out id ids expiry change changed set reset "
    "prompt post zip postal area location city gpio "
)
_ABOUT_PAN: Final = _ABOUT | _words(
    "entry token sequence seq suffix last tail tilt zoom bin prefix iin id ids source asia european "
    "america african american fingerprint last4 masked4 4 sequencenumber speed angle x y "
)
_VOCABULARY: Final = sorted(
    _CODES
    | (_CARDS - {"cc"})
    | _HOLDERS
    | _NUMBERS
    | _EXPIRIES
    | _THRU
    | (_DATES - {"my"})
    | _PARTS
    | {"code", "name", "on", "pin", "block", "track", "data", "security", "verification", "value", "valid", "good"}
    | {"primary", "account", "encrypted", "enc", "magstripe", "stripe", "magnetic", "full", "first", "last", "pvv"}
    | {"of", "the", "credit", "debit", "payment", "to", "from", "cc", "new", "old", "clear", "customer", "equivalent"}
    | {"result", "check", "status", "type", "brand", "id", "token", "response", "holder", "embossed", "personal"},
    key=len,
    reverse=True,
)
_COMPACT = re.compile(rf"(?:{'|'.join(_VOCABULARY)}|[0-9])+")
_KNOWN = re.compile(rf"{'|'.join(_VOCABULARY)}|[0-9]")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[A-Z]")
_LONGEST_NAME: Final = 80


def meaning_of(name: str, context: str = "") -> Meaning | None:
    """What a name says that its value is; None where that is not card data. `context` is the name that it is within.

    A column's own policy (tables.toml) goes before this.
    """
    if len(name) > _LONGEST_NAME:
        name = name[-_LONGEST_NAME:]
    return _meaning_of(name, context[-_LONGEST_NAME:] if context else "")


@lru_cache(maxsize=8192)
def is_card_context(name: str) -> bool:
    """Whether a name is that of a card as a whole: its `number`, `name` and `code` are a card's."""
    words = words_of(name[-_LONGEST_NAME:])
    have = _CARDS - {"cc"}
    return bool(words) and (words[-1] in have or (len(words) > 1 and words[-2] in have and words[-1] in _WHOLES))


_WHOLES: Final = frozenset({"data", "info", "details", "detail", "source", "object", "input", "payload", "information"})


def policy_of(name: str, context: str = "") -> Policy | None:
    """The masking policy of what a name means; None where that is not a card's data."""
    if exact := _PLAIN.get(re.sub(r"[^a-z0-9]", "", name.lower())):
        return exact
    meaning = meaning_of(name, context)
    return _POLICIES[meaning] if meaning else None


# The plain names, which need no look at their words.
_PLAIN: Final[dict[str, Policy]] = {
    "cardnumber": "card",
    "cardholdername": "token",
    "cardexpiry": "drop",
    "cvv": "drop",
    "trackdata": "drop",
    "pin": "drop",
}
# What a month and a year of a card, or both in one, look like.
_EXPIRY_VALUE = re.compile(
    r"\s*(?:(?:0?[1-9]|1[0-2])\s?[/\\.\-]\s?(?:20)?[2-4][0-9]|(?:0[1-9]|1[0-2])(?:20)?[2-4][0-9]"
    r"|(?:20)?[2-4][0-9][/\\.\-]?(?:0[1-9]|1[0-2]))\s*"
)
_DATE_VALUE = re.compile(
    r"\s*(?:20[2-4][0-9][-/.](?:0[1-9]|1[0-2])[-/.][0-3][0-9]|[0-3]?[0-9][-/.][0-3]?[0-9][-/.]20[2-4][0-9])\s*"
)
_CODE_VALUE = re.compile(r"\s*[0-9]{3,4}\s*")


def applies(meaning: Meaning, value: str, *, beside_card: bool = False) -> bool:
    """Whether a value must be masked under a name: always for a sure one, by its shape for a `maybe_`."""
    if meaning == "maybe_expiry":
        return bool(_EXPIRY_VALUE.fullmatch(value) or (beside_card and _DATE_VALUE.fullmatch(value)))
    if meaning == "maybe_code":
        return _CODE_VALUE.fullmatch(value) is not None
    return True


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in lower case; those that are written together are separated where all are known."""
    if not name.isascii():
        name = "".join(c if c.isascii() else " " for c in name)
    words: list[str] = []
    for part in re.split(r"[^A-Za-z0-9]+", name):
        if not part:
            continue
        lower = part.lower()
        if _COMPACT.fullmatch(lower):
            words += _known(lower)
        else:
            for word in _WORD.findall(part):
                low = word.lower()
                words += _known(low) if _COMPACT.fullmatch(low) else [low]
    return tuple(words)


def _known(lower: str) -> list[str]:
    """The known words that letters consist of: the longest first, unless that leaves a rest (`expired|ate`)."""
    words = _KNOWN.findall(lower)
    if sum(map(len, words)) == len(lower):
        return words
    best: list[list[str] | None] = [[]]
    for end in range(1, len(lower) + 1):
        splits = (
            [*best[end - len(word)], word]  # type: ignore[misc]
            for word in (*_VOCABULARY, *"0123456789")
            if lower.endswith(word, 0, end) and best[end - len(word)] is not None
        )
        best.append(min(splits, key=len, default=None))
    return best[-1] or words


@lru_cache(maxsize=8192)
def _meaning_of(name: str, context: str) -> Meaning | None:
    if found := _ELSEWHERE.get(_letters_of(name)) or _TAGS.get(name.upper()):
        return found
    words = words_of(name)
    if not words:
        return None
    if context and is_card_context(context):
        return _meaning(("card", *words)) or _in_card(words) or _meaning(words)
    return _meaning(words)


def _letters_of(name: str) -> str:
    """The letters of a name without case, accents and signs."""
    if not name.isascii():
        name = unicodedata.normalize("NFKD", name)
    return "".join([c for c in name.lower() if "a" <= c <= "z"])


def _in_card(words: tuple[str, ...]) -> Meaning | None:
    if words[-1] in _PARTS and len(words) == 1:
        return "expiry"
    if words in (("holder",), ("owner",), ("owner", "name"), ("member", "name")):
        return "holder"
    return "code" if words in (("cid",), ("security",)) else None


def _meaning(words: tuple[str, ...]) -> Meaning | None:
    have = set(words)
    for find in (_code, _expiry, _track, _holder, _pin, _card):
        if found := find(words, have):
            return found
    return None


def _ends_about(words: tuple[str, ...], core: Iterable[str], about: frozenset[str]) -> bool:
    """Whether what follows the last word of `core` makes of it something about the value."""
    last = max(i for i, word in enumerate(words) if word in core)
    return any(word in about for word in words[last + 1 :])


def _code(words: tuple[str, ...], have: set[str]) -> Meaning | None:  # noqa: PLR0911 - a line for each spelling
    if core := have & _CODES:
        return None if _ends_about(words, core, _ABOUT) else "code"
    if "cv" in have and any(pair == ("cv", "2") for pair in pairwise(words)):
        return "code"
    is_card = bool(have & _CARDS)
    if is_card and (words[-1] == "cid" or words[-2:] == ("cid", "2")):
        return "code"
    if "amex" in have and words[-1] == "cid":
        return "code"
    if "cv" in have and words[-1] in _CODE_WORDS:
        return "maybe_code"
    kind = have & {"security", "verification", "validation", "sec", "verif"}
    if kind and words[-1] in _CODE_WORDS:
        if is_card or words == ("security", "code") or words[-2:] == ("verification", "value"):
            return "code"
        return "maybe_code" if words[-2] in kind else None
    return "code" if len(words) >= 2 and words[-2] in _CARDS and words[-1] == "code" else None


def _expiry(words: tuple[str, ...], have: set[str]) -> Meaning | None:  # noqa: PLR0911 - a line for each spelling
    core = have & _EXPIRIES
    thru = have & _THRU
    is_card = bool(have & _CARDS or have & _HOLDERS or "pan" in have)
    if thru and have & {"valid", "good", "card"}:
        return "expiry" if thru & {"thru"} or is_card else "maybe_expiry"
    if is_card and "valid" in have and words[-1] in {"to", "date", "from"}:
        return "expiry"
    if words in (("valid", "to"), ("validity", "date")):
        return "maybe_expiry"
    if not core or core <= {"expired", "expiring"}:
        return None
    rest = have - core - _DATES - _PARTS
    if is_card:
        return None if words[-1] in _ABOUT - {"valid"} | {"reminder", "notification", "notice", "warning"} else "expiry"
    if rest & _ABOUT_EXPIRY:
        return None
    if have & _PARTS and not rest & {"quarter"}:
        return "expiry"
    return "maybe_expiry"


def _track(words: tuple[str, ...], have: set[str]) -> Meaning | None:
    if have & {"magstripe", "magstrip"}:
        return None if _ends_about(words, ("magstripe", "magstrip"), _ABOUT) else "track"
    if "magnetic" in have and have & {"stripe", "strip"}:
        return "track"
    for i, word in enumerate(words[:-1]):
        if word in {"track", "tracks"} and words[i + 1] in _TRACKS and words[i + 1 : i + 3] != ("data", "source"):
            after = words[i + 2 :]
            if words[i + 1] in {"i", "one", "two", "info", "image", "raw", "iso"} and not after and i == 0:
                return "track" if words[i + 1] in {"one", "two"} else None
            return None if set(after) & _ABOUT or set(after) & {"id", "title", "artist", "count"} else "track"
    return "track" if "discretionary" in have and "data" in have else None


def _holder(words: tuple[str, ...], have: set[str]) -> Meaning | None:  # noqa: PLR0911 - a line for each spelling
    if core := have & {"cardholder", "cardholders"}:
        return None if _ends_about(words, core, _ABOUT_HOLDER) else "holder"
    if "holder" in have:
        if have & _CARDS:
            return None if _ends_about(words, ("holder",), _ABOUT_HOLDER) else "holder"
        return (
            "holder" if have & {"name", "names"} and not have & {"place", "policy", "share", "stake", "title"} else None
        )
    if "owner" in have and have & (_CARDS - {"cc"}):
        return None if _ends_about(words, ("owner",), _ABOUT_HOLDER) else "holder"
    if have & {"embossed", "emboss", "embossing"} and have & {"name", "line"}:
        return "holder"
    if have & _CARDS and words[-1] in {"name", "names"}:
        others = have - _CARDS - {"name", "names", "on", "the", "full", "first", "last", "customer", "credit", "debit"}
        return (
            None if others & {"brand", "product", "type", "issuer", "bank", "scheme", "network", "file"} else "holder"
        )
    return "holder" if have & _CARDS and "name" in have and "on" in have else None


def _pin(words: tuple[str, ...], have: set[str]) -> Meaning | None:
    if "pvv" in have:
        return "pin"
    if not have & {"pin", "pinblock"} or have & {"gpio", "chip"}:
        return None
    return None if _ends_about(words, ("pin", "pinblock"), _ABOUT_PIN) else "pin"


def _card(words: tuple[str, ...], have: set[str]) -> Meaning | None:
    if core := have & {"pan", "fpan", "dpan", "pans"}:
        return None if _ends_about(words, core, _ABOUT_PAN) else "card"
    if words[-3:] == ("primary", "account", "number") or "ccn" in have:
        return "card"
    if words[-1] in {"cardno", "cardnum", "cardnumber", "ccnum", "ccnumber"}:
        return "card"
    if len(words) >= 2 and words[-1] in _NUMBERS and words[-2] in _CARDS:
        return "card"
    return "card" if words[-1] in _NUMBERS and words[-2:-1] == ("account",) and have & _CARDS else None
