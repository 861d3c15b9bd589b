"""How much memory a step takes on one rank, part by part. Pure arithmetic, in bytes.

The peak of a step is that of its fullest moment, so parts that are never there together are not
added up: logits exist while all activations do, communication buffers when most of those are gone,
AdamW's copies when there are neither. `benchmarks/memory_estimate.py` compares it with what
processes were measured to take.

Shapes: `T` tokens of a micro-batch, `N` of them with a loss, `D` hidden size, `V` vocabulary.
"""

from dataclasses import dataclass
from typing import Any

from sft_dist.config import bytes_per_weight
from sft_dist.cpu_allocator import MMAPPED
from sft_dist.lean_layers import can_be_lean
from sft_dist.loss import CHUNK_ELEMENTS, CPU_BLOCK_ELEMENTS

FLOAT32 = 4
KEPT_FREED = {"torch": 0.6, "deepspeed": 0.6, "fsdp": 0.8}
"""Of a CPU step's tensors that come and go: the share that glibc keeps after they were freed, in
pieces that later ones do not fit."""
KEPT_BUCKETS = 1.7
"""What DeepSpeed holds on a CPU beside all that is known here, in buckets. With the shares above
the only fitted numbers here: to the rows of one rank, 10 M and 41 M, in benchmarks/README.md; its
other rows are predictions."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What of a model the memory depends on. Widths are in elements."""

    num_parameters: int
    num_layers: int
    hidden: int
    intermediate: int
    attention: int
    """Heads x head size: width of the queries."""
    vocabulary: int
    largest: int
    """Elements of the largest parameter: the embedding."""
    layer: int
    """Parameters of one layer."""
    lean: bool = True
    """Whether its layers are computed by `lean_layers`."""

    @classmethod
    def of(cls, model: Any) -> "ModelShape":
        """The shape of a causal LM; its tensors may be on the meta device."""
        config = model.config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        sizes = [p.numel() for p in model.parameters()]
        return cls(
            num_parameters=sum(sizes),
            num_layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            attention=config.num_attention_heads * head,
            vocabulary=config.vocab_size,
            largest=max(sizes),
            layer=sum(p.numel() for p in model.base_model.layers[0].parameters()),
            lean=can_be_lean(model),
        )


@dataclass(frozen=True, kw_only=True)
class StepShape:
    """One rank's step: how it is sharded, and its largest micro-batch."""

    engine: str
    """torch, deepspeed or fsdp."""
    stage: int
    """ZeRO stage of deepspeed; 0 otherwise."""
    world_size: int
    dtype: str
    """bfloat16 or float32: of weights and activations."""
    tokens: int
    target_tokens: int
    activation_checkpointing: bool = False
    offload_optimizer: bool = False
    cuda: bool = False
    bucket: int = 0
    """Elements of DeepSpeed's reduction bucket."""
    gathered_whole: bool = True
    """FSDP2: whether weights and gradients are whole during a step, see `fits_whole`."""

    @property
    def width(self) -> int:
        """Bytes of an element of weights and activations."""
        return bytes_per_weight(self.dtype)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one rank."""

    parts: dict[str, int]
    """weights, masters, optimizer, gradients, activations, logits, buffers: each at its most; and
    allocator, what a CPU's keeps of freed ones."""
    moments: dict[str, int]
    """All there is at the loss, in the backward pass, at the update."""

    @property
    def peak(self) -> int:
        """The most at any moment."""
        return max(self.moments.values())

    @property
    def fullest(self) -> str:
        """When that is."""
        return max(self.moments, key=lambda name: self.moments[name])


def estimate_memory(model: ModelShape, step: StepShape) -> MemoryEstimate:
    """Memory of a step after the first one: AdamW's moments exist."""
    state = _state(model, step)
    gradients, buffers, update = _gradients(model, step)
    activations = _activations(model, step)
    logits = _logits(model, step)
    kept = 0 if step.cuda else _kept_freed(model, step)
    always = sum(state.values()) + gradients + kept
    # The (tied) head's gradient is float32 while chunks are added, and copied to the weights' type
    # after the last one.
    head = model.largest * (FLOAT32 + (step.width if step.width < FLOAT32 else 0))
    moments = {
        "loss": always + activations + logits + head,
        "backward": always + max(buffers, _in_backward(model, step) + activations),
        "update": always + update,
    }
    parts = {**state, "gradients": gradients, "activations": activations, "logits": logits + head,
             "buffers": max(buffers, update), "allocator": kept}  # fmt: skip
    return MemoryEstimate(parts, moments)


def _state(model: ModelShape, step: StepShape) -> dict[str, int]:
    """What stays from step to step."""
    count, ranks = model.num_parameters, step.world_size
    sharded = step.engine == "fsdp" or step.stage >= 1
    share = -(-count // ranks) if sharded else count
    weights = step.width * (share if step.stage == 3 else count)
    # A float32 parameter of the torch engine, and of ZeRO-0, is its own master.
    own_master = step.dtype == "float32" and not sharded
    masters = 0 if own_master else FLOAT32 * share
    if step.engine == "fsdp":
        weights = step.width * (count if step.gathered_whole else model.layer + model.largest)
    moments = 2 * FLOAT32 * share
    if step.offload_optimizer and step.cuda:
        masters = moments = 0
    return {"weights": weights, "masters": masters, "optimizer": moments}


def _gradients(model: ModelShape, step: StepShape) -> tuple[int, int, int]:
    """(gradients kept through the backward pass, buffers in it, copies at the update)."""
    count, width = model.num_parameters, step.width
    share = FLOAT32 * -(-count // step.world_size)
    if step.engine == "torch":
        return FLOAT32 * count, width * model.largest, 0
    if step.engine == "fsdp":
        whole = count if step.gathered_whole else model.layer + model.largest
        return FLOAT32 * whole, FLOAT32 * (model.layer + model.largest), share
    if step.stage == 0:
        return width * count, width * model.largest, FLOAT32 * count
    # A bucket of gradients, the float32 copy of it that is sent, and of that the rank's own part
    # before it is added up. A CPU's memory is taken where it is written, a GPU's at once.
    filled = step.bucket if step.cuda else min(count, step.bucket)
    sent = min(count, step.bucket) * (FLOAT32 if width < FLOAT32 else 0)
    kept = share if step.stage >= 2 else FLOAT32 * count
    return kept, width * filled + sent + share, share


def _activations(model: ModelShape, step: StepShape) -> int:
    """What the layers keep for the backward pass."""
    layers = _kept_layers(model, step)
    if step.activation_checkpointing:
        return step.tokens * step.width * model.hidden * model.num_layers + sum(layers[0])
    return sum(map(sum, layers))


def _kept_layers(model: ModelShape, step: StepShape) -> list[list[int]]:
    """Bytes of each tensor that each layer saves; of a lean last one some are of targets alone."""
    layers = [_layer_tensors(model, step, step.tokens)] * (model.num_layers - 1)
    last = min(step.target_tokens, step.tokens) if model.lean else step.tokens
    # Attention's output, before and after those are taken from it.
    taken = [last * step.width * model.attention] if model.lean else []
    return [*layers, _layer_tensors(model, step, last) + taken]


def _layer_tensors(model: ModelShape, step: StepShape, after_attention: int) -> list[int]:
    """Bytes of each tensor that a Qwen2 or Llama layer saves (read in transformers 5.19's code).

    Attention: query, key and value as the kernel reads them, and its output (twice with sdpa on a
    GPU, which is not counted). MLP: gate, its activation, up and their product. Each of two norms:
    its float32 input, the normalised value, the output. A lean norm: its input and its output; a
    lean MLP does without the activation. What follows attention has `after_attention` rows.
    """
    hidden, widest = step.width * model.hidden, step.width * model.intermediate
    norm = [hidden] * 2 if model.lean else [FLOAT32 * model.hidden, hidden, hidden]
    before = norm + 4 * [step.width * model.attention]
    after = norm + [widest] * (3 if model.lean else 4)
    return [step.tokens * size for size in before] + [after_attention * size for size in after]


def _kept_freed(model: ModelShape, step: StepShape) -> int:
    """What the CPU's allocator holds beside the tensors."""
    layers = _kept_layers(model, step)[: 1 if step.activation_checkpointing else None]
    pieces = [size for layer in layers for size in layer if size < MMAPPED]
    kept = KEPT_FREED[step.engine] * (sum(pieces) + _logits(model, step))
    if step.engine == "deepspeed":
        kept += KEPT_BUCKETS * step.width * min(model.num_parameters, step.bucket)
    return int(kept)


def _in_backward(model: ModelShape, step: StepShape) -> int:
    """Gradients of one layer's activations, and of the hidden states."""
    widest = 3 * model.intermediate + 2 * model.hidden
    return step.width * step.tokens * widest


def _logits(model: ModelShape, step: StepShape) -> int:
    """A chunk of logits, its float32 copies, and the gradient of all hidden states."""
    rows = min(step.target_tokens, max(1, CHUNK_ELEMENTS // model.vocabulary))
    chunk = rows * model.vocabulary
    block = chunk if step.cuda else min(chunk, max(model.vocabulary, CPU_BLOCK_ELEMENTS))
    return step.width * (chunk + 2 * step.target_tokens * model.hidden) + 2 * FLOAT32 * block
