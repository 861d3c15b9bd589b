"""For several rooms: no network, one thread, a small real tokenizer, settings by flag name."""

import os

# Before torch or huggingface_hub are imported; the processes that tests start inherit both.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest


@pytest.fixture(scope="session")
def tokenizer():
    """One token a character (ASCII), and `<eos>`; it would add `<bos>` if special tokens were on.

    So it tells a tokenizer call that forgot `add_special_tokens=False` from one that did not.
    """
    from tokenizers import Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    characters = ["\n", *(chr(code) for code in range(32, 127))]
    names = ["<bos>", "<eos>", *characters]
    backend = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>"
    )


@pytest.fixture
def math_example():
    """Makes a `MathExample`; what a test does not care about has a default."""
    from sft_dist.data.records import MathExample

    def make(number=0, **fields):
        defaults = {
            "id": f"train/algebra/{number}", "problem": f"What is {number}?",
            "solution": f"It is \\boxed{{{number}}}.", "answer": str(number),
            "subject": "Algebra", "level": 1,
        }  # fmt: skip
        return MathExample(**{**defaults, **fields})

    return make


@pytest.fixture
def configured():
    """Makes a `TrainConfig` from flag names; model and data are Hub ids that nobody fetches."""
    from sft_dist.config import from_flat

    def make(**flags):
        return from_flat({"model_path": "owner/model", "data_path": "owner/data", **flags})

    return make
