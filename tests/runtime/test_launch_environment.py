"""What the launcher is told of an error."""

import json

from sft_dist.runtime.launch_environment import tell_launcher


def raised(text):
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_the_first_error_of_a_process_is_the_one_that_torchrun_finds(tmp_path, monkeypatch):
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    tell_launcher(raised("the cause"))
    tell_launcher(raised("a consequence"))
    assert "the cause" in json.dumps(json.loads(path.read_text()))
    assert "a consequence" not in path.read_text()


def test_without_torchrun_nobody_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    tell_launcher(raised("the cause"))


def test_a_place_that_cannot_be_written_hides_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "absent" / "error.json"))
    tell_launcher(raised("the cause"))
