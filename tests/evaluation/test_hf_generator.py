"""The transformers back-end on a tiny random model."""

from dataclasses import replace

import pytest
import torch

from sft_dist.errors import EvaluationError
from sft_dist.evaluation import hf_generator
from sft_dist.evaluation.hf_generator import HfGenerator
from sft_dist.evaluation.request import Sampling
from tests.evaluation.models import CHARACTERS, EOS, GREEDY, problem, problems, save_model


def ignore(count):
    pass


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "m", seed=1)


@pytest.fixture(scope="module")
def loaded(model_dir):
    generator = HfGenerator(batch_size=4)
    generator.load(model_dir)
    return generator


def reference(model, item, sampling):
    """Greedy without cache, without batch, without padding; entropies in double precision."""
    ids, entropies = list(item.prompt_token_ids), []
    for _ in range(sampling.max_new_tokens):
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1].double()
        entropies.append(torch.distributions.Categorical(logits=logits).entropy().item())
        ids.append(int(logits.argmax()))
        if ids[-1] in sampling.stop_token_ids:
            break
    return ids[len(item.prompt_token_ids) :], sum(entropies) / len(entropies)


def test_batches_decode_as_each_prompt_alone(loaded, model_dir):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir)
    items = problems(6)
    for item, completion in zip(items, loaded.generate(items, GREEDY, ignore), strict=True):
        tokens, entropy = reference(model, item, GREEDY)
        stopped = tokens[-1] == EOS
        text = "".join(CHARACTERS[token] for token in (tokens[:-1] if stopped else tokens))
        assert (completion.id, completion.response) == (item.id, text)
        assert completion.num_tokens == len(tokens)
        assert completion.finish_reason == ("stop" if stopped else "length")
        assert completion.mean_token_entropy == pytest.approx(entropy, abs=1e-4)


def test_a_stop_token_ends_a_response_and_counts(loaded):
    item = problems(1)[0]
    free = loaded.generate([item], Sampling(max_new_tokens=5), ignore)[0]
    second = CHARACTERS.index(free.response[1])
    sampling = Sampling(max_new_tokens=5, stop_token_ids=(second,))
    stopped = loaded.generate([item], sampling, ignore)[0]
    assert stopped.finish_reason == "stop"
    assert stopped.response == free.response[: stopped.num_tokens - 1]
    assert stopped.num_tokens <= 2


def test_a_prompt_too_long_for_the_model_is_counted_and_the_others_decoded(loaded):
    long, full = problem("long", "x" * 200), problem("full", "x" * 128)
    nearly, short = problem("nearly", "x" * 125), problem("short", "x")
    rows = loaded.generate([long, short, full, nearly], Sampling(max_new_tokens=10), ignore)
    assert [row.num_tokens for row in rows] == [0, 10, 0, 3]
    assert [row.finish_reason for row in rows] == ["length"] * 4
    assert rows[0].mean_token_entropy is None
    assert rows[0].response == ""


def test_sampling_repeats_with_its_seed_and_does_not_depend_on_the_batch(loaded, model_dir):
    items = problems(5)
    sampling = Sampling(max_new_tokens=12, temperature=1.0, seed=3)
    first = loaded.generate(items, sampling, ignore)
    assert loaded.generate(items, sampling, ignore) == first
    alone = HfGenerator(batch_size=1)
    alone.load(model_dir)
    assert [r.response for r in alone.generate(items, sampling, ignore)] == [
        r.response for r in first
    ]
    other = loaded.generate(items, Sampling(max_new_tokens=12, temperature=1.0, seed=4), ignore)
    assert [r.response for r in other] != [r.response for r in first]


def test_several_answers_to_a_problem_differ_and_the_first_is_the_one_drawn_alone(loaded):
    items = problems(3)
    one = Sampling(max_new_tokens=12, temperature=1.0, seed=3)
    single = loaded.generate(items, one, ignore)
    several = loaded.generate(items, replace(one, num_samples=3), ignore)
    assert [(row.id, row.sample) for row in several] == [
        (item.id, sample) for item in items for sample in range(3)
    ]
    assert [row.response for row in several[::3]] == [row.response for row in single]
    assert len({row.response for row in several}) == 9


def test_progress_counts_up_and_may_stop_the_generation(loaded):
    seen = []
    loaded.generate(problems(6), GREEDY, seen.append)
    assert sorted(seen) == seen
    assert seen[-1] == 6

    class Enough(Exception):
        pass

    def stop(count):
        raise Enough

    with pytest.raises(Enough):
        loaded.generate(problems(6), GREEDY, stop)


def test_what_is_no_model_is_named(tmp_path, loaded):
    with pytest.raises(EvaluationError, match="cannot load"):
        HfGenerator().load(tmp_path)


def test_a_model_with_a_tensor_missing_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    path = save_model(tmp_path / "m", seed=1) / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(EvaluationError, match=r"lacks tensors of the model: \['model.norm.weight'"):
        HfGenerator().load(path.parent)


def test_rotary_frequencies_stay_float32_in_a_model_of_bfloat16(tmp_path, monkeypatch):
    monkeypatch.setattr(hf_generator, "faster_dtype", lambda dtype: dtype)  # a CPU that can
    save_model(tmp_path / "half", seed=3, dtype="bfloat16")
    generator = HfGenerator()
    assert generator.load(tmp_path / "half")["dtype"] == "bfloat16"
    frequencies = {
        name: buffer.dtype
        for name, buffer in generator._model.named_buffers()
        if name.endswith("inv_freq")
    }
    assert frequencies
    assert set(frequencies.values()) == {torch.float32}
