"""Examples -> token ids, with a tokenizer of one token a character."""

import logging

import numpy as np
import pytest

from sft_dist.data import tokenization
from sft_dist.data.prompts import build_prompt, build_target
from sft_dist.data.tokenization import TokenizedExample, token_ids, tokenize_examples
from sft_dist.errors import DataError

STOP = 1


@pytest.fixture
def tokenize(tokenizer):
    def call(examples, *, using=tokenizer, **settings):
        defaults = {"prompt": "default", "max_seq_length": 1000, "overlength": "truncate"}
        return tokenize_examples(examples, using, stop_token_id=STOP, **{**defaults, **settings})

    return call


@pytest.fixture
def two(math_example):
    """One of 58 and one of 158 tokens, both with a prompt of 45."""
    return [math_example(1, solution="s" * 11), math_example(2, solution="s" * 111)]


def test_an_example_is_prompt_target_and_stop_token(tokenize, tokenizer, math_example):
    source = math_example(7)
    (example,) = tokenize([source])
    prompt = build_prompt("default", source.problem)
    target = build_target("default", solution=source.solution, answer=source.answer)
    assert example.id == source.id
    assert tokenizer.decode(example.input_ids[: example.prompt_length]) == prompt
    assert tokenizer.decode(example.input_ids[example.prompt_length : -1]) == target
    assert example.input_ids[-1] == STOP
    assert len(example) == len(prompt) + len(target) + 1
    assert example.num_target_tokens == len(target) + 1


def test_only_the_stop_token_is_special(tokenize, tokenizer, math_example):
    (example,) = tokenize([math_example()])
    assert [i for i in example.input_ids if i in tokenizer.all_special_ids] == [STOP]


def test_ids_are_64_bit_integers(tokenize, math_example):
    assert tokenize([math_example()])[0].input_ids.dtype == np.int64


def test_prompt_and_target_are_tokenised_apart(math_example):
    """A tokenizer that would merge the last character of the prompt with the target's first."""

    calls = []

    class Merging:
        def __call__(self, texts, add_special_tokens):
            calls.append(texts)
            return {"input_ids": [[len(text)] for text in texts]}

    (example,) = tokenize_examples(
        [math_example()], Merging(), prompt="default", stop_token_id=STOP,
        max_seq_length=10, overlength="error",
    )  # fmt: skip
    assert example.prompt_length == 1
    assert len(example) == 3
    assert [text[0][:5] for text in calls] == ["Solve", " It i"]


@pytest.mark.parametrize("prompt", ["default", "question_only", "r1_zero", "qwen_chat"])
def test_training_sees_the_very_tokens_that_generation_starts_from(
    tokenize, tokenizer, math_example, prompt
):
    source = math_example(3)
    (example,) = tokenize([source], prompt=prompt)
    asked = token_ids(tokenizer, [build_prompt(prompt, source.problem)])[0]
    assert example.input_ids[: example.prompt_length].tolist() == asked


def test_examples_keep_their_order(tokenize, math_example):
    sources = [math_example(i, solution="s" * (50 - i)) for i in range(9)]
    assert [e.id for e in tokenize(sources)] == [s.id for s in sources]


def test_an_example_of_exactly_the_limit_is_left_alone(tokenize, two):
    for overlength in ("truncate", "drop", "error"):
        (example,) = tokenize(two[:1], max_seq_length=58, overlength=overlength)
        assert len(example) == 58
        assert example.input_ids[-1] == STOP


def test_truncating_cuts_the_target_and_does_not_teach_to_stop_there(tokenize, two):
    short, cut = tokenize(two, max_seq_length=60)
    assert (len(short), len(cut)) == (58, 60)
    assert short.input_ids[-1] == STOP
    assert STOP not in cut.input_ids
    assert cut.prompt_length == 45
    assert np.array_equal(cut.input_ids, tokenize(two)[1].input_ids[:60])


def test_dropping_leaves_the_example_out(tokenize, two):
    assert [e.id for e in tokenize(two, max_seq_length=60, overlength="drop")] == [two[0].id]


def test_an_over_long_example_can_be_an_error_that_names_it(tokenize, two):
    with pytest.raises(DataError, match=rf"--max_seq_length 60: {two[1].id} \(158 tokens\)"):
        tokenize(two, max_seq_length=60, overlength="error")


def test_an_example_whose_prompt_fills_the_limit_is_always_left_out(tokenize, two, math_example):
    short = math_example(3, problem="?", solution="")
    assert [e.id for e in tokenize([*two, short], max_seq_length=45)] == [short.id]
    kept = tokenize([*two, short], max_seq_length=46)
    assert [e.num_target_tokens for e in kept] == [1, 1, 2]


def test_no_example_left_is_an_error_that_says_what_to_raise(tokenize, two):
    for overlength in ("truncate", "drop"):
        with pytest.raises(DataError, match="--max_seq_length 20; raise it"):
            tokenize(two, max_seq_length=20, overlength=overlength)


def test_over_long_examples_are_counted_in_the_log(tokenize, two, math_example, caplog):
    huge = math_example(3, problem="?" * 500)
    with caplog.at_level(logging.WARNING):
        tokenize([*two, huge], max_seq_length=60)
    assert "2 of 3 examples are longer than max_seq_length 60: 1 truncated, 1 dropped" in (
        caplog.text
    )


def test_nothing_is_said_when_nothing_is_too_long(tokenize, two, caplog):
    tokenize(two)
    assert not caplog.records


def test_no_texts_have_no_tokens(tokenizer):
    assert token_ids(tokenizer, []) == []


class Unused:
    """A tokenizer that has a serialised form and may not be called."""

    def __init__(self, tokenizer):
        self.backend_tokenizer = tokenizer.backend_tokenizer


def test_cached_tokens_are_the_same_and_need_no_tokenizer(tokenize, tokenizer, two, tmp_path):
    first = tokenize(two, cache_dir=tmp_path)
    again = tokenize(two, cache_dir=tmp_path, using=Unused(tokenizer))
    for fresh, one, other in zip(tokenize(two), first, again, strict=True):
        assert fresh.id == one.id == other.id
        assert fresh.prompt_length == one.prompt_length == other.prompt_length
        assert fresh.input_ids.tolist() == one.input_ids.tolist() == other.input_ids.tolist()
        assert other.input_ids.dtype == np.int64


def test_another_limit_or_overlength_uses_the_same_cached_tokens(
    tokenize, tokenizer, two, tmp_path
):
    tokenize(two, cache_dir=tmp_path)
    unused = Unused(tokenizer)
    cut = tokenize(two, cache_dir=tmp_path, max_seq_length=60, using=unused)
    assert [len(e) for e in cut] == [58, 60]
    settings = {"max_seq_length": 60, "overlength": "drop"}
    assert len(tokenize(two, cache_dir=tmp_path, using=unused, **settings)) == 1


def test_a_changed_example_is_not_taken_from_the_cache(tokenize, two, math_example, tmp_path):
    tokenize(two, cache_dir=tmp_path)
    changed = [two[0], math_example(2, solution="t" * 111)]
    cached = tokenize(changed, cache_dir=tmp_path)
    assert [e.input_ids.tolist() for e in cached] == [
        e.input_ids.tolist() for e in tokenize(changed)
    ]


def test_a_tokenizer_written_in_python_is_not_cached(tokenize, two, tmp_path):
    class Slow:
        def __call__(self, texts, add_special_tokens):
            return {"input_ids": [[len(text)] for text in texts]}

    assert len(tokenize(two, cache_dir=tmp_path, using=Slow())) == 2
    assert not list(tmp_path.iterdir())


def test_tokenising_in_chunks_gives_the_same(tokenize, math_example, monkeypatch):
    sources = [math_example(i, solution="s" * i) for i in range(7)]
    whole = [(e.id, e.prompt_length, e.input_ids.tolist()) for e in tokenize(sources)]
    for chunk in (1, 3, 7):
        monkeypatch.setattr(tokenization, "CHUNK", chunk)
        assert [(e.id, e.prompt_length, e.input_ids.tolist()) for e in tokenize(sources)] == whole


def test_a_bar_is_drawn_where_it_is_asked_for(tokenize, two, capfd):
    tokenize(two)
    assert capfd.readouterr().err == ""
    tokenize(two, show_progress=True)
    assert "tokenising: 100%" in capfd.readouterr().err


def test_an_example_has_a_loss_on_everything_but_its_prompt():
    example = TokenizedExample("a", np.arange(10), 4)
    assert (len(example), example.num_target_tokens) == (10, 6)
