"""The trained model: packed rows that do not mix, a head that stays tied, exports that load."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig

from sft_dist.data.packing import empty_micro_batch, pack
from sft_dist.data.tokenization import TokenizedExample
from sft_dist.errors import ModelError
from sft_dist.loss import compute_entropy, token_log_probs
from sft_dist.model import (
    PER_EXAMPLE_SDPA,
    TokenScorer,
    export_causal_lm,
    export_generation_config,
    load_causal_lm,
    load_tokenizer,
    local_model_dir,
    resolve_attention,
    stop_token_id,
)
from tests.tiny import VOCAB, tiny_examples, tiny_model

ATTENTIONS = ["sdpa", "eager"]


def scores_alone(model, example):
    """Log-probabilities and entropies of one example by transformers' own forward."""
    ids = torch.from_numpy(example.input_ids)[None]
    logits = model(ids, use_cache=False).logits[0, example.prompt_length - 1 : -1]
    return token_log_probs(logits, ids[0, example.prompt_length :]), compute_entropy(logits)


def per_example(values, examples):
    return values.split([e.num_target_tokens for e in examples])


def saved_model(directory, *, tied=True):
    """A model directory as `--model_path` names it."""
    model = tiny_model("eager")
    if not tied:
        model.config.tie_word_embeddings = False
        model.lm_head = torch.nn.Linear(64, VOCAB, bias=False)
    model.save_pretrained(directory)
    return directory


def write_generation_config(directory, eos):
    path = directory / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": eos}))
    return str(directory)


# Packed rows


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_packed_scores_are_those_of_each_example_alone(attention):
    examples = tiny_examples(9)
    reference = tiny_model("eager").eval()
    with torch.no_grad():
        packed = TokenScorer(tiny_model(attention))(pack(examples))
        expected = [scores_alone(reference, e) for e in examples]
    torch.testing.assert_close(
        packed.log_probs, torch.cat([e[0] for e in expected]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        packed.entropy, torch.cat([e[1] for e in expected]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_tests_model_attends_to_earlier_tokens(attention):
    """Otherwise the tests of leaks could not fail."""
    (example,) = tiny_examples(1)
    changed = example.input_ids.copy()
    changed[0] = (changed[0] + 1) % VOCAB
    other = TokenizedExample(example.id, changed, example.prompt_length)
    scorer = TokenScorer(tiny_model(attention))
    with torch.no_grad():
        before, after = (scorer(pack([e])).log_probs for e in (example, other))
    assert (before - after).abs().min() > 1e-4


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("changed", [0, 2, 4])
def test_other_tokens_in_one_example_leave_the_others_the_same_to_the_bit(attention, changed):
    examples = tiny_examples(5)
    old = examples[changed]
    others = [i for i in range(5) if i != changed]
    replaced = list(examples)
    replaced[changed] = TokenizedExample(old.id, (old.input_ids + 1) % VOCAB, old.prompt_length)
    scorer = TokenScorer(tiny_model(attention))
    with torch.no_grad():
        before, after = (
            per_example(scorer(pack(batch)).log_probs, examples) for batch in (examples, replaced)
        )
    assert not torch.equal(before[changed], after[changed])
    for index in others:
        assert torch.equal(before[index], after[index])


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_gradient_of_a_packed_row_is_the_sum_of_those_of_its_examples(attention):
    examples = tiny_examples(5)
    packed, alone = tiny_model(attention), tiny_model("eager")
    (-TokenScorer(packed)(pack(examples)).log_probs.sum()).backward()
    for example in examples:
        (-scores_alone(alone, example)[0].sum()).backward()
    expected = {name: p.grad for name, p in alone.named_parameters()}
    for name, parameter in packed.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-4, rtol=1e-4)


def test_activation_checkpointing_changes_neither_scores_nor_gradients(tmp_path):
    saved_model(tmp_path)
    batch, found = pack(tiny_examples(4)), []
    for checkpointing in (False, True):
        model = load_causal_lm(
            str(tmp_path), dtype="float32", attention="sdpa", activation_checkpointing=checkpointing
        )
        assert model.is_gradient_checkpointing is checkpointing
        log_probs = TokenScorer(model)(batch).log_probs
        log_probs.sum().backward()
        found.append([log_probs.detach(), *(p.grad for p in model.parameters())])
    for plain, recomputed in zip(*found, strict=True):
        assert torch.equal(plain, recomputed)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_stand_in_of_an_idle_rank_has_a_gradient_for_every_parameter(attention):
    model = tiny_model(attention)
    (TokenScorer(model)(empty_micro_batch()).log_probs.sum() * 0.0).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def test_the_scorer_keeps_the_parameters_and_the_tied_head_of_the_model():
    model = tiny_model()
    names = [name for name, _ in model.named_parameters()]
    scorer = TokenScorer(model)
    assert [name for name, _ in scorer.named_parameters()] == [f"causal_lm.{n}" for n in names]
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


# Loading


def test_a_model_loads_in_the_type_and_with_the_attention_asked_for(tmp_path):
    saved_model(tmp_path)
    model = load_causal_lm(str(tmp_path), dtype="bfloat16", attention="sdpa")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == PER_EXAMPLE_SDPA
    assert model.training
    model = load_causal_lm(str(tmp_path), dtype="float32", attention="eager")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config._attn_implementation == "eager"


def test_a_directory_without_weights_is_an_error_that_names_it(tmp_path):
    saved_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_causal_lm(str(tmp_path), dtype="float32", attention="sdpa")


def test_weights_that_lack_a_tensor_are_an_error_that_names_it(tmp_path):
    """transformers would draw it at random and go on with a warning."""
    path = saved_model(tmp_path) / "model.safetensors"
    missing = "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(path)
    del tensors[missing]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=missing):
        load_causal_lm(str(tmp_path), dtype="float32", attention="sdpa")


def test_a_directory_without_a_tokenizer_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_tokenizer(str(tmp_path))


def test_the_tokenizer_beside_the_model_is_taken(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path))("ab")["input_ids"] == tokenizer("ab")["input_ids"]


def test_a_model_directory_is_taken_as_it_is(tmp_path):
    assert local_model_dir(str(tmp_path)) == tmp_path


def test_a_model_that_cannot_be_had_is_an_error_that_says_what_to_give(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(ModelError, match=r"--model_path owner/model.*no network.*give the dir"):
        local_model_dir("owner/model")


@pytest.mark.parametrize(
    ("requested", "cuda", "flash", "expected"),
    [
        ("auto", True, True, "flash_attention_2"),
        ("auto", True, False, "sdpa"),
        ("auto", False, True, "sdpa"),
        ("auto", False, False, "sdpa"),
        ("eager", True, True, "eager"),
        ("flash_attention_2", False, False, "flash_attention_2"),
        ("sdpa", True, True, "sdpa"),
    ],
)
def test_auto_takes_flash_attention_where_it_can_run(requested, cuda, flash, expected):
    found, reason = resolve_attention(requested, cuda=cuda, flash_attn_installed=flash)
    assert found == expected
    assert reason


def test_the_reason_for_the_attention_says_what_is_missing():
    assert "flash-attn" in resolve_attention("auto", cuda=True, flash_attn_installed=False)[1]
    assert "CUDA" in resolve_attention("auto", cuda=False, flash_attn_installed=True)[1]


# The stop token


@pytest.mark.parametrize(("eos", "expected"), [(7, 7), (0, 0), ([5, 6], 5), ([], 9), (None, 9)])
def test_the_stop_token_is_the_generation_configs_first_else_the_tokenizers(
    tmp_path, eos, expected
):
    directory = write_generation_config(tmp_path, eos)
    assert stop_token_id(directory, SimpleNamespace(eos_token_id=9)) == expected


def test_without_a_generation_config_the_tokenizer_says_where_to_stop(tmp_path):
    assert stop_token_id(str(tmp_path), SimpleNamespace(eos_token_id=0)) == 0


def test_a_model_that_never_stops_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="eos_token_id"):
        stop_token_id(str(tmp_path), SimpleNamespace(eos_token_id=None))


# Exports


@pytest.mark.parametrize("weights_format", ["safetensors", "bin"])
@pytest.mark.parametrize("tied", [True, False])
def test_an_exported_model_loads_again_with_equal_weights(tmp_path, weights_format, tied):
    source = saved_model(tmp_path / "base", tied=tied)
    model = load_causal_lm(str(source), dtype="bfloat16", attention="sdpa")
    scorer = TokenScorer(model)
    state = {name: p.detach() + 0.125 for name, p in model.named_parameters()}
    exported = tmp_path / "exported"
    exported.mkdir()
    export_causal_lm(scorer.causal_lm, state, exported, weights_format=weights_format)

    loaded = AutoModelForCausalLM.from_pretrained(exported, dtype="auto")
    found = dict(loaded.named_parameters())
    assert sorted(found) == sorted(state)
    for name, tensor in state.items():
        assert found[name].dtype == torch.bfloat16
        assert torch.equal(found[name], tensor), name
    is_tied = loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert is_tied is tied


@pytest.mark.parametrize(
    ("weights_format", "name"),
    [("safetensors", "model.safetensors"), ("bin", "pytorch_model.bin")],
)
def test_an_export_is_one_file_of_weights_beside_its_two_configurations(
    tmp_path, weights_format, name
):
    base, exported = saved_model(tmp_path / "base"), tmp_path / "exported"
    exported.mkdir()
    model = load_causal_lm(str(base), dtype="float32", attention="sdpa")
    export_causal_lm(model, model.state_dict(), exported, weights_format=weights_format)
    assert {p.name for p in exported.iterdir()} == {"config.json", "generation_config.json", name}
    config = json.loads((exported / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert PER_EXAMPLE_SDPA not in json.dumps(config)


def test_an_exported_model_stops_where_it_was_trained_to_and_decodes_greedily(tmp_path):
    model = tiny_model()
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, top_p=0.8, eos_token_id=[1, 2], pad_token_id=3
    )
    export_generation_config(model, 5)
    export_causal_lm(model, model.state_dict(), tmp_path, weights_format="safetensors")
    written = GenerationConfig.from_pretrained(tmp_path)
    assert written.eos_token_id == 5
    assert written.pad_token_id == 3
    assert not written.do_sample
    assert stop_token_id(str(tmp_path), SimpleNamespace(eos_token_id=9)) == 5
