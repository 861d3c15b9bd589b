"""The trained model: packed rows that do not mix, a head that stays tied, exports that load."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig

from sft_dist.attention import PER_EXAMPLE_SDPA
from sft_dist.data.packing import pack
from sft_dist.errors import ModelError
from sft_dist.model import (
    TokenScorer,
    export_causal_lm,
    export_generation_config,
    load_causal_lm,
    load_tokenizer,
    local_model_dir,
    stop_token_id,
)
from tests.tiny import VOCAB, tiny_examples, tiny_model


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


# Scores


def test_activation_checkpointing_changes_neither_scores_nor_gradients(tmp_path):
    saved_model(tmp_path)
    batch, found = pack(tiny_examples(4)), []
    for checkpointing in (False, True):
        model = load_causal_lm(
            str(tmp_path), dtype="float32", attention="sdpa", activation_checkpointing=checkpointing
        )
        assert model.is_gradient_checkpointing is checkpointing
        scores = TokenScorer(model)(batch)
        scores.loss.backward()
        found.append([scores.log_probs, *(p.grad for p in model.parameters())])
    for plain, recomputed in zip(*found, strict=True):
        assert torch.equal(plain, recomputed)


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


def test_a_model_that_is_neither_here_nor_on_the_hub_is_looked_for_beside(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refused)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "qwen-math").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"no network.*did you mean .*models/qwen-math"):
        local_model_dir("models/qwen-maths")
