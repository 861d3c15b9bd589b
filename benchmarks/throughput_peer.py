"""The peers' side of `train_throughput.py`: TRL's SFTTrainer, or the plain Hugging Face Trainer.

    python throughput_peer.py SETTINGS.json RESULT.json

`trl`, `accelerate` and `datasets` must be importable; see `train_throughput.py` for how. The
examples arrive as token ids, in the order of our own run, so that both sides train on the same
tokens of the same examples in the same optimizer steps. Learning rate, schedule, AdamW and clipping
are ours too; everything else that is not in the settings is the peer's default.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch
import transformers
from throughput_recorder import StepRecorder

IGNORED = -100


class Example(TypedDict):
    """The loss is on the tokens after the prompt."""

    input_ids: list[int]
    prompt_length: int


@dataclass
class CountingCollator:
    """Counts what goes through a collator: places in the rows, and tokens that have a loss."""

    collate: Callable[[Sequence[Any]], dict[str, Any]]
    counts: dict[str, int] = field(default_factory=lambda: {"row_tokens": 0, "target_tokens": 0})

    def __call__(self, examples: Sequence[Any]) -> dict[str, Any]:
        """The batch, as it would be without the counting."""
        batch = self.collate(examples)
        self.counts["row_tokens"] += batch["input_ids"].numel()
        self.counts["target_tokens"] += int((batch["labels"][..., 1:] != IGNORED).sum())
        return batch


class Clock(transformers.TrainerCallback):
    """Tells the recorder when a step ends."""

    def __init__(self, recorder: StepRecorder) -> None:
        self.recorder = recorder

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """The first one starts the clock: what the trainer sets up before it is not counted."""
        self.recorder.begin()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """After the update."""
        self.recorder.step_ended()


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    steps = json.loads(Path(settings["batches"]).read_text(encoding="utf-8"))
    if settings["sorted"]:  # longest first inside each step, as grouping by length would have it
        steps = [sorted(step, key=lambda e: -len(e["input_ids"])) for step in steps]
    examples = [example for step in steps for example in step]
    build = trl_trainer if settings["library"] == "trl" else plain_trainer
    trainer = build(settings, examples, common_arguments(settings, len(steps)))
    recorder, counting = StepRecorder(), CountingCollator(trainer.data_collator)
    trainer.data_collator = counting
    trainer.add_callback(Clock(recorder))
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    recorder.write(Path(sys.argv[2]), losses=losses, **counting.counts)


def common_arguments(settings: dict[str, Any], num_steps: int) -> dict[str, Any]:
    """Arguments that both trainers take: the work of our run, and nothing written or reported."""
    batch_size = settings["batch_size"]
    return {
        "output_dir": settings["output_dir"],
        "max_steps": num_steps,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": settings["global_batch_size"] // batch_size,
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": settings["checkpointing"],
        "bf16": settings["dtype"] == "autocast",
        "use_cpu": not torch.cuda.is_available(),  # bf16 on a CPU is refused without it
        "learning_rate": settings["learning_rate"],
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 42,
    }


def model_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """How the weights are loaded: under autocast they are float32, as TRL's default has them."""
    dtype = torch.bfloat16 if settings["dtype"] == "bfloat16" else torch.float32
    return {"dtype": dtype, "attn_implementation": settings["attention"]}


def trl_trainer(
    settings: dict[str, Any], examples: Sequence[Example], common: dict[str, Any]
) -> transformers.Trainer:
    """`SFTTrainer` on a data set in the form its own tokenisation of prompt-completion has."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [
        {
            "input_ids": e["input_ids"],
            "completion_mask": [int(i >= e["prompt_length"]) for i in range(len(e["input_ids"]))],
        }
        for e in examples
    ]
    arguments = SFTConfig(
        **common,
        completion_only_loss=True,
        loss_type=settings["loss_type"],
        padding_free=settings["padding_free"],
        max_length=None,  # the examples are cut already; padding_free demands None
        model_init_kwargs=model_arguments(settings),
    )
    return SFTTrainer(settings["model"], args=arguments, train_dataset=Dataset.from_list(rows))


def plain_trainer(
    settings: dict[str, Any], examples: Sequence[Example], common: dict[str, Any]
) -> transformers.Trainer:
    """`transformers.Trainer` with the model's own loss, which it divides by the step's targets."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        settings["model"], **model_arguments(settings)
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(settings["model"])
    rows = [
        {
            "input_ids": e["input_ids"],
            "labels": [IGNORED] * e["prompt_length"] + e["input_ids"][e["prompt_length"] :],
        }
        for e in examples
    ]
    return transformers.Trainer(
        model,
        args=transformers.TrainingArguments(**common),
        train_dataset=rows,
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
    )


if __name__ == "__main__":
    main()
