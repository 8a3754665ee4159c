"""Integers as expressions over constants: ``"MAX" - 1``, ``2 * N``, ``16#FF``, ``INT#5``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

# Bounds and lengths are 32-bit numbers; Python would refuse to read thousands of digits.
MAX_DIGITS = 20
# Constants of constants that each name two more are a billion after thirty.
MAX_LOOKUPS = 100
_TOKEN = re.compile(r'\s*(?:(\d+)#([0-9A-Fa-f_]+)|([A-Za-z]+#)|(\d[\d_]*)|"([^"]+)"|#?(\w+)|(.))')


class NotConstant(Exception):
    """Says what is missing or wrong in an expression."""


def evaluate(text: str, constants: Mapping[str, str]) -> int:
    """The value of an expression. Raises NotConstant.

    ``constants`` maps names in lower case to expressions, which may name further constants; those
    of a block itself begin with ``#``. As in TIA Portal ``"X"`` means the global one and ``#X`` the
    local one; where there is no such, the other.
    """
    try:
        return _Expression(text, constants, (), Counter()).value()
    except RecursionError:
        raise NotConstant("an expression nested too deep") from None


class _Expression:
    def __init__(
        self,
        text: str,
        constants: Mapping[str, str],
        inside: tuple[str, ...],
        looked_up: Counter[str],
    ) -> None:
        self.text, self.constants, self.inside = text, constants, inside
        self.looked_up = looked_up
        self.in_global = bool(inside) and not inside[-1].startswith("#")
        self.parts = [m for m in _TOKEN.finditer(text) if m[0].strip()]
        self.at = 0

    def value(self) -> int:
        result = self.sum()
        if self.at < len(self.parts):
            raise NotConstant(f"{self.text!r} is no integer expression")
        return result

    def peek(self) -> str:
        return self.parts[self.at][0].strip().upper() if self.at < len(self.parts) else ""

    def sum(self) -> int:
        result = self.product()
        while self.peek() in ("+", "-"):
            minus = self.peek() == "-"
            self.at += 1
            right = self.product()
            result = result - right if minus else result + right
        return result

    def product(self) -> int:
        result = self.factor()
        while self.peek() in ("*", "/", "DIV", "MOD"):
            operator = self.peek()
            self.at += 1
            right = self.factor()
            if operator == "*":
                result *= right
                if abs(result) >= 10**MAX_DIGITS:
                    raise NotConstant(f"{self.text!r} is more than {MAX_DIGITS} digits")
            elif right == 0:
                raise NotConstant(f"{self.text!r} divides by zero")
            else:
                # IEC 61131-3 divides toward zero.
                quotient = abs(result) // abs(right) * (1 if result * right >= 0 else -1)
                result = quotient if operator in ("/", "DIV") else result - right * quotient
        return result

    def factor(self) -> int:
        if self.at >= len(self.parts):
            raise NotConstant(f"{self.text!r} ends too early")
        base, digits, _typed, number, quoted, name, other = self.parts[self.at].groups()
        self.at += 1
        if base is not None:
            if len(digits) > 4 * MAX_DIGITS:
                raise NotConstant(f"a number of {len(digits)} digits")
            try:
                return int(digits.replace("_", ""), int(base))
            except ValueError:
                raise NotConstant(f"{base}#{digits} is no number") from None
        if _typed is not None:  # INT#5: the type adds nothing
            return self.factor()
        if number is not None:
            if len(number) > MAX_DIGITS:
                raise NotConstant(f"a number of {len(number)} digits")
            return int(number.replace("_", ""))
        if other == "(":
            result = self.sum()
            if self.peek() != ")":
                raise NotConstant(f"a ) is missing in {self.text!r}")
            self.at += 1
            return result
        if other in ("-", "+"):
            return -self.factor() if other == "-" else self.factor()
        plain = (quoted or name or "").lower()
        if other == "*":
            raise NotConstant("an array without bounds has no size")
        if not plain:
            raise NotConstant(f"{self.text!r} is no integer expression")
        order = (plain, f"#{plain}") if quoted or self.in_global else (f"#{plain}", plain)
        key = next((k for k in order if k in self.constants), plain)
        if key in self.inside:
            raise NotConstant(f"constant {key!r} is defined by itself")
        if key not in self.constants:
            raise NotConstant(f"constant {quoted or name!r} is not in these files")
        self.looked_up[key] += 1
        if self.looked_up[key] > MAX_LOOKUPS:
            raise NotConstant(f"constant {key!r} is used more than {MAX_LOOKUPS} times for one")
        return _Expression(
            self.constants[key], self.constants, (*self.inside, key), self.looked_up
        ).value()
