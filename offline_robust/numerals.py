"""One reading of numbers that people write, in YAML and on the command line alike: decimal, as in 12, -0.5 or 1e-4.

``010`` is 8 to some programs and 10 to others, and so are ``0x10``, ``1_000`` and ``1:30`` numbers here and text there.
What could be taken for another number than was meant is refused; text is written in quotes.
"""

from __future__ import annotations

import math
import re

MAX_CHARACTERS = 400
"""Of a number: no float needs more, and reading millions of digits takes minutes."""

WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
"""A whole number without an exponent."""

DECIMAL = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
"""Any finite number."""

LIKE_A_NUMBER = re.compile(
    r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?)",
    re.ASCII,
)
"""What we or others read as a number: `DECIMAL`, and what is refused."""

_BITS = 64


def whole(text: str) -> int:
    """Reads a whole number of up to 64 bits; ``1e5`` is one too.

    Raises:
        ValueError: it is none; the message is half a sentence that says why.
    """
    text = _checked(text)
    if not WHOLE.fullmatch(text):
        number = decimal(text)
        if not number.is_integer():
            raise ValueError(f"{_shown(text)} is not a whole number")
        value = int(number)
    else:
        value = int(text) if len(text) <= _BITS else 2**_BITS
    if not -(2 ** (_BITS - 1)) <= value < 2**_BITS:
        raise ValueError(f"{_shown(text)} is a whole number of more than {_BITS} bits")
    return value


def decimal(text: str) -> float:
    """Reads a finite number; one without point and exponent as `whole` does.

    Raises:
        ValueError: it is none; the message is half a sentence that says why.
    """
    text = _checked(text)
    if WHOLE.fullmatch(text):
        return float(whole(text))
    value = float(text)
    digits = text.lower().partition("e")[0]
    if math.isinf(value) or (value == 0 and any(digit in digits for digit in "123456789")):
        raise ValueError(f"{_shown(text)} is not finite" if value else f"{_shown(text)} is so small that it becomes 0")
    return value


def _checked(text: str) -> str:
    """The text without space around it, if it is a decimal number."""
    text = text.strip()
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{_shown(text)} has {len(text):,} characters, a number has at most {MAX_CHARACTERS}")
    if DECIMAL.fullmatch(text):
        return text
    if LIKE_A_NUMBER.fullmatch(text):
        raise ValueError(
            f"{_shown(text)} is different numbers to different readers: write decimal digits without leading zeros"
        )
    raise ValueError(f"{_shown(text)} is not a number")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
