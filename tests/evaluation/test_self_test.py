"""The self-test of reloading, with engines that are right, stale, or cannot be reloaded."""

import pytest
import torch
from safetensors.torch import load_file

from sft_dist.errors import EvaluationError
from sft_dist.evaluation.engine_options import EngineOptions, architecture
from sft_dist.evaluation.generator import Completion
from sft_dist.evaluation.self_test import Answers, _write_model, reload_fault
from sft_dist.evaluation.vllm_generator import VllmGenerator
from tests.evaluation.models import save_model, save_tokenizer


class Engine:
    """Answers with what its weights are; a stale one keeps part of those it was built on."""

    def __init__(self, *, stale=False, how="in place", same=False):
        self.stale, self.how, self.same = stale, how, same
        self.weights, self.built_on = None, None

    def load(self, model_dir):
        self.weights = 0.0 if self.same else float(
            sum(t.double().sum() for t in load_file(model_dir / "model.safetensors").values())
        )  # fmt: skip
        first = self.built_on is None
        self.built_on = self.weights if first else self.built_on
        return {"loaded": "new engine" if first else self.how}

    def generate(self, problems, sampling, on_progress):
        told = self.built_on if self.stale else self.weights
        return [Completion(p.id, f"{told}", 16, "length", 1.0) for p in problems]

    def close(self):
        pass


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), seed=1)


@pytest.fixture
def tested(model, tmp_path):
    """Runs the test with such engines; counts those that were made."""
    made = []

    def run(cache_dir=tmp_path, architecture=None, **kind):
        def make():
            made.append(Engine(**kind))
            return made[-1]

        return reload_fault(
            make, model, architecture=architecture or {"layers": 2}, cache_dir=cache_dir
        )

    run.made = made
    return run


def test_an_engine_that_is_reloaded_rightly_passes_once_for_all(tested):
    assert tested() is None
    assert len(tested.made) == 2
    assert tested() is None
    assert len(tested.made) == 2  # the verdict is kept
    assert tested(architecture={"layers": 3}) is None
    assert len(tested.made) == 4  # and is one of this architecture


def test_without_a_place_for_verdicts_it_is_made_each_time(tested):
    assert [tested(cache_dir=None), tested(cache_dir=None)] == [None, None]
    assert len(tested.made) == 4


def test_a_stale_engine_is_caught_and_asked_again_later(tested):
    assert "decodes otherwise" in tested(stale=True)
    assert "decodes otherwise" in tested(stale=True)
    assert tested() is None


def test_an_engine_that_was_built_again_has_not_been_reloaded(tested):
    assert "could not be reloaded" in tested(how="new engine")


def test_models_that_decode_alike_would_show_nothing(tested):
    with pytest.raises(EvaluationError, match="shows nothing"):
        tested(same=True)


def test_every_tensor_of_the_two_models_differs_and_their_form_is_that_of_the_model(
    model, tmp_path
):
    first, second = (load_file(_write_model(model, tmp_path / str(s), seed=s)
                               / "model.safetensors") for s in (1, 2))  # fmt: skip
    original = load_file(model / "model.safetensors")
    assert {n: t.shape for n, t in first.items()} == {n: t.shape for n, t in original.items()}
    assert not [name for name in first if torch.equal(first[name], second[name])]


def test_a_large_vocabulary_is_cut_to_one_with_the_same_kernels(model, tmp_path):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model)
    config.vocab_size, config.pad_token_id, config.eos_token_id = 151_936, 151_643, 151_645
    wide = tmp_path / "wide"
    save_tokenizer(wide)
    config.save_pretrained(wide)
    embedding = load_file(_write_model(wide, tmp_path / "cut", seed=1) / "model.safetensors")[
        "model.embed_tokens.weight"
    ]
    assert embedding.shape[0] < 6000
    assert embedding.shape[0] % 1024 == 151_936 % 1024


def test_answers_are_equal_by_their_tokens_and_nearly_their_entropies():
    mine = Answers((("a", 4, 1.0), ("", 0, None)))
    assert mine.equal(Answers((("a", 4, 1.0001), ("", 0, None))))
    assert not mine.equal(Answers((("a", 4, 1.01), ("", 0, None))))
    assert not mine.equal(Answers((("b", 4, 1.0), ("", 0, None))))
    assert not mine.equal(Answers((("a", 4, 1.0),)))
    assert not mine.equal(Answers((("a", 4, 1.0), ("", 0, 1.0))))


def test_where_reloading_is_not_trusted_every_load_builds_an_engine(model, monkeypatch):
    built = []
    monkeypatch.setattr(VllmGenerator, "_build", lambda self, path, _: built.append(path))
    monkeypatch.setattr(VllmGenerator, "_prove", lambda self, path: None)
    monkeypatch.setattr(VllmGenerator, "_reloaded", lambda self, path: True)
    for fault, expected in ((None, ["new engine", "in place"]), ("it failed", ["new engine"] * 2)):
        engine = VllmGenerator(EngineOptions(reload_fault=fault))
        facts = []
        for _ in range(2):
            facts.append(engine.load(model))
            engine._llm, engine._config = object(), architecture(model)
        assert [found["loaded"] for found in facts] == expected
        assert [found.get("reload_fault") for found in facts] == [fault] * 2
