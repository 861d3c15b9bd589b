"""What can be set, what it means, and why the default is what it is.

Frozen dataclasses, one a concern, composed in `TrainConfig`. The docstring under a field is its
help text on the command line. `arguments.py` turns a command line and YAML files into a
`TrainConfig`; everything after that reads it and never changes it.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

PromptName = Literal["default", "question_only", "r1_zero", "qwen_chat"]
"""The prompts of `data/prompts.py`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Model."""

    model_path: str = ""
    """Directory of a Hugging Face causal LM (Qwen2 or Llama family), or a Hub id. Required."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the weights in forward and backward; the master weights are float32 either way."""
    attention: Literal["auto", "flash_attention_2", "torch_varlen", "sdpa", "eager"] = "auto"
    """Attention kernel; auto: flash_attention_2 where it is installed, else torch_varlen on CUDA
    and sdpa (example by example) on the CPU."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, far less memory."""
    compile: bool = False
    """Compile the layers by torch.compile: faster steps on a GPU, a slower first one."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Data."""

    data_path: str = ""
    """MATH directory, a JSON, JSONL or parquet file or directory, or a Hub id. Required."""
    eval_data_path: str | None = None
    """Evaluation problems, when data_path has no test split."""
    holdout: int | None = None
    """Examples taken from the training split for evaluation, when there is no test split."""
    allow_contamination: bool = False
    """Go on although evaluation problems are in the training data."""
    prompt: PromptName = "default"
    """Prompt for training and for evaluation."""
    max_seq_length: int = 1024
    """Longest example in tokens, prompt and target together."""
    overlength: Literal["truncate", "drop", "error"] = "truncate"
    """What happens to an example longer than max_seq_length; always counted."""
    cache_dir: str | None = None
    """Keeps tokenised examples for the next run. Unset: $XDG_CACHE_HOME/sft_dist, else
    ~/.cache/sft_dist."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer and schedule."""

    learning_rate: float = 1e-5
    """Peak learning rate, reached after the warm-up; then cosine to 0."""
    num_epochs: int = 3
    """Passes over the training examples."""
    max_steps: int | None = None
    """Stop after this many optimizer steps; the schedule ends there too."""
    warmup_steps: int | None = None
    """Optimizer steps of linear warm-up. Unset: 100, at most 10 % of all steps."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global 2-norm; 0 turns clipping off."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """When a loss or the gradient is not finite, no update is made. stop: the run ends, naming rank
    and examples. skip: it warns and goes on to the next batch; 10 such steps in a row end it."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW, on every parameter."""
    adam_beta1: float = 0.9
    """Decay of AdamW's first moment."""
    adam_beta2: float = 0.95
    """Decay of AdamW's second moment; 0.95 forgets a spike sooner than torch's 0.999."""
    adam_eps: float = 1e-8
    """Added to the root of AdamW's second moment."""


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Batch."""

    batch_size: int = 4
    """Examples per device and accumulation step."""
    gradient_accumulation_steps: int = 8
    """Accumulation steps; with batch_size and the number of ranks it gives the global batch."""
    global_batch_size: int | None = None
    """Examples per optimizer step over all ranks; overrides the product of the other two."""
    max_tokens_per_microbatch: int | None = None
    """Tokens in one forward pass of one rank. Unset: batch_size x max_seq_length."""
    packing: bool = True
    """Examples of a forward pass in one row without padding; --no_packing pads each to the longest
    (the padding comes on top of max_tokens_per_microbatch)."""
    loss_normalization: Literal["tokens", "sequences", "constant"] = "tokens"
    """Mean over the global batch's target tokens; or over its examples, of each one's token mean
    (sequences) or token sum divided by loss_constant (constant, the CS336 form)."""
    loss_constant: float = 1.0
    """Divisor of each example's token sum with loss_normalization constant."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Engine."""

    engine: Literal["deepspeed", "torch", "fsdp"] = "deepspeed"
    """deepspeed shards by ds_config, fsdp by PyTorch's own FSDP2; torch keeps everything on every
    rank (the reference)."""
    ds_config: str = "zero2"
    """DeepSpeed settings: a name in ds_configs/ or the path of a JSON file."""
    seed: int = 42
    """Seed of the data order. Nothing else in training is random."""
    collective_timeout: int = 1800
    """Seconds that a rank waits for others that are silent, or have not come so far, before it
    names them and all leave. Longer than any wait that is no fault: for rank 0 to verify a
    checkpoint, for a first compilation."""
    deterministic: bool = False
    """Only deterministic kernels on the GPU: repeatable to the bit, slower."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Evaluation."""

    eval_steps: int = 500
    """Evaluate every so many steps, besides step 0, each epoch's end and the last step."""
    eval_at_start: bool = True
    """Evaluate the base model as step 0."""
    eval_placement: Literal["shared", "reserved", "external", "after", "off"] = "shared"
    """shared: beside training on the same devices; reserved: on the last eval_gpus of rank 0's
    node, which get no rank; external: by `sft-evaluate --serve` elsewhere; after: when training
    ends; off: never."""
    eval_gpus: int = 1
    """GPUs for evaluation, with reserved and with --serve; each has an engine of its own, and they
    share the open evaluations."""
    eval_tensor_parallel: int = 1
    """GPUs that share one vLLM engine, for models that one cannot hold; eval_gpus is a multiple."""
    eval_backend: Literal["vllm", "hf"] = "vllm"
    """Engine that generates the answers."""
    eval_batch_size: int = 16
    """Prompts per batch of the hf back-end; vLLM schedules itself."""
    max_eval_samples: int = 500
    """Problems per evaluation, stratified by subject and level; 0 takes all."""
    generation_max_length: int = 512
    """New tokens an answer may have."""
    generation_temperature: float = 0.0
    """0 decodes greedily."""
    eval_num_samples: int = 1
    """Answers drawn to each problem, for pass@k; more than one needs generation_temperature."""
    eval_prompts: str | None = None
    """Prompts to score besides the training prompt, as in question_only,r1_zero; their metrics are
    named eval/<prompt>/..."""
    eval_gpu_memory: float | None = None
    """Share of a GPU's memory for vLLM. Unset: 0.3 beside training, 0.9 on a GPU of its own."""
    eval_enforce_eager: bool = True
    """Run vLLM without compiling: starts a minute sooner, decodes somewhat slower."""
    eval_drain_timeout: int = 7200
    """Seconds to wait after training for evaluations that are still open."""

    def other_prompts(self) -> list[str]:
        """The names in `eval_prompts`, each once."""
        names = (name.strip() for name in (self.eval_prompts or "").split(","))
        return list(dict.fromkeys(filter(None, names)))


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """Grading (sft-evaluate only)."""

    regrade: str | None = None
    """Grade again the stored completions of a run directory, or of a directory in it; no GPU."""
    serve: str | None = None
    """Run directory whose evaluations to serve, from any machine that sees it; settings are the
    run's where not given. Waits for a run that has not begun."""
    serve_idle_timeout: int = 14400
    """Seconds without an open evaluation after which --serve ends."""
    second_grader: Literal["none", "math_verify"] = "none"
    """Grade by another grader too, and list where the two disagree."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Run directory and checkpoints."""

    output_dir: str | None = None
    """Run directory. Unset: outputs/<model>-<time>, or the run that is resumed."""
    save_steps: int = 500
    """Save every so many steps, besides each epoch's end and the last step."""
    keep_last_n_checkpoints: int = 3
    """Older checkpoints are removed after a new one is whole; 0 keeps all."""
    keep_best: bool = True
    """Keep the checkpoint of the best accuracy besides; of one whose evaluation came in after it
    was removed, the weights."""
    async_save: bool = True
    """Training waits for a copy of the state in host memory, not for the disk. Turned off by
    itself where the host has no room for the copy."""
    on_save_error: Literal["stop", "continue"] = "stop"
    """When a checkpoint cannot be written (disk full, no permission). stop: at once, with the
    reason; steps that could not be kept are paid for in vain, and the older checkpoints are whole.
    continue: train on and try again at the next save; if the last one fails, the run failed."""
    max_runtime: int | None = None
    """Seconds after which the run has saved and left, to be continued (`requeue`); counted from the
    start of the process. The longest step and the longest save so far are kept free at the end."""
    resume_from_checkpoint: str | None = None
    """Path of a checkpoint or of a run directory, or latest (fresh start when there is none)."""
    allow_data_change: bool = False
    """Go on although the training data are not those of the checkpoint: at the same step, by the
    plan of the new data."""
    weights_format: Literal["safetensors", "bin"] = "safetensors"
    """Format of the exported weights: model.safetensors or pytorch_model.bin."""


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Logging."""

    wandb_project: str = "sft_dist"
    """Weights & Biases project."""
    wandb_run_name: str | None = None
    """Name of the run in wandb. Unset: the name of the run directory."""
    wandb_group: str | None = None
    """Runs that wandb shows together, such as the cells of a sweep."""
    wandb_mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online with a key, else offline. Never asks."""
    log_steps: int = 1
    """Log every so many steps."""
    debug: bool = False
    """Trial run: 8 steps, 16 problems, unless set otherwise; shows the libraries' messages."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def flat(self) -> dict[str, Any]:
        """All settings by flag name, as `config.yaml` and `--print_config` show them."""
        return {name: value for group in asdict(self).values() for name, value in group.items()}

    def global_batch_size(self, world_size: int) -> int:
        """Examples per optimizer step over all ranks."""
        batch = self.batch
        per_rank = batch.batch_size * batch.gradient_accumulation_steps
        return batch.global_batch_size or per_rank * world_size

    def max_tokens_per_microbatch(self) -> int:
        """Most tokens that one forward pass of one rank may hold."""
        explicit = self.batch.max_tokens_per_microbatch
        return explicit or self.batch.batch_size * self.data.max_seq_length


def bytes_per_weight(dtype: str) -> int:
    """Of a weight in forward and backward, by torch's name of its type: float32, else 16 bits."""
    return 4 if dtype == "float32" else 2


GROUPS: dict[str, type] = {
    f.name: f.default_factory  # type: ignore[misc]
    for f in fields(TrainConfig)
}
"""Concern -> its dataclass, in the order of the help text."""

DEBUG_DEFAULTS: dict[str, Any] = {
    "max_steps": 8,
    "eval_steps": 4,
    "save_steps": 4,
    "max_eval_samples": 16,
}
"""What `--debug` sets where the user did not."""


def from_flat(values: dict[str, Any]) -> TrainConfig:
    """Compose a `TrainConfig` from flag names and values of the right types."""
    groups = {
        name: group(**{f.name: values[f.name] for f in fields(group) if f.name in values})
        for name, group in GROUPS.items()
    }
    return TrainConfig(**groups)
