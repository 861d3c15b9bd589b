"""Where a run stands: what a checkpoint must hold besides weights and optimizer state. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sft_dist.data.tokenization import TokenizedExample


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """Counted in completed optimizer updates; step 0 is the base model."""

    step: int = 0
    target_tokens: int = 0
    """Tokens with a loss that have been trained on."""
    attempt: int = 1
    """How many times the run has been started; a resume adds one."""
    seed: int
    global_batch_size: int
    num_examples: int
    data_fingerprint: str
    wandb_run_id: str

    def advanced(self, target_tokens: int) -> "TrainState":
        """The state after one more update."""
        return replace(self, step=self.step + 1, target_tokens=self.target_tokens + target_tokens)

    def position(self, steps_per_epoch: int) -> tuple[int, int]:
        """(epoch, global batches of it already trained on)."""
        return divmod(self.step, steps_per_epoch)

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, so that `torch.load(weights_only=True)` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainState":
        """What `as_dict` gave; keys of later versions are passed over."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known})


def data_fingerprint(examples: Sequence[TokenizedExample]) -> str:
    """Changes when an example's id, tokens, prompt length or place in the order changes."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.id}\0{example.prompt_length}\0{len(example)}\0".encode())
        digest.update(example.input_ids.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def resume_faults(
    saved: TrainState, planned: TrainState, *, allow_data_change: bool = False
) -> list[str]:
    """Why a run planned as `planned` cannot continue what `saved` began."""
    faults = []
    if saved.data_fingerprint != planned.data_fingerprint and not allow_data_change:
        faults.append(
            f"the training data are not those of the checkpoint (expected fingerprint "
            f"{saved.data_fingerprint} of {saved.num_examples} examples, found "
            f"{planned.data_fingerprint} of {planned.num_examples}); restore --data_path, "
            "--prompt, --max_seq_length and the tokenizer, or go on with --allow_data_change"
        )
    if saved.global_batch_size != planned.global_batch_size:
        faults.append(
            f"--global_batch_size: the checkpoint's steps had {saved.global_batch_size} examples, "
            f"found {planned.global_batch_size}; leave it out to go on as before"
        )
    if saved.seed != planned.seed:
        faults.append(
            f"--seed: the checkpoint's data order has seed {saved.seed}, found {planned.seed}"
        )
    return faults
