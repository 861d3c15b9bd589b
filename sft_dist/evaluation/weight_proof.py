"""Proof that a living engine computes with the weights on disk. torch; no vLLM.

An engine may hold a matrix twice: as a tensor, and packed for its kernel. A reload can change the
one and leave the other, and then every check that looks at tensors passes while the old weights
decode (vLLM 0.32 on CPU does that to a tied head). So matrices are judged by what they *do*:

* unit vectors read columns back out of the layer: x = e_j gives column j, and as every other
  product is 0 the result is exact in any precision, so it is compared for equality;
* dense random vectors touch every entry, within the rounding of the engine's dtype.

Tensors that the engine holds as such (norms, biases, embeddings, unpacked matrices) are compared
entry by entry. Whatever the engine holds and the files lack is a mismatch too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sft_dist.fingerprint import weight_files

NUM_COLUMNS, NUM_DENSE = 16, 8
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"

Linear = Callable[[torch.Tensor], torch.Tensor]


def mismatches(model: Any, weights: "WeightsOnDisk", *, sees_logits: bool = True) -> list[str]:
    """Names of what differs between a vLLM model and `weights`; empty proves them equal.

    Of a model that several processes share by tensor parallelism, each judges its own part, and all
    must call this at the same time: the head is applied together.

    Args:
        model: needs `named_modules`, `compute_logits`, and `packed_modules_mapping` for matrices
            that it fuses; its linear layers need `quant_method.apply(layer, x)`.
        weights: what it should hold.
        sees_logits: whether this process gets what the head gives (the first always does).
    """
    fused = getattr(model, "packed_modules_mapping", {})
    head = _head_is_right(model, weights)
    wrong = [] if head or not sees_logits else ["output head (as applied)"]
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full_name = f"{module_name}.{name}"
            if full_name == HEAD and HEAD not in weights:
                continue  # tied: a second name of the embedding, judged by what it does above
            parts = weights.parts(full_name, fused)
            if parts is None:
                wrong.append(f"{full_name} (not in the files)")
            elif not _parameter_is_right(module, name, parameter, own_part(module, parts)):
                wrong.append(full_name)
    return wrong


class WeightsOnDisk:
    """The tensors of a model directory by name, read when asked for."""

    def __init__(self, model_dir: Path) -> None:
        self._readers: dict[str, Callable[[], torch.Tensor]] = {}
        for path in weight_files(model_dir):
            self._readers.update(_readers(path))

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._readers[name]()

    def head(self) -> torch.Tensor:
        """The matrix (V, H) that turns hidden states into logits."""
        return self[HEAD if HEAD in self else EMBEDDING]

    def parts(self, name: str, fusions: Mapping[str, Sequence[str]]) -> list[torch.Tensor] | None:
        """The tensor `name`, or those that the engine stacks under that name; None if absent."""
        if name in self:
            return [self[name]]
        for fused_name, parts in fusions.items():
            if f".{fused_name}." in name:
                names = [name.replace(f".{fused_name}.", f".{part}.") for part in parts]
                if all(part in self for part in names):
                    return [self[part] for part in names]
        return None


def own_part(module: Any, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """What of the tensors in the files a layer's process holds under tensor parallelism.

    As vLLM 0.32 cuts them (`model_executor/layers/`): a vocabulary by rows of `shard_indices`; a
    row-parallel matrix by columns, its bias whole; a column-parallel one by rows, each stacked part
    by itself, and keys and values, of which there may be fewer heads than processes, with replicas.
    """
    size, rank = getattr(module, "tp_size", 1), getattr(module, "tp_rank", 0)
    if hasattr(module, "shard_indices"):
        rows = module.shard_indices
        return parts[0][rows.org_vocab_start_index : rows.org_vocab_end_index]
    if size == 1:
        return torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    if getattr(module, "input_size_per_partition", 0) < getattr(module, "input_size", 0):
        (whole,) = parts
        return whole.chunk(size, dim=1)[rank] if whole.dim() == 2 else whole
    replicas = getattr(module, "num_kv_head_replicas", 1)
    own = [parts[0].chunk(size)[rank]]
    own += [part.chunk(size // replicas)[rank // replicas] for part in parts[1:]]
    return torch.cat(own)


def _readers(path: Path) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        file = safe_open(path, framework="pt")
        for name in file.keys():  # noqa: SIM118  (the handle is not a dict)
            yield name, lambda name=name: file.get_tensor(name)  # type: ignore[misc]
    else:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        for name, tensor in state.items():
            yield name, lambda tensor=tensor: tensor  # type: ignore[misc]


def _parameter_is_right(
    module: Any, name: str, parameter: torch.Tensor, source: torch.Tensor
) -> bool:
    """Compare by value where the engine holds values, by effect where the module is a matrix."""
    apply = getattr(getattr(module, "quant_method", None), "apply", None)
    is_matrix = name == "weight" and source.dim() == 2
    is_held = parameter.numel() > 0
    if is_held and not _rows_are_equal(parameter, source):
        return False
    if is_matrix and apply is not None and not _is_embedding(module):
        return applies(
            lambda x: apply(module, x, None), source, like=_probe_like(module, parameter)
        )
    return is_held


def _is_embedding(module: Any) -> bool:
    """Vocabulary matrices are looked up in, not applied; the head is judged apart."""
    return hasattr(module, "org_vocab_size")


def _rows_are_equal(parameter: torch.Tensor, source: torch.Tensor) -> bool:
    """Equal after conversion to the engine's dtype, except for rows of padding at the end."""
    held = parameter.detach()[: source.shape[0]].cpu()
    source = source.to(held.dtype)
    return held.shape == source.shape and torch.equal(_bits(held), _bits(source))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """As integers, where that takes no copy: compared faster, and a NaN equals itself."""
    integer = {2: torch.int16, 4: torch.int32}.get(tensor.element_size())
    return tensor.view(integer) if integer is not None and tensor.dim() > 0 else tensor


def _probe_like(module: Any, parameter: torch.Tensor) -> torch.Tensor:
    dtype = getattr(module, "params_dtype", parameter.dtype)
    return torch.empty(0, dtype=dtype, device=parameter.device)


def _head_is_right(model: Any, weights: WeightsOnDisk) -> bool:
    parameter = next(p for p in model.parameters() if p.numel() > 0)
    return applies(model.compute_logits, weights.head(), like=parameter)


@torch.inference_mode()
def applies(linear: Linear, weight: torch.Tensor, *, like: torch.Tensor) -> bool:
    """Whether `linear` multiplies by `weight` (N, K): (B, K) -> (B, N). `like` gives the dtype."""
    generator = torch.Generator().manual_seed(weight.shape[0])
    columns = torch.randperm(weight.shape[1], generator=generator)[:NUM_COLUMNS]
    dense = torch.randn(NUM_DENSE, weight.shape[1], generator=generator).to(like.dtype)
    units = torch.nn.functional.one_hot(columns, weight.shape[1]).to(like.dtype)
    found = linear(torch.cat([units, dense]).to(like.device))
    if found is None or found.shape[-1] < weight.shape[0]:
        return False
    found = found[:, : weight.shape[0]].float().cpu()
    weight = weight.to(like.dtype)
    expected_columns = weight[:, columns].float().T
    return torch.equal(found[: len(columns)], expected_columns) and _is_near(
        found[len(columns) :], torch.nn.functional.linear(dense, weight).float()
    )


def _is_near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether products (B, N) with random vectors are equal within rounding.

    bfloat16 keeps 8 bits, and partial sums may be rounded to it as well, on either side. Sums of a
    row are of the size of its norm, which their root mean square over the vectors estimates without
    another pass over the matrix. A matrix that is another one differs by about sqrt(2) of that, 90
    times the allowance.
    """
    scale = expected.square().mean(dim=0).sqrt()
    return bool(((found - expected).abs() <= 2**-6 * (expected.abs() + scale)).all())
