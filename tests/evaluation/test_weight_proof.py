"""The proof against models that hold one matrix and apply another. torch only."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sft_dist.evaluation import weight_proof
from sft_dist.evaluation.weight_proof import WeightsOnDisk, applies, mismatches, own_part

V, H = 40, 24
generator = torch.Generator().manual_seed(0)


class Packed:
    """As vLLM's CPU kernel: the matrix is kept in a closure, the parameter may be emptied."""

    def apply(self, layer, x, bias=None):
        return layer.kernel(x)


class Linear(nn.Module):
    def __init__(self, weight, *, keep_weight):
        super().__init__()
        self.quant_method = Packed()
        self.params_dtype = weight.dtype
        self.pack(weight)
        self.weight = nn.Parameter(weight if keep_weight else weight.new_empty(0))

    def pack(self, weight):
        packed = weight.clone()
        self.kernel = lambda x: x @ packed.T


class Model(nn.Module):
    """Stands for a vLLM Qwen2: fused matrices, a tied head that is packed on its own."""

    def __init__(self, tensors, *, keep_weight):
        super().__init__()
        self.packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj"]}
        self.model = nn.Module()
        self.model.embed_tokens = nn.Module()
        padded = torch.cat([tensors["model.embed_tokens.weight"], torch.zeros(8, H)]).bfloat16()
        self.model.embed_tokens.weight = nn.Parameter(padded)
        self.model.embed_tokens.org_vocab_size = V
        self.model.attention = nn.Module()
        fused = torch.cat([tensors[f"model.attention.{n}_proj.weight"] for n in "qk"])
        self.model.attention.qkv_proj = Linear(fused.bfloat16(), keep_weight=keep_weight)
        self.model.norm = nn.Module()
        self.model.norm.weight = nn.Parameter(tensors["model.norm.weight"].bfloat16())
        self.lm_head = nn.Module()
        self.lm_head.weight = self.model.embed_tokens.weight
        self.lm_head.org_vocab_size = V
        self.packed_head = padded[:V].detach().clone()

    def compute_logits(self, hidden):
        return hidden @ self.packed_head.T


def tensors(seed):
    torch.manual_seed(seed)
    return {
        "model.embed_tokens.weight": torch.randn(V, H).bfloat16().float(),
        "model.attention.q_proj.weight": torch.randn(H, H).bfloat16().float(),
        "model.attention.k_proj.weight": torch.randn(8, H).bfloat16().float(),
        "model.norm.weight": torch.randn(H).bfloat16().float(),
    }


@pytest.fixture
def on_disk(tmp_path):
    save_file(tensors(1), tmp_path / "model.safetensors")
    return WeightsOnDisk(tmp_path)


@pytest.fixture(params=[True, False], ids=["weights kept", "weights packed away"])
def model(request):
    return Model(tensors(1), keep_weight=request.param)


def test_a_model_with_the_weights_on_disk_passes(model, on_disk):
    assert mismatches(model, on_disk) == []


def test_a_stale_packed_head_is_found_although_every_tensor_is_new(model, on_disk):
    model.packed_head = tensors(2)["model.embed_tokens.weight"].bfloat16()
    assert mismatches(model, on_disk) == ["output head (as applied)"]


def test_a_stale_packed_matrix_is_found(model, on_disk):
    stale = torch.cat([tensors(2)[f"model.attention.{n}_proj.weight"] for n in "qk"])
    model.model.attention.qkv_proj.pack(stale.bfloat16())
    assert mismatches(model, on_disk) == ["model.attention.qkv_proj.weight"]


def test_a_stale_part_of_a_fused_matrix_is_found(model, on_disk):
    parts = [
        tensors(1)["model.attention.q_proj.weight"],
        tensors(2)["model.attention.k_proj.weight"],
    ]
    model.model.attention.qkv_proj.pack(torch.cat(parts).bfloat16())
    assert mismatches(model, on_disk) == ["model.attention.qkv_proj.weight"]


def test_the_smallest_change_of_a_tensor_is_found(model, on_disk):
    norm = model.model.norm.weight.data
    norm[3] = torch.nextafter(norm[3], torch.tensor(9.0, dtype=norm.dtype))
    assert mismatches(model, on_disk) == ["model.norm.weight"]


def test_a_small_update_of_a_packed_matrix_is_found(on_disk):
    """One optimizer step at learning rate 1e-3: far below what a dense product would show."""
    model = Model(tensors(1), keep_weight=False)
    old = torch.cat([tensors(1)[f"model.attention.{n}_proj.weight"] for n in "qk"])
    model.model.attention.qkv_proj.pack((old + 4e-3 * torch.randn_like(old).sign()).bfloat16())
    assert mismatches(model, on_disk) == ["model.attention.qkv_proj.weight"]


def test_a_tensor_that_the_files_lack_is_found(model, tmp_path):
    some = {name: tensor for name, tensor in tensors(1).items() if "norm" not in name}
    save_file(some, tmp_path / "model.safetensors")
    assert mismatches(model, WeightsOnDisk(tmp_path)) == ["model.norm.weight (not in the files)"]


def test_an_untied_head_is_compared_with_its_own_matrix(model, tmp_path):
    head = torch.randn(V, H).bfloat16().float()
    save_file({**tensors(1), "lm_head.weight": head}, tmp_path / "model.safetensors")
    found = mismatches(model, WeightsOnDisk(tmp_path))
    assert found == ["output head (as applied)", "lm_head.weight"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_allowed_another_matrix_is_not(dtype):
    weight = torch.randn(300, 512, generator=generator).to(dtype)
    like = torch.empty(0, dtype=dtype)
    assert applies(lambda x: x @ weight.T, weight, like=like)
    one_row_wrong = weight.clone()
    one_row_wrong[7] = -weight[7]
    assert not applies(lambda x: x @ one_row_wrong.T, weight, like=like)
    assert not applies(lambda x: x @ weight[:200].T, weight, like=like)


def test_the_dense_probe_sees_what_the_unit_vectors_do_not(monkeypatch):
    monkeypatch.setattr(weight_proof, "NUM_COLUMNS", 0)
    weight = torch.randn(300, 512, generator=generator)
    other = torch.randn(300, 512, generator=generator)
    like = torch.empty(0)
    assert applies(lambda x: x @ weight.T, weight, like=like)
    assert not applies(lambda x: x @ other.T, weight, like=like)


# tensor parallelism


def layer(rank, **attributes):
    return SimpleNamespace(tp_size=2, tp_rank=rank, **attributes)


MATRIX = torch.arange(48.0).view(8, 6)


def test_a_column_parallel_layer_holds_its_rows_of_each_stacked_part():
    parts = [MATRIX, MATRIX[:4] + 100]
    held = [own_part(layer(rank), parts) for rank in range(2)]
    assert torch.equal(held[0], torch.cat([MATRIX[:4], MATRIX[:2] + 100]))
    assert torch.equal(held[1], torch.cat([MATRIX[4:], MATRIX[2:4] + 100]))


def test_keys_and_values_of_fewer_heads_than_processes_are_held_by_several():
    query, key = MATRIX, MATRIX[:2] + 100
    attention = {"num_kv_head_replicas": 2}
    held = [own_part(layer(rank, **attention), [query, key, key]) for rank in range(2)]
    assert torch.equal(held[0], torch.cat([query[:4], key, key]))
    assert torch.equal(held[1], torch.cat([query[4:], key, key]))


def test_a_row_parallel_layer_holds_its_columns_and_the_whole_bias():
    row = {"input_size": 6, "input_size_per_partition": 3}
    assert torch.equal(own_part(layer(1, **row), [MATRIX]), MATRIX[:, 3:])
    assert torch.equal(own_part(layer(1, **row), [MATRIX[0]]), MATRIX[0])


def test_a_vocabulary_is_held_by_rows_and_a_single_process_holds_all():
    rows = SimpleNamespace(org_vocab_start_index=4, org_vocab_end_index=8)
    assert torch.equal(own_part(layer(1, shard_indices=rows), [MATRIX]), MATRIX[4:])
    alone = SimpleNamespace(tp_size=1, tp_rank=0)
    assert torch.equal(own_part(alone, [MATRIX, MATRIX]), torch.cat([MATRIX, MATRIX]))


def test_a_process_that_does_not_see_the_logits_does_not_judge_the_head(model, on_disk):
    model.compute_logits = lambda hidden: None
    assert mismatches(model, on_disk, sees_logits=False) == []
    assert mismatches(model, on_disk) == ["output head (as applied)"]
