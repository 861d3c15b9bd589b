import pytest
import torch

from sft_dist.errors import EvaluationError
from sft_dist.evaluation.decoding import (
    TokenizerLoader,
    draw_seed,
    response_text,
    row_entropies,
)
from sft_dist.evaluation.generator import Draw
from sft_dist.evaluation.request import Sampling
from tests.evaluation.models import CHARACTERS, EOS, problem, save_tokenizer


def test_entropies_equal_the_definition_in_double_precision():
    logits = torch.randn(20, 1000, generator=torch.Generator().manual_seed(0)) * 5
    expected = torch.distributions.Categorical(logits=logits.double()).entropy()
    assert torch.allclose(row_entropies(logits).double(), expected, atol=1e-5)


def test_entropies_of_the_extremes():
    uniform = torch.zeros(1, 151_936)
    certain = torch.tensor([[1e4, 0.0, -1e4]])
    masked = torch.tensor([[0.0, 0.0, float("-inf")]])
    assert row_entropies(uniform).item() == pytest.approx(11.9312, abs=1e-3)
    assert row_entropies(certain).item() == 0.0
    assert row_entropies(masked).item() == pytest.approx(0.693147, abs=1e-6)


def test_entropies_do_not_lose_precision_with_half_precision_logits():
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = torch.distributions.Categorical(logits=logits.double()).entropy()
    assert torch.allclose(row_entropies(logits).double(), expected, atol=1e-5)


def test_the_response_ends_before_the_stop_token_and_keeps_its_spaces(tmp_path):
    from transformers import AutoTokenizer

    save_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = " a , b ."
    ids = [CHARACTERS.index(character) for character in text]
    sampling = Sampling(max_new_tokens=9, stop_token_ids=(EOS,))
    assert response_text(tokenizer, [*ids, EOS], sampling) == text
    assert response_text(tokenizer, ids, sampling) == text
    assert response_text(tokenizer, [], sampling) == ""


def test_every_answer_has_its_own_stream_of_the_seed():
    one, other = Sampling(max_new_tokens=1, seed=1), Sampling(max_new_tokens=1, seed=2)
    asked = [Draw(problem(name, "x"), sample) for name in ("a", "b") for sample in (0, 1)]
    seeds = {draw_seed(sampling, draw) for sampling in (one, other) for draw in asked}
    assert len(seeds) == 8
    more = Sampling(max_new_tokens=7, seed=1, num_samples=9)
    assert draw_seed(one, asked[0]) == draw_seed(more, asked[0])
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_tokenizer_is_read_again_only_when_its_files_differ(tmp_path):
    first, same, other, bare = (tmp_path / name for name in ("first", "same", "other", "bare"))
    for path in (first, same, other):
        path.mkdir()
        save_tokenizer(path)
    bare.mkdir()
    config = other / "tokenizer_config.json"
    config.write_text(config.read_text().replace("<eos>", "a"))
    loader = TokenizerLoader()
    tokenizer = loader.load(first)
    assert loader.load(same) is tokenizer
    assert loader.load(bare) is tokenizer
    changed = loader.load(other)
    assert changed is not tokenizer
    assert changed.eos_token == "a"
    assert loader.load(first).eos_token == "<eos>"


def test_a_directory_without_any_tokenizer_is_told(tmp_path):
    with pytest.raises(EvaluationError, match="cannot load the tokenizer"):
        TokenizerLoader().load(tmp_path)
