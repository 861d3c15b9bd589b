"""wandb as a view: an offline run is written here and its file read back."""

import json
import logging
import struct
import sys
import time
import zlib
from pathlib import Path

import pytest

from sft_dist.tracking import wandb_view
from sft_dist.tracking.wandb_view import WandbView, resolve_mode

BLOCK_BYTES = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_messages(path):
    """The messages of a `.wandb` file: a 7-byte header, then LevelDB's log format.

    A message is cut where a block of 32 KiB ends; each part has a header of checksum, length and
    kind. The last bytes of a block that cannot hold a header are padding.
    """
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, parts = 7, []
    while position + 7 <= len(data):
        room = BLOCK_BYTES - position % BLOCK_BYTES
        if room < 7:
            position += room
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, position)
        if kind == 0:
            break
        part = data[position + 7 : position + 7 + length]
        if len(part) < length:
            break  # still being written
        assert zlib.crc32(bytes([kind]) + part) == checksum
        position += 7 + length
        parts = [part] if kind in (FULL, FIRST) else [*parts, part]
        if kind in (FULL, LAST):
            yield b"".join(parts)


def read_records(run_dir):
    """(kind, record) by record of the one run in a directory."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = Path(run_dir).glob("wandb/offline-run-*/*.wandb")
    for message in read_messages(path):
        record = Record()
        record.ParseFromString(message)
        yield record.WhichOneof("record_type"), record


def wait_until_written(run_dir, seconds=60):
    """wandb's own process writes the file; `finish` comes back a moment before it is done."""
    deadline = time.monotonic() + seconds
    while "exit" not in {kind for kind, _ in read_records(run_dir)}:
        assert time.monotonic() < deadline, "wandb did not end its file"
        time.sleep(0.02)


def read_run(run_dir):
    """(rows of the history, metric name or pattern -> its axis, the run's record)."""
    rows, axes, run = [], {}, None
    for kind, record in read_records(run_dir):
        if kind == "history":
            items = record.history.item
            rows.append({".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
        elif kind == "metric":
            metric = record.metric
            axes[metric.name or metric.glob_name] = metric.step_metric
        elif kind == "run":
            run = record.run
    return rows, axes, run


@pytest.fixture
def no_login(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_RUN_ID", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))


def test_late_evaluations_are_all_there_at_their_own_step(tmp_path, no_login, configured):
    run_dir = tmp_path / "my-run"
    run_dir.mkdir()
    config = configured(wandb_mode="offline", wandb_project="maths", learning_rate=3e-6)
    view = WandbView(config, run_dir, "abc123")
    for step in range(1, 9):
        view.log({"train/step": step, "train/loss": 1.0 / step, "perf/step_seconds": 0.1})
    for step in (8, 0, 4):  # finished in this order, after training had moved on
        view.log({"eval/step": step, "eval/accuracy": step / 10})
    view.log({"train/step": 9, "train/loss": 0.0})
    view.log_samples(4, [{"prompt": "1+1?", "response": "2"}])
    view.log_samples(8, [])
    view.close()
    wait_until_written(run_dir)

    rows, axes, run = read_run(run_dir)
    evaluated = {r["eval/step"]: r["eval/accuracy"] for r in rows if "eval/accuracy" in r}
    trained = {r["train/step"]: r["train/loss"] for r in rows if "train/loss" in r}
    assert evaluated == {8: 0.8, 0: 0.0, 4: 0.4}
    assert trained == {**{step: 1.0 / step for step in range(1, 9)}, 9: 0.0}
    assert axes["train/*"] == axes["perf/*"] == "train/step"
    assert axes["eval/*"] == "eval/step"
    assert {"train/step", "eval/step"} <= set(axes)
    tables = [r for r in rows if any(key.startswith("eval/sample_generations") for key in r)]
    assert [r["eval/step"] for r in tables] == [4]
    assert (run.run_id, run.project, run.display_name) == ("abc123", "maths", "my-run")
    stored = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert stored["learning_rate"] == 3e-6
    assert view.url is None


def test_the_reader_of_these_tests_joins_messages_over_blocks(tmp_path):
    messages = [b"a" * 40000, b"b", b"c" * 32750, b"d" * 70000]
    data = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for message in messages:
        rest, first = message, True
        while rest or first:
            room = BLOCK_BYTES - len(data) % BLOCK_BYTES
            if room < 7:
                data += bytes(room)
                continue
            part, rest = rest[: room - 7], rest[room - 7 :]
            kind = (FULL if first else LAST) if not rest else (FIRST if first else MIDDLE)
            data += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
    (tmp_path / "x.wandb").write_bytes(bytes(data))
    assert list(read_messages(tmp_path / "x.wandb")) == messages


def test_a_disabled_run_needs_no_wandb_writes_nothing_and_has_no_address(
    tmp_path, no_login, configured, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import of it fails
    view = WandbView(configured(wandb_mode="disabled"), tmp_path, "abc")
    view.log({"train/step": 1, "train/loss": 1.0})
    view.log_samples(1, [{"problem": "1 + 1"}])
    view.close()
    assert not view.url
    assert not list(tmp_path.iterdir())
    assert not caplog.records


class FakeRun:
    """Remembers what it is told; fails from a call on."""

    url = "https://wandb.example/run"
    offline = False

    def __init__(self, fail_at=None):
        self.calls, self.fail_at = [], fail_at

    def log(self, row, **options):
        self._call(row, options)

    def finish(self, exit_code=None):
        self._call({"exit_code": exit_code}, {})

    def _call(self, row, options):
        self.calls.append((row, options))
        if self.fail_at is not None and len(self.calls) >= self.fail_at:
            raise RuntimeError("wandb is down")


def view_of(monkeypatch, configured, run):
    def start(*_):
        if isinstance(run, Exception):
            raise run
        return run

    monkeypatch.setattr(wandb_view, "_start", start)
    return WandbView(configured(), Path("run"), "id")


def test_rows_are_logged_without_a_step_of_wandbs_own(monkeypatch, configured):
    """A step lower than the last one would be ignored."""
    run = FakeRun()
    view = view_of(monkeypatch, configured, run)
    view.log({"eval/step": 0, "eval/accuracy": 0.5})
    assert run.calls == [({"eval/step": 0, "eval/accuracy": 0.5}, {})]
    assert view.url == FakeRun.url


def test_a_failure_while_logging_is_told_once_and_then_wandb_is_left_alone(
    monkeypatch, configured, caplog
):
    run = FakeRun(fail_at=2)
    view = view_of(monkeypatch, configured, run)
    with caplog.at_level(logging.WARNING):
        for step in range(5):
            view.log({"train/step": step})
        view.log_samples(1, [{"prompt": "p"}])
        view.close()
    assert len(run.calls) == 2
    assert caplog.text.count("wandb failed") == 1


def test_a_failure_at_the_start_does_not_raise(monkeypatch, configured, caplog):
    with caplog.at_level(logging.WARNING):
        view = view_of(monkeypatch, configured, RuntimeError("no wandb"))
        view.log({"train/step": 1})
        view.close()
    assert view.url is None
    assert caplog.text.count("wandb failed") == 1


def test_a_run_that_failed_is_marked_so(monkeypatch, configured):
    for failed in (False, True):
        run = FakeRun()
        view_of(monkeypatch, configured, run).close(failed=failed)
        assert run.calls == [({"exit_code": int(failed)}, {})]


# The mode


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_a_mode_that_was_asked_for_is_taken(monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", "online")
    assert resolve_mode(mode) == mode


def test_auto_without_a_key_is_offline(no_login):
    assert resolve_mode("auto") == "offline"


def test_auto_with_a_key_is_online(no_login, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert resolve_mode("auto") == "online"


def test_auto_with_a_netrc_entry_is_online(no_login, monkeypatch, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (home / ".netrc").chmod(0o600)
    assert resolve_mode("auto") == "online"


@pytest.mark.parametrize("content", [b"machine\n", b"\xff\xfe not text"])
def test_a_netrc_that_cannot_be_read_counts_as_none(no_login, tmp_path, content):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".netrc").write_bytes(content)
    assert resolve_mode("auto") == "offline"


def test_auto_follows_wandbs_own_variable(no_login, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_mode("auto") == "disabled"


def test_online_without_a_network_goes_on_offline(monkeypatch, configured, tmp_path, caplog):
    import wandb

    modes = []

    class Started:
        def define_metric(self, *args, **kwargs):
            pass

    def init(*, mode, **arguments):
        modes.append((mode, arguments["id"], arguments["resume"]))
        if mode == "online":
            raise wandb.errors.CommError("no network")
        return Started()

    monkeypatch.setattr(wandb, "init", init)
    with caplog.at_level(logging.WARNING):
        WandbView(configured(wandb_mode="online"), tmp_path, "abc")
    assert modes == [("online", "abc", "allow"), ("offline", "abc", "allow")]
    assert "wandb sync" in caplog.text


def test_samples_of_every_step_are_in_one_table_and_each_is_written_once(
    tmp_path, no_login, configured
):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    view = WandbView(configured(wandb_mode="offline"), run_dir, "abc")
    steps = range(0, 40, 10)
    for step in steps:
        samples = [{"id": f"p{i}", "response": f"step {step}", "gold": None} for i in range(3)]
        view.log_samples(step, samples)
    view.close()
    wait_until_written(run_dir)
    rows, _, _ = read_run(run_dir)
    key = "eval/sample_generations"
    assert [row["eval/step"] for row in rows if f"{key}._type" in row] == list(steps)
    written = [json.loads(path.read_text())["data"] for path in run_dir.rglob("*.table.json")]
    assert sorted(row[:2] for data in written for row in data) == [
        [step, f"p{i}"] for step in steps for i in range(3)
    ]
    assert {len(data) for data in written} == {3}
