"""The functions of CS336 assignment 5, with its signatures and its numbers."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sft_dist.functions import (
    get_response_log_probs,
    masked_normalize,
    sft_microbatch_train_step,
    tokenize_prompt_and_output,
)

PROMPTS = ["ab", "wxyz", "q"]
OUTPUTS = ["cde", "1", "rs"]


class TinyLM(nn.Module):
    """Logits of a token from that token alone."""

    def __init__(self, vocabulary=100):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(vocabulary, vocabulary)

    def forward(self, input_ids):
        return SimpleNamespace(logits=self.table(input_ids))


# tokenize_prompt_and_output


def test_tensors_are_one_shorter_than_the_longest_prompt_and_output(tokenizer):
    batch = tokenize_prompt_and_output(PROMPTS, OUTPUTS, tokenizer)
    assert set(batch) == {"input_ids", "labels", "response_mask"}
    assert {tuple(tensor.shape) for tensor in batch.values()} == {(3, 4)}
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.long
    assert batch["response_mask"].dtype == torch.bool


def test_labels_are_the_inputs_one_token_later(tokenizer):
    batch = tokenize_prompt_and_output(PROMPTS, OUTPUTS, tokenizer)
    assert torch.equal(batch["input_ids"][:, 1:], batch["labels"][:, :-1])
    assert tokenizer.decode(batch["input_ids"][0]) == "abcd"
    assert tokenizer.decode(batch["labels"][0]) == "bcde"


def test_the_mask_is_true_where_the_label_is_a_token_of_the_output(tokenizer):
    batch = tokenize_prompt_and_output(PROMPTS, OUTPUTS, tokenizer)
    labels, mask = batch["labels"], batch["response_mask"]
    assert [tokenizer.decode(row[m]) for row, m in zip(labels, mask, strict=True)] == OUTPUTS
    assert mask.tolist() == [
        [False, True, True, True],
        [False, False, False, True],
        [True, True, False, False],
    ]


def test_padding_is_the_pad_token_on_the_right(tokenizer):
    batch = tokenize_prompt_and_output(PROMPTS, OUTPUTS, tokenizer)
    assert batch["input_ids"][2].tolist()[3:] == [tokenizer.pad_token_id]
    assert batch["labels"][2].tolist()[2:] == [tokenizer.pad_token_id] * 2


def test_no_special_token_is_added(tokenizer):
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id  # it would, if asked
    batch = tokenize_prompt_and_output(["ab"], ["c"], tokenizer)
    assert tokenizer.bos_token_id not in torch.cat(list(batch.values())[:2]).flatten().tolist()


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_token(tokenizer):
    class WithoutPad:
        pad_token_id = None
        eos_token_id = 7

        def __call__(self, texts, **options):
            return tokenizer(texts, **options)

    batch = tokenize_prompt_and_output(PROMPTS, OUTPUTS, WithoutPad())
    assert batch["labels"][2].tolist()[2:] == [7, 7]


@pytest.mark.parametrize(("prompts", "outputs"), [(["a"], []), (["a"], ["b", "c"]), ([], [])])
def test_prompts_without_their_outputs_are_an_error(tokenizer, prompts, outputs):
    with pytest.raises(ValueError, match=f"{len(prompts)} prompts and {len(outputs)} outputs"):
        tokenize_prompt_and_output(prompts, outputs, tokenizer)


# get_response_log_probs


def test_log_probs_and_entropy_are_those_of_the_softmax(tokenizer):
    batch, model = tokenize_prompt_and_output(PROMPTS, OUTPUTS, tokenizer), TinyLM()
    scores = get_response_log_probs(
        model, batch["input_ids"], batch["labels"], return_token_entropy=True
    )
    log_softmax = torch.log_softmax(model(batch["input_ids"]).logits, -1)
    expected = log_softmax.gather(-1, batch["labels"][..., None])[..., 0]
    assert scores["log_probs"].shape == scores["token_entropy"].shape == (3, 4)
    torch.testing.assert_close(scores["log_probs"], expected)
    torch.testing.assert_close(
        scores["token_entropy"], -(log_softmax.exp() * log_softmax).sum(-1), atol=1e-5, rtol=1e-5
    )


def test_entropy_is_given_only_when_asked_for_and_the_gradient_reaches_the_model():
    model, ids = TinyLM(), torch.tensor([[1, 2]])
    scores = get_response_log_probs(model, ids, ids)
    assert set(scores) == {"log_probs"}
    scores["log_probs"].sum().backward()
    assert model.table.weight.grad[1].abs().sum() > 0


# masked_normalize


@pytest.mark.parametrize(
    ("dim", "expected"), [(None, 4.0), (0, [0.5, 0.0, 3.5]), (1, [2.0, 2.0]), (-1, [2.0, 2.0])]
)
def test_a_masked_sum_is_divided_by_the_constant(dim, expected):
    tensor = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 4.0]])
    mask = torch.tensor([[1, 0, 1], [0, 0, 1]])
    found = masked_normalize(tensor, mask, 2.0, dim)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_what_the_mask_hides_may_be_infinite_or_nan():
    tensor = torch.tensor([1.0, float("inf"), float("nan")], requires_grad=True)
    found = masked_normalize(tensor, torch.tensor([True, False, False]), 1.0)
    found.backward()
    assert found == 1.0
    assert tensor.grad.tolist() == [1.0, 0.0, 0.0]


# sft_microbatch_train_step


@pytest.mark.parametrize(("steps", "constant"), [(1, 1.0), (4, 1.0), (2, 10.0)])
def test_a_step_has_the_loss_and_the_gradient_of_the_plain_formula(steps, constant):
    log_probs = -torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 1], [1, 1, 0, 0]], dtype=torch.bool)
    own = log_probs.clone().requires_grad_()
    loss, metadata = sft_microbatch_train_step(own, mask, steps, constant)

    sequences = [-(row[m]).sum() / constant for row, m in zip(log_probs, mask, strict=True)]
    torch.testing.assert_close(loss, sum(sequences) / 3 / steps)
    torch.testing.assert_close(own.grad, -mask.float() / constant / 3 / steps)
    assert not loss.requires_grad
    assert metadata["num_response_tokens"] == 6
    torch.testing.assert_close(metadata["loss_sum"], -log_probs[mask].sum())


def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch():
    log_probs = -torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(4, 3, dtype=torch.bool)
    whole, parts = log_probs.clone().requires_grad_(), log_probs.clone().requires_grad_()
    sft_microbatch_train_step(whole, mask, 1)
    for rows in (slice(0, 2), slice(2, 4)):
        sft_microbatch_train_step(parts[rows], mask[rows], 2)
    torch.testing.assert_close(parts.grad, whole.grad)


# The public names


def test_the_package_gives_every_name_of_the_contract():
    import sft_dist

    for name in sft_dist.__all__:
        assert getattr(sft_dist, name) is not None, name
    assert sft_dist.compute_entropy is sys.modules["sft_dist.loss"].compute_entropy
    assert set(sft_dist.__all__) >= {
        "tokenize_prompt_and_output", "get_response_log_probs", "compute_entropy",
        "masked_normalize", "sft_microbatch_train_step", "log_generations",
        "question_only_reward_fn", "r1_zero_reward_fn",
    }  # fmt: skip


def test_a_name_that_is_not_there_is_an_ordinary_error():
    import sft_dist

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sft_dist.no_such_name


def test_the_package_alone_loads_nothing_heavy():
    program = """
import sys
import sft_dist
assert not {"torch", "numpy", "transformers"} & set(sys.modules)
from sft_dist import question_only_reward_fn
assert "torch" not in sys.modules
from sft_dist import compute_entropy
assert "torch" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
