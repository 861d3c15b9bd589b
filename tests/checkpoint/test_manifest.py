"""Damage is found: to the files, to the list of files, and by what is missing from either."""

import json

import pytest

from sft_dist.checkpoint import damage
from sft_dist.checkpoint.layout import MANIFEST
from sft_dist.checkpoint.manifest import file_sha256, manifest_text
from tests.checkpoint.fakes import FILES, flip, save


def rewrite(path, change):
    """Change what the manifest lists, and give it the checksum it should then have."""
    files = json.loads((path / MANIFEST).read_text())["files"]
    change(files)
    (path / MANIFEST).write_text(manifest_text(4, files))


def test_the_checksum_is_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_sha256(tmp_path / "x").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_a_whole_checkpoint_has_no_damage(tmp_path):
    assert damage(save(tmp_path, 4)) == []


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found(tmp_path, name):
    path = save(tmp_path, 4)
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[:-1])
    (found,) = damage(path)
    assert found == f"{name} has {len(data) - 1} bytes, expected {len(data)}"


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found(tmp_path, name):
    path = save(tmp_path, 4)
    flip(path / name)
    (found,) = damage(path)
    assert name in found
    assert "checksum" in found


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(tmp_path, name):
    path = save(tmp_path, 4)
    (path / name).unlink()
    assert damage(path) == [f"{name} is missing"]


def test_a_missing_directory_is_found(tmp_path):
    path = save(tmp_path, 4)
    (path / "engine").rename(tmp_path / "elsewhere")
    assert damage(path) == ["engine/.metadata is missing", "engine/__0_0.distcp is missing"]


@pytest.mark.parametrize("name", ["model-00002.safetensors", "engine/__1_0.distcp", ".hidden"])
def test_a_file_that_is_not_listed_is_found(tmp_path, name):
    path = save(tmp_path, 4)
    (path / name).write_bytes(b"x")
    (found,) = damage(path)
    assert found.startswith(f"{name} is there and not in {MANIFEST}")


def test_what_nfs_keeps_of_a_removed_file_is_no_damage(tmp_path):
    path = save(tmp_path, 4)
    (path / ".nfs00000012").write_bytes(b"x")
    assert damage(path) == []


def test_a_file_that_became_a_directory_is_found(tmp_path):
    path = save(tmp_path, 4)
    (path / "config.json").unlink()
    (path / "config.json").mkdir()
    assert damage(path) == ["config.json is missing"]


def test_all_damage_is_told(tmp_path):
    path = save(tmp_path, 4)
    (path / "tokenizer.json").unlink()
    flip(path / "model.safetensors")
    assert len(damage(path)) == 2


@pytest.mark.parametrize(
    "missing", ["config.json", "engine/.metadata", "training_state.pt", "model.safetensors",
                "engine/__0_0.distcp"],
)  # fmt: skip
def test_a_manifest_without_what_a_resume_needs_is_found_though_its_checksum_is_right(
    tmp_path, missing
):
    path = save(tmp_path, 4)
    rewrite(path, lambda files: files.pop(missing))
    (path / missing).unlink()
    (found,) = damage(path)
    assert "not in manifest.json" in found


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", "{}", "3", '{"files": 3}', '{"format": 2, "files": {}}',
                '{"format": 1, "step": 4, "files": {}}'],
)  # fmt: skip
def test_a_manifest_that_is_missing_or_unreadable_is_damage(tmp_path, content):
    path = save(tmp_path, 4)
    (path / MANIFEST).unlink()
    if content is not None:
        (path / MANIFEST).write_text(content)
    (found,) = damage(path)
    assert MANIFEST in found


@pytest.mark.parametrize("bit", [0, 3, 5])
def test_every_flipped_bit_of_the_manifest_is_found(tmp_path, bit):
    path = save(tmp_path, 4)
    original = (path / MANIFEST).read_bytes()
    for position in range(len(original)):
        flip(path / MANIFEST, position, bit)
        assert damage(path), position
        (path / MANIFEST).write_bytes(original)
    assert damage(path) == []


def test_every_truncation_of_the_manifest_is_found(tmp_path):
    path = save(tmp_path, 4)
    original = (path / MANIFEST).read_bytes()
    for length in range(len(original)):
        (path / MANIFEST).write_bytes(original[:length])
        assert damage(path), length


def test_an_entry_taken_out_of_the_manifest_is_found(tmp_path):
    path = save(tmp_path, 4)
    content = json.loads((path / MANIFEST).read_text())
    del content["files"]["tokenizer.json"]
    (path / MANIFEST).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    (found,) = damage(path)
    assert "its checksum is not that of its content" in found


def test_a_checkpoint_under_the_name_of_another_step_is_found(tmp_path):
    path = save(tmp_path, 4).rename(tmp_path / "checkpoint-8")
    (found,) = damage(path)
    assert "step 4" in found
