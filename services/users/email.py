"""When two e-mail addresses are one: the normalized key under which an address is unique in its tenant. No I/O.

The key says of two addresses whether a mail system could take them for the same, or a reader could:

- Case makes no difference, in the local part either: RFC 5321 lets a mail system tell `Ada` from `ada` there, and none
  that people use does.
- Unicode compatibility forms and code points that do not show make no difference (NFKC_Casefold of the Unicode
  Standard, section 3.13): `ﬁ` is `fi`, full width is half width, `ß` is `ss`, a soft hyphen is nothing.
- A domain's label and its `xn--` form (RFC 3492, RFC 5890) are one, and so are the dots of IDNA (RFC 3490, section 3.1)
  and a dot at the end. A quoted local part is what is quoted (RFC 5321, section 4.1.2).

Code points that Unicode has not assigned yet are refused: of all others these forms never change, so a key that was
stored is the key that a later release makes (Unicode's stability policies).

What one provider alone does, ignoring dots or what follows a `+`, is not known here; letters of two scripts that only
look alike are two mailboxes.
"""

import re
import unicodedata
from hashlib import sha256
from typing import Final

_UNSEEN: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties."""

_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_DOT: Final = "\u3002"
"""The dot of IDNA that is left when compatibility forms are gone."""
_ENCODED: Final = "xn--"
_UNUSABLE: Final = re.compile("[@\\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ROUNDS: Final = 8


class NoAddress(ValueError):
    """What is left of the text, once normalized, is no address. Says what is accepted, and nothing of the text."""

    def __init__(self) -> None:
        super().__init__("must be an e-mail address such as ada@example.com")


def normalized(address: str) -> str:
    """The key of an address; that of a key is itself. Raises NoAddress."""
    # Before anything else: nothing that normalization makes may count as the `@`.
    local, at, domain = address.rpartition("@")
    if not at:
        raise NoAddress
    if address.isascii() and '"' not in local and _ENCODED not in domain.lower():
        local, domain = local.lower(), domain.lower()
    else:
        local = _folded(local)
        while quoted := _QUOTED.fullmatch(local):
            local = _ESCAPED.sub(r"\1", quoted[1])
        domain = ".".join(map(_label, _folded(domain).replace(_DOT, ".").split(".")))
        if any(unicodedata.category(character) == "Cn" for character in local + domain):
            raise NoAddress
    domain = domain.removesuffix(".")
    if not local or _UNUSABLE.search(local) or _UNUSABLE.search(domain) or not all(domain.split(".")):
        raise NoAddress
    return f"{local}@{domain}"


def claim_of(address: str) -> str:
    """The id of the document that holds an address in its tenant: SHA-256 of the key, 64 hexadecimal digits.

    Without a secret on purpose: a claim must outlive every key of the deployment, or it would no longer be found and
    the address could be taken twice. Raises NoAddress.
    """
    return sha256(normalized(address).encode()).hexdigest()


def _folded(text: str) -> str:
    """NFKC_Casefold, applied until nothing changes."""
    for _ in range(_ROUNDS):
        once = unicodedata.normalize("NFKC", _UNSEEN.sub("", unicodedata.normalize("NFKC", text)).casefold())
        if once == text:
            return text
        text = once
    raise NoAddress


def _label(label: str) -> str:
    """A label of a domain as people write it. Raises NoAddress for one that pretends to be encoded."""
    if not label.startswith(_ENCODED):
        return label
    try:
        decoded = label.removeprefix(_ENCODED).encode("ascii").decode("punycode")
        # Not of the encoder's making: surrogates, ASCII that needed no encoding, letters that a domain has no more.
        if decoded.encode().isascii():
            raise NoAddress
    except UnicodeError:
        raise NoAddress from None
    folded = _folded(decoded)
    if not folded or "." in folded or _DOT in folded or folded.startswith(_ENCODED):
        raise NoAddress
    return folded
