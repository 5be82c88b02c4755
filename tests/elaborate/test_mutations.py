"""Programs with words replaced at random either compile or give a readable error, never another exception."""

from __future__ import annotations

import random
import re

import pytest

from compiler.diagnostics import UserError
from tests.programs import MODELS, ROOT, compile_text

WORDS = re.compile(r'[A-Za-z_]\w*|\d+(?:\.\d+)?|"[^"]*"|\|>|\*\*|//|[=!<>]=|\.\.\.|[^\w\s]|\s+')
VOCABULARY = """
0 1 2 3 -1 1e30 0.5 B 4*B B//2 none true false training [] [1,2] "same" ... param state carry return if for in and not
+ - * / // % ** @ < == = , ; ( ) [ ] { } |> f32 i32 f32[B,n] [B,4] x n p g step loss image label x[0] x[:,1] shape(x)
relu tanh softmax Flatten Dense Dense(3) Conv2D(3,3) BatchNorm Dropout(0.5) MaxPool2D(2) LSTM RNN(GRU(3)) Embedding(4,2)
zeros ones he_normal orthogonal SGD Adam Adam(lr=cosine(1,2)) accuracy mean_squared_error softmax_cross_entropy huber(2)
sum mean max argmax split reshape concat where cast scan append range len random_normal([2]) error("no") iota(3)
"""
SOURCES = [
    *(ROOT.joinpath(f"models/{name}.nn").read_text() for name in MODELS),
    *(path.read_text() for path in sorted(ROOT.glob("examples/*.nn"))),
    *re.findall(r"^```nn\n(.*?)^```", ROOT.joinpath("docs/language.md").read_text(), re.DOTALL | re.MULTILINE),
]
PROGRAMS_IN_A_TEST = 12


def mutated(choose: random.Random) -> str:
    words = WORDS.findall(choose.choice(SOURCES))
    places = [place for place, word in enumerate(words) if not word.isspace()]
    for _ in range(choose.choice([1, 1, 2, 4])):
        words[choose.choice(places)] = choose.choice([*VOCABULARY.split(), words[choose.choice(places)], ""])
    return "".join(words)


@pytest.mark.parametrize("seed", range(15))
def test_mutated_programs(seed: int):
    choose = random.Random(seed)
    for _ in range(PROGRAMS_IN_A_TEST):
        program = mutated(choose)
        try:
            compile_text(program)
        except UserError as error:
            text = str(error)
            assert "error: " in text and not re.search(r"object at 0x|Value\(|[Pp]oison", text), program
