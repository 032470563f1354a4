"""Which texts look like secrets or like persons? The built-in patterns, by name; data and their checks, pure.

Written for RE2: no look-around, no back-references, linear time. Where a regular expression cannot tell (a check digit,
an octet above 255, what stands before), a check has the last word. The first group that took part is what is masked;
without one, all of it. Sources: the issuers' published formats; ISO/IEC 7812-1 annex B (Luhn); ISO 13616 (IBAN);
RFC 1918, 6598, 3927, 4193, 4291 (addresses); RFC 7468 (textual keys); RFC 7519 (JWT).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import AddressValueError, IPv6Address
from typing import Final, TypeAlias

from msgspec import Struct

Span: TypeAlias = tuple[int, int]
Check: TypeAlias = Callable[[bytes, int, int], Span | None]
"""What of the text from start to end is meant; None where it only looks alike. May look at what stands around."""


class Pattern(Struct, frozen=True):
    """One kind of thing to find."""

    regex: str
    check: Check | None = None
    reads_keys: bool = False
    """The name of a member says what its value is: `{"api_key": "…"}`."""


BETWEEN: Final = b'": "'
"""What stands between the name of a member and its text, for patterns that read both."""

# Behind a word boundary, or behind what is one to the eye: an escape of a text inside a text (`\n`, `%3D`), a colour.
_START: Final = r"(?:\b|\\[abfnrtv]|%[0-9A-Fa-f]{2}|\[[0-9;]*m)"
_IS: Final = r"(?:[\"'\\]{0,2}[ \t]*(?::=|=>|[:=])[ \t]*[\"'\\]{0,2}|\"\s*:\s*\")"
_IS_QUOTED: Final = r"[\"'\\]{0,2}\s*(?::=|=>|[:=])\s*\\?[\"']"
# A break inside base64, with the blanks mail and YAML put behind it, also as an escape inside a text.
_BREAK: Final = r"(?:(?:\r?\n|\\r\\n|\\n)[ \t]*)?"
_OCTET: Final = r"0{0,2}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_KEY_LABEL: Final = r"(?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?"
_ASSIGNED: Final = (
    r"(?:api|access|account|app|auth|client|consumer|encryption|master|private|secret|service|session|shared|signing"
    r"|storage|webhook)[_.-]?(?:key|token|secret|password|passphrase)|refresh[_.-]?token|id[_.-]?token"
    r"|password|passwd|passphrase|pwd|secret|credentials?"
)


def _mixed(text: bytes, start: int, end: int) -> Span | None:
    """Only with a letter and a digit: words of prose stand in the same places."""
    value = text[start:end]
    has_digit = any(0x30 <= each <= 0x39 for each in value)
    return (start, end) if has_digit and any(chr(each).isalpha() for each in value) else None


def _luhn(text: bytes, start: int, end: int) -> Span | None:
    total = 0
    digits = [each - 0x30 for each in text[start:end] if 0x30 <= each <= 0x39]
    for place, digit in enumerate(reversed(digits)):
        total += digit if place % 2 == 0 else digit * 2 - 9 * (digit > 4)
    return (start, end) if total % 10 == 0 else None


_IBAN_LENGTHS: Final[Mapping[bytes, int]] = {
    each[:2].encode(): int(each[2:])
    for each in (  # noqa: SIM905  eighty of them read better so
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 "
        "FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 "
        "LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 "
        "SA24 SC31 SD18 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
    ).split()
}


def _iban(text: bytes, start: int, end: int) -> Span | None:
    """As long as its country has it, whatever follows; rests to 1 by 97."""
    length = _IBAN_LENGTHS.get(text[start : start + 2])
    if length is None:
        return None
    places = [at for at in range(start, end) if text[at] != 0x20][:length]
    if len(places) < length:
        return None
    stop = places[-1] + 1
    if text[stop : stop + 1].isalnum():
        return None
    account = bytes(text[at] for at in places)
    number = "".join(str(int(chr(each), 36)) for each in account[4:] + account[:4])
    return (start, stop) if int(number) % 97 == 1 else None


def _private_ipv4(text: bytes, start: int, end: int) -> Span | None:
    """Four numbers and no fifth: `1.10.0.0.1` is a version or an object identifier."""
    after, before = text[end : end + 2], text[max(0, start - 2) : start]
    if after[:1].isdigit() or (after[:1] == b"." and after[1:].isdigit()):
        return None
    return None if before[1:] == b"." and before[:1].isdigit() else (start, end)


def _private_ipv6(text: bytes, start: int, end: int) -> Span | None:
    if text[max(0, start - 1) : start] == b":":
        return None
    for stop in (end, start + len(text[start:end].rstrip(b":"))):
        try:
            IPv6Address(text[start:stop].decode("ascii"))
        except AddressValueError:
            continue
        return start, stop
    return None


BUILT_IN: Final[Mapping[str, Pattern]] = {
    "jwt": Pattern(
        # Breaks may stand in header and claims; the signature alone proves nothing.
        rf"{_START}(eyJ(?:{_BREAK}[A-Za-z0-9_-]){{8,}}{_BREAK}\.{_BREAK}eyJ(?:{_BREAK}[A-Za-z0-9_-])*"
        rf"{_BREAK}\.{_BREAK}[A-Za-z0-9_-]*)"
    ),
    "github_token": Pattern(
        rf"{_START}(gh[pousr]_[A-Za-z0-9_]{{36,}}|github_pat_[A-Za-z0-9]{{22}}_[A-Za-z0-9]{{40,}})"
    ),
    "gitlab_token": Pattern(
        rf"{_START}(gl(?:pat|dt|ft|rt|cbt|ptt|agent|soat|oas|imt|ffct)-[A-Za-z0-9_-]{{20,}}"
        r"(?:\.[0-9a-z]{2}\.[0-9a-z]{7,9})?)"
    ),
    "slack_token": Pattern(
        rf"{_START}(xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{{10,}}|xapp-[0-9]-[A-Za-z0-9]+-[0-9]+-[A-Za-z0-9]+"
        r"|hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{20,})"
    ),
    "aws_key": Pattern(
        rf"{_START}((?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{{16}})\b"
        rf"|(?i:aws_?secret_?(?:access_?)?key|secret_?access_?key){_IS}([A-Za-z0-9/+]{{40}})(?:[^A-Za-z0-9/+=]|$)",
        reads_keys=True,
    ),
    "gcp_key": Pattern(
        rf"{_START}(AIza[0-9A-Za-z_-]{{35}}|ya29\.[0-9A-Za-z_.-]{{20,}}|GOCSPX-[A-Za-z0-9_-]{{28}})"
    ),
    "openai_key": Pattern(
        rf"{_START}(sk-(?:(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{{20,}}|[A-Za-z0-9]{{32,}}))"
    ),
    "anthropic_key": Pattern(rf"{_START}(sk-ant-[a-z]{{2,8}}[0-9]{{2}}-[A-Za-z0-9_-]{{20,}})"),
    "npm_token": Pattern(rf"{_START}(npm_[A-Za-z0-9]{{36}})\b"),
    "pypi_token": Pattern(rf"{_START}(pypi-AgE[A-Za-z0-9_-]{{50,}})"),
    "private_key": Pattern(
        # Without its end it was cut, and what there is of it goes too.
        rf"-----BEGIN {_KEY_LABEL}-----(?:(?:-?[A-Za-z0-9+/=\s:,.()\\\"'])*-----END {_KEY_LABEL}-----"
        r"|(?:(?:\s|\\[nrt])*[A-Za-z0-9+/=]{16,})*)"
    ),
    "bearer": Pattern(
        rf"(?i){_START}bearer(?:[ \t]|%20)+([a-z0-9._~+/-]{{16,}}=*)"
        rf"|authorization{_IS}(?:basic|token|apikey|digest)[ \t]+([a-z0-9._~+/-]{{8,}}=*)",
        _mixed,
        reads_keys=True,
    ),
    "assigned_secret": Pattern(
        # In quotes to their end; without, as far as no query or list goes on.
        rf"(?i)(?:{_ASSIGNED})(?:{_IS_QUOTED}([^\s\"'\\<>{{}}()$\[][^\s\"'\\]{{7,}})"
        rf"|{_IS}([a-z0-9_.~+/!@#%^*-]{{8,}}=*))",
        _mixed,
        reads_keys=True,
    ),
    "email": Pattern(
        r"(?:\\[nrt])?([A-Za-z0-9._%+-]*[A-Za-z0-9_%+-]@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,24})\b"
    ),
    "iban": Pattern(rf"{_START}([A-Z]{{2}}[0-9]{{2}}(?: ?[A-Z0-9]){{11,30}})", _iban),
    "credit_card": Pattern(
        rf"{_START}((?:4[0-9]{{3}}|5[1-5][0-9]{{2}}|2[2-7][0-9]{{2}}|6(?:011|4[4-9][0-9]|[25][0-9]{{2}})"
        r"|35(?:2[89]|[3-8][0-9]))(?:[ -]?[0-9]{4}){3}"
        r"|3[47][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{5}|3(?:0[0-5]|[68][0-9])[0-9][ -]?[0-9]{6}[ -]?[0-9]{4})\b",
        _luhn,
    ),
    "private_address": Pattern(
        # Loopback is no secret: it is the same everywhere.
        rf"{_START}(0{{0,2}}(?:10\.{_OCTET}|192\.168|172\.0?(?:1[6-9]|2[0-9]|3[01])|169\.254"
        rf"|100\.(?:0?(?:6[4-9]|[7-9][0-9])|1[01][0-9]|12[0-7]))\.{_OCTET}\.{_OCTET})",
        _private_ipv4,
    ),
    "private_address_v6": Pattern(
        rf"(?i){_START}((?:f[cd][0-9a-f]{{2}}|fe[89ab][0-9a-f])(?::[0-9a-f]{{0,4}}){{1,7}})", _private_ipv6
    ),
    "instructions": Pattern(
        # A hint that a text was written for models: whoever writes it well is not found.
        r"(?i)\b(?:ignore|disregard|forget|override)\s+"
        r"(?:(?:all|any|the|my|your|of|these|those|previous|prior|above|earlier|other|system|safety)\s+){0,4}"
        r"(?:instructions?|prompts?|rules|guidelines|restrictions)\b"
        r"|\b(?:do\s+not|don't|never)\s+(?:tell|inform|mention|notify|reveal|show|alert|warn|ask)\b.{0,40}\buser\b"
        r"|\bwithout\s+(?:telling|informing|notifying|asking|mentioning)\b.{0,40}\buser\b"
        r"|<\s*/?\s*(?:important|system|secret|instructions?|admin|critical)\s*>"
        r"|\[\s*/?\s*(?:system|inst)\s*\]|<\|(?:im_start|im_end|system|user|assistant|endoftext)\|>"
    ),
}
"""No telephone numbers: they have no check digit, and amounts, dates and ids look the same."""
