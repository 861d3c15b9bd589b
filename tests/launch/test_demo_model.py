"""The demo's model loads like any other; its tokenizer gives texts back and cuts them well."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch.demo.model import write_model
from launch.demo.problems import make_problems

PROMPT = "Solve this math problem:\n\n{problem}\n\nAnswer:"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo") / "model"
    write_model(directory, 0)
    return directory


@pytest.fixture(scope="module")
def tokenizer(model_dir):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def texts():
    """Prompt and target of each problem, for a seed that the tokenizer was not trained on."""
    train, test = make_problems(7, num_train=300, num_test=50)
    return [(PROMPT.format(**record), " " + record["solution"]) for record in train + test]


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_decoding_gives_back_problems_and_solutions_exactly(tokenizer, texts):
    for prompt, target in texts:
        assert tokenizer.decode(ids_of(tokenizer, prompt + target)) == prompt + target


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=st.characters(max_codepoint=0xFF, codec="utf-8")))
def test_decoding_gives_back_any_latin_text_with_its_spaces(tokenizer, text):
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


@pytest.mark.parametrize("text", ["  x \n\n  12\t", "你好 🙂", r"$\frac{1}{2}$", "it 's 1 , 2 ."])
def test_decoding_gives_back_text_of_other_kinds(tokenizer, text):
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_prompt_and_target_apart_are_cut_as_when_together(tokenizer, texts):
    for prompt, target in [*texts, (texts[0][0], " 12"), (texts[0][0], r" $\boxed{12}$")]:
        apart = ids_of(tokenizer, prompt) + ids_of(tokenizer, target)
        assert apart == ids_of(tokenizer, prompt + target)


def test_every_digit_is_a_token_of_its_own(tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(ids_of(tokenizer, "$157-64=93$"))
    assert [token for token in tokens if any(c.isdigit() for c in token)] == list("1576493")


def test_every_word_of_the_default_prompt_is_one_token(tokenizer):
    assert len(ids_of(tokenizer, PROMPT.format(problem=""))) <= 8


def test_every_problem_fits_the_lengths_of_the_recipe(tokenizer, texts):
    from launch.demo.__main__ import RECIPE

    targets = [len(ids_of(tokenizer, target)) + 1 for _, target in texts]
    assert max(targets) <= int(RECIPE["generation_max_length"])
    prompts = [len(ids_of(tokenizer, prompt)) for prompt, _ in texts]
    assert max(prompts) + max(targets) <= int(RECIPE["max_seq_length"])


def test_generation_stops_at_the_end_of_text_token(model_dir, tokenizer):
    generation = json.loads((model_dir / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids_of(tokenizer, "any text")


def test_the_model_is_a_tied_bf16_qwen2_that_vllm_can_run_on_a_cpu(model_dir, tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir)
    config = model.config
    assert config.model_type == "qwen2"
    assert config.tie_word_embeddings
    assert config.vocab_size == len(tokenizer)
    assert config.hidden_size // config.num_attention_heads in (32, 64)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert sum(p.numel() for p in model.parameters()) < 2e6


def test_the_seed_decides_the_weights(model_dir, tmp_path):
    for seed in (0, 1):
        write_model(tmp_path / str(seed), seed)
    weights = [
        (directory / "model.safetensors").read_bytes()
        for directory in (model_dir, tmp_path / "0", tmp_path / "1")
    ]
    assert weights[0] == weights[1] != weights[2]
    names = [(d / "tokenizer.json").read_bytes() for d in (model_dir, tmp_path / "1")]
    assert names[0] == names[1]
