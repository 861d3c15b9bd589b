import base64
import gzip
import json
import random

from sft_dist.reporting.graded import Answer
from sft_dist.reporting.samples import Packed, answer_columns, evenly, shortened


def answer(i, response="x"):
    return Answer(i, 0, response, 3, "stop", 0.123456789, "wrong", None, None, False, False)


def test_a_part_comes_out_as_it_went_in():
    columns = answer_columns([answer(0, "\ud800 </script> π"), answer(1)])
    packed = Packed()
    assert packed.add("e0", columns)
    content = json.loads(gzip.decompress(base64.b64decode(packed.parts["e0"])))
    assert content["response"] == ["? </script> π", "x"]  # half a surrogate pair is no text
    assert content["problem"] == [0, 1]


def test_what_does_not_fit_is_left_out_and_costs_nothing():
    noise = random.Random(0).randbytes(30_000).hex()
    packed = Packed(budget=20_000)
    assert not packed.add("large", {"response": [noise]})
    assert packed.add("small", {"response": ["x"]})
    assert set(packed.parts) == {"small"}
    assert 0 < packed.budget < 20_000


def test_a_long_response_keeps_its_beginning_and_its_answer():
    text = shortened("begin " + "x" * 50_000 + r" \boxed{5}")
    assert len(text) < 10_000
    assert text.startswith("begin")
    assert text.endswith(r"\boxed{5}")
    assert "characters left out" in text
    assert shortened("short") == "short"


def test_a_part_of_the_answers_is_spread_evenly():
    assert [a.problem for a in evenly([answer(i) for i in range(10)], 5)] == [0, 2, 4, 6, 8]
    assert evenly([answer(0)], 0) == []
