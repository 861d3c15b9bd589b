"""The DeepSpeed files that come with the product."""

import json
import re
from pathlib import Path

import pytest

from sft_dist.engines.ds_config import OWNED_BY_FLAGS

DIRECTORY = Path(__file__).parent.parent / "ds_configs"
FILES = sorted(DIRECTORY.glob("*.json"))
README = DIRECTORY / "README.md"
OWNED = set(OWNED_BY_FLAGS)


def leaves(settings, prefix=""):
    """(path of the key with dots, value) of every value that is no object."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def settings(request):
    return json.loads(request.param.read_text())


def test_the_default_and_the_other_stages_are_there():
    assert {path.stem for path in FILES} >= {"zero0", "zero1", "zero2", "zero3"}


def test_each_file_is_the_stage_it_is_named_after():
    for stage in range(4):
        settings = json.loads((DIRECTORY / f"zero{stage}.json").read_text())
        assert settings["zero_optimization"]["stage"] == stage


def test_no_value_is_auto(settings):
    assert [key for key, value in leaves(settings) if value == "auto"] == []


def test_no_key_belongs_to_a_flag(settings):
    assert not {part for key, _ in leaves(settings) for part in key.split(".")} & OWNED


def test_gradients_are_reduced_in_float32_where_they_are_sharded(settings):
    if settings["zero_optimization"]["stage"] > 0:
        assert settings["communication_data_type"] == "fp32"


def test_every_key_is_explained_in_the_readme(settings):
    text = README.read_text()
    assert [key for key, _ in leaves(settings) if f"`{key}`" not in text] == []


def test_the_readme_explains_no_key_and_lists_no_file_that_is_not_there():
    text = README.read_text()
    used = {key for path in FILES for key, _ in leaves(json.loads(path.read_text()))}
    explained = set(re.findall(r"^\| `([^`]+)` \|", text.split("## Every key")[1], re.MULTILINE))
    assert explained == used
    assert set(re.findall(r"`(\w+\.json)`", text)) - {"NAME.json"} == {path.name for path in FILES}
