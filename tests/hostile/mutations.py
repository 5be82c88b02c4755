"""Damages files: bytes, and words of text. The same seed gives the same damage."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

MOST_BYTES = 200_000  # of a damaged file: larger ones are bombs, which have separate tests
WORD = re.compile(rb'[A-Za-z_]\w*|\d+(?:\.\d+)?|"[^"\n]*"|\|>|\*\*|//|[=!<>]=|->|\.\.\.|[^\w\s]|\s+')
NUMBERS = b"""0 -0 1 -1 2 3 7 64 100 255 256 1000 65536 2147483647 2147483648 4294967296 9223372036854775807
9223372036854775808 999999999999999999 1000000000000000000 1e30 1e-30 1e308 1e999 0.5 -0.5 nan inf 0x10 1_000 00 1.
.5 1e""".split()
NASTY = [
    *(b"", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xe2\x80\xae", b"\xef\xbb\xbf", b"\x1b[2J", b"\r", b"\r\n"),
    *(b"__class__", b"__builtins__", b"np", b"None", b"exec", b"lambda", b"import os", b"kernels", b"open('x')"),
    *(b'"""', b"'''", b'"', b"\\", b"${x}", b"%s", b"{0}", b"../../x", b"/dev/zero", b"/etc/passwd", b"~/x"),
    *(b"(" * 120, b"[" * 120, b"{" * 120, b")" * 120, b"-" * 300, b"not " * 300, b"1," * 500, b"# \n" * 50),
    b"x" * 5000,
]
INTEGERS = (0, 1, -1, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**63, 2**64 - 1)


def mutated(content: bytes, others: Sequence[bytes], words: Sequence[bytes], choose: random.Random) -> bytes:
    """A damaged copy; pieces may come from the other files of the corpus and from a vocabulary."""
    for _ in range(choose.choice((1, 1, 1, 2, 3, 8))):
        if words and choose.random() < 0.75:
            content = with_other_words(content, others, words, choose)
        else:
            content = with_other_bytes(content, others, choose)
    return content[:MOST_BYTES]


def with_other_words(content: bytes, others: Sequence[bytes], words: Sequence[bytes], choose: random.Random) -> bytes:
    """One word replaced, removed, doubled, or moved."""
    found = WORD.findall(content)
    places = [place for place, word in enumerate(found) if not word.isspace()]
    if not places:
        return content + choose.choice(words)
    place, other = choose.choice(places), choose.choice(places)
    match choose.randrange(8):
        case 0 | 1:
            found[place] = choose.choice(words)
        case 2:
            found[place] = choose.choice(NUMBERS)
        case 3:
            found[place] = choose.choice(NASTY)
        case 4:
            found[place] = choose.choice(WORD.findall(choose.choice(others)) or [b""])
        case 5:
            found[place], found[other] = found[other], found[place]
        case 6:
            found[place : place + choose.choice((1, 1, 5, 20))] = []
        case 7:
            found[place:place] = found[other : other + choose.choice((1, 3, 10, 30))] * choose.choice((1, 1, 2, 50))
    return b"".join(found)


def with_other_bytes(content: bytes, others: Sequence[bytes], choose: random.Random) -> bytes:
    """A bit flipped; bytes replaced, removed, doubled, or replaced by an integer; the end cut off or replaced."""
    damaged = bytearray(content)
    place = choose.randrange(len(damaged) + 1)
    length = choose.choice((1, 1, 2, 4, 8, 16, 100))
    match choose.randrange(9):
        case 0 | 1 if place < len(damaged):
            damaged[place] ^= 1 << choose.randrange(8)
        case 2:
            damaged[place : place + length] = choose.randbytes(length)
        case 3:
            del damaged[place : place + length]
        case 4:
            damaged[place:place] = damaged[place : place + length] * choose.choice((1, 2, 40))
        case 5:
            size = choose.choice((1, 2, 4, 8))
            number = choose.choice(INTEGERS) % 256**size
            damaged[place : place + size] = number.to_bytes(size, choose.choice(("little", "big")))
        case 6:
            damaged[place:place] = choose.choice(NASTY)
        case 7:
            del damaged[place:]
        case 8:
            other = choose.choice(others)
            damaged[place:] = other[choose.randrange(len(other) + 1) :]
    return bytes(damaged)
