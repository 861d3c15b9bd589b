"""An engine without a model: four numbers of weights, four of optimizer state, one step each."""

import torch
from transformers import GenerationConfig, Qwen2Config

from sft_dist.engines.protocol import StepResult
from sft_dist.optimizer_state import OptimizerState, ParameterShard


class Module:
    """What an export reads of a module."""

    config = Qwen2Config(num_hidden_layers=1, hidden_size=8)
    generation_config = GenerationConfig(eos_token_id=0)


class FakeEngine:
    """Every number is the count of steps, so a copy says which step it is of."""

    causal_lm = Module()

    def __init__(self, not_applied=()):
        """`not_applied`: steps whose update is left out."""
        self.not_applied, self.asked = set(not_applied), 0
        self.weight = torch.zeros(4, dtype=torch.bfloat16)
        self.master, self.exp_avg, self.exp_avg_sq = (torch.zeros(4) for _ in range(3))

    @property
    def steps(self):
        return int(self.master[0])

    @steps.setter
    def steps(self, count):
        for tensor in (self.weight, self.master, self.exp_avg, self.exp_avg_sq):
            tensor.fill_(count)

    def train_step(self, micro_batches, normalizer, learning_rate):
        self.asked += 1
        applied = self.asked not in self.not_applied
        self.steps += applied
        return StepResult(2.0 * normalizer, 2.0 * normalizer, 1.0, 3.0, 5.0, applied)

    def weights(self):
        yield "model.weight", self.weight

    def optimizer_state(self):
        moments = {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}
        return OptimizerState({"w": ParameterShard(0, 4, self.master, moments)}, self.steps)


class FakeTokenizer:
    def save_pretrained(self, directory):
        (directory / "tokenizer.json").write_text("{}")
