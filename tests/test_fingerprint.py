import json

import pytest
import torch
from safetensors.torch import save_file

from sft_dist.errors import ModelError
from sft_dist.fingerprint import weights_fingerprint

TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.bfloat16).reshape(3, 4),
    "b.bias": torch.linspace(-1, 1, 5),
    "c.counts": torch.tensor([1, 2], dtype=torch.int64),
}


def save(directory, tensors, name="model.safetensors"):
    directory.mkdir(exist_ok=True)
    save_file(tensors, directory / name)
    return directory


def save_sharded(directory, tensors):
    weight_map = {}
    for number, (name, tensor) in enumerate(tensors.items()):
        save(directory, {name: tensor}, f"part-{number}.safetensors")
        weight_map[name] = f"part-{number}.safetensors"
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return directory


def test_one_file_shards_and_a_torch_file_of_the_same_tensors_have_one_fingerprint(tmp_path):
    whole = save(tmp_path / "whole", TENSORS)
    sharded = save_sharded(tmp_path / "sharded", TENSORS)
    torch_file = tmp_path / "torch"
    torch_file.mkdir()
    torch.save(TENSORS, torch_file / "pytorch_model.bin")
    expected = weights_fingerprint(whole)
    assert len(expected) == 64
    assert weights_fingerprint(sharded) == expected
    assert weights_fingerprint(torch_file) == expected


def test_metadata_and_the_order_of_tensors_do_not_count(tmp_path):
    plain = save(tmp_path / "plain", TENSORS)
    other = tmp_path / "other"
    other.mkdir()
    reverse = dict(reversed(TENSORS.items()))
    save_file(reverse, other / "model.safetensors", metadata={"format": "pt", "note": "x"})
    assert weights_fingerprint(plain) == weights_fingerprint(other)


@pytest.mark.parametrize(
    "change",
    [
        {"b.bias": TENSORS["b.bias"] + 1e-7},
        {"b.bias": TENSORS["b.bias"].double()},
        {"a.weight": TENSORS["a.weight"].reshape(4, 3).contiguous()},
        {"d.weight": torch.zeros(1)},
    ],
    ids=["one bit", "dtype", "shape", "one more tensor"],
)
def test_any_change_of_the_weights_changes_it(tmp_path, change):
    before = weights_fingerprint(save(tmp_path / "before", TENSORS))
    after = weights_fingerprint(save(tmp_path / "after", {**TENSORS, **change}))
    assert before != after


def test_a_renamed_tensor_changes_it(tmp_path):
    renamed = {name.replace("a.", "z."): tensor for name, tensor in TENSORS.items()}
    before = weights_fingerprint(save(tmp_path / "before", TENSORS))
    assert weights_fingerprint(save(tmp_path / "after", renamed)) != before


def test_a_missing_directory_and_one_without_weights_are_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        weights_fingerprint(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"model\.safetensors or pytorch_model\.bin"):
        weights_fingerprint(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    directory = save_sharded(tmp_path / "sharded", TENSORS)
    (directory / "part-1.safetensors").unlink()
    with pytest.raises(ModelError, match=r"missing: part-1\.safetensors"):
        weights_fingerprint(directory)


@pytest.mark.parametrize("keep", [4, 60, -3], ids=["in the size", "in the header", "in a tensor"])
def test_a_file_cut_short_is_an_error_and_no_fingerprint(tmp_path, keep):
    path = save(tmp_path / "cut", TENSORS) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="cannot read the weights"):
        weights_fingerprint(path.parent)


def test_a_torch_file_with_code_in_it_is_refused(tmp_path):
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (ran.touch, ())

    torch.save({"w": Bomb()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot read the weights"):
        weights_fingerprint(tmp_path)
    assert not ran.exists()
