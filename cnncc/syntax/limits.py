"""The limits that make every text safe to read. They hold before anything recursive sees the text,
so that no file, however it was made, takes more than a moment or overflows a stack."""

TEXT_BYTES = 1 << 20
"""Bytes of one file, as UTF-8."""

WORDS = 50_000
"""Words (names, numbers, signs) and comments of one file."""

NESTING = 64
"""Brackets inside brackets, and operators inside operators of one expression."""

NAME_CHARACTERS = 64

DIGITS = 18
"""Decimal digits of a number, leading zeros not counted: every integer then fits into 64 bits."""

NUMBER_CHARACTERS = 64
"""Characters of a number or size, zeros, underscores and exponent included."""

ERRORS = 20
"""Mistakes reported of one file; the rest waits until these are mended."""
