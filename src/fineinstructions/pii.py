"""Personal data in texts: finds it by pattern and checksum, and replaces it by its kind in brackets.

In: a text. Out: the text with ``[email]``, ``[ip]``, ``[phone]``, ``[card]``, ``[iban]`` or ``[credentials]`` in place
of what was found, and the kinds found. Names of persons are not found: that takes a model, and public names are what
questions are about. A number is a card or an account only when its check digits agree, so that measurements and codes
stay.
"""

import ipaddress
import re
from collections.abc import Callable

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
_CREDENTIALS = re.compile(r"\b([a-z][a-z0-9+.-]{1,20}://)[^\s/:@]{1,100}:[^\s/@]{1,100}@", re.IGNORECASE)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,4}"
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}"
    r"|(?:1[ .-])?\d{3}[.-]\d{3}[.-]\d{4})(?![\w-]|\.\d)"
)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of a payment card number.

    Args:
        digits: Decimal digits only.

    Source:
        ISO/IEC 7812-1, annex B.

    Example:
        >>> luhn("4111111111111111"), luhn("4111111111111112")
        (True, False)
    """
    doubled = (int(d) * (2 if i % 2 else 1) for i, d in enumerate(reversed(digits)))
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether a text is a bank account number with correct check digits.

    Source:
        ISO 13616-1: the first four characters move to the end, letters count from A = 10, the remainder by 97 is 1.

    Example:
        >>> is_iban("DE89 3704 0044 0532 0130 00"), is_iban("DE88 3704 0044 0532 0130 00")
        (True, False)
    """
    compact = text.replace(" ", "")
    if not 15 <= len(compact) <= 34 or not compact.isalnum() or not compact.isascii():
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 13 <= len(digits) <= 19 and digits[0] in "3456" and len(set(digits)) > 1 and luhn(digits)


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global  # private, loopback, mask and documentation addresses are nobody's


def _is_phone(text: str) -> bool:
    return 9 <= sum(c.isdigit() for c in text) <= 15


_KINDS: list[tuple[str, str, re.Pattern[str], Callable[[str], bool]]] = [
    ("credentials", "://", _CREDENTIALS, lambda _: True),
    ("email", "@", _EMAIL, lambda _: True),
    ("iban", "", _IBAN, is_iban),
    ("card", "", _CARD, _is_card),
    ("ip", ".", _IPV4, _is_address),
    ("ip", ":", _IPV6, _is_address),
    ("phone", "", _PHONE, _is_phone),
]
"""Kind, a character without which the pattern cannot match, pattern, check. The order decides where two could match."""

_ANY = re.compile(r"@|://|\d\D{0,3}\d\D{0,3}\d|::")


def scrub(text: str) -> tuple[str, tuple[str, ...]]:
    """Replace personal data by its kind.

    Args:
        text: Any text.

    Returns:
        The text, and the kinds found in alphabetical order. Scrubbing a scrubbed text changes nothing.

    Source:
        Ours; the paper describes no such step. Patterns in the spirit of datatrove's e-mail and address filters.

    Example:
        >>> scrub("Mail jo@example.org or call +1 415-555-0132 about 4111 1111 1111 1111")
        ('Mail [email] or call [phone] about [card]', ('card', 'email', 'phone'))
        >>> scrub("ftp://jo:secret@example.org/pub")
        ('ftp://[credentials]@example.org/pub', ('credentials',))
    """
    if not _ANY.search(text):
        return text, ()
    found: set[str] = set()
    for kind, needed, pattern, is_valid in _KINDS:
        if needed not in text:
            continue

        def replaced(match: re.Match[str], kind: str = kind, is_valid: Callable[[str], bool] = is_valid) -> str:
            if not is_valid(match[0]):
                return match[0]
            found.add(kind)
            return f"{match[1]}[credentials]@" if kind == "credentials" else f"[{kind}]"

        text = pattern.sub(replaced, text)
    return text, tuple(sorted(found))
