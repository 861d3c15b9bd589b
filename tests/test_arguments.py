"""Command line, YAML and resumed settings -> TrainConfig; every fault at once, before torch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml

from sft_dist.arguments import ELSEWHERE, FLAGS, parse_evaluate_config, parse_train_config
from sft_dist.config import PromptName, TrainConfig
from sft_dist.data.prompts import PROMPTS
from sft_dist.engines.ds_config import (
    OWNED_BY_FLAGS,
    complete_ds_config,
    ds_config_faults,
    load_ds_config,
)
from sft_dist.errors import ConfigError
from sft_dist.validation import config_faults

REQUIRED = ["--model_path", "owner/model", "--data_path", "owner/data"]
CONTRACT = [
    "model_path", "data_path", "output_dir", "learning_rate", "batch_size",
    "gradient_accumulation_steps", "num_epochs", "max_seq_length", "warmup_steps", "max_grad_norm",
    "eval_steps", "eval_batch_size", "max_eval_samples", "generation_max_length",
    "generation_temperature", "wandb_project", "wandb_run_name", "save_steps",
    "keep_last_n_checkpoints", "seed", "debug", "resume_from_checkpoint",
]  # fmt: skip


@pytest.fixture(autouse=True)
def everything_is_installed(monkeypatch):
    """So that the faults of a test do not depend on what the machine has."""
    monkeypatch.setattr("sft_dist.validation._installed", lambda package: True)


def parse(*argv, checks=(config_faults, ds_config_faults)):
    return parse_train_config([*REQUIRED, *argv], checks)


def faults_of(*argv):
    with pytest.raises(ConfigError) as caught:
        parse(*argv)
    return caught.value.faults


def one_fault_of(*argv):
    faults = faults_of(*argv)
    assert len(faults) == 1, faults
    return faults[0]


def yaml_file(tmp_path, text, name="run.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def stored_run(tmp_path, **settings):
    """A run directory as an earlier attempt left it."""
    run_dir = tmp_path / "run"
    (run_dir / "checkpoint-4").mkdir(parents=True)
    stored = parse().flat() | {"output_dir": str(run_dir)} | settings
    (run_dir / "config.yaml").write_text(yaml.safe_dump(stored))
    return run_dir


# Names, values and forms


def test_the_defaults_are_those_of_the_design():
    config = parse()
    expected = {
        "learning_rate": 1e-5, "batch_size": 4, "gradient_accumulation_steps": 8, "num_epochs": 3,
        "max_seq_length": 1024, "warmup_steps": None, "max_grad_norm": 1.0, "eval_steps": 500,
        "max_eval_samples": 500, "generation_max_length": 512, "generation_temperature": 0.0,
        "save_steps": 500, "keep_last_n_checkpoints": 3, "seed": 42, "adam_beta1": 0.9,
        "adam_beta2": 0.95, "adam_eps": 1e-8, "weight_decay": 0.0, "debug": False,
        "dtype": "bfloat16", "engine": "deepspeed", "ds_config": "zero2", "prompt": "default",
        "weights_format": "safetensors", "output_dir": None, "resume_from_checkpoint": None,
        "eval_backend": "vllm", "global_batch_size": None, "wandb_mode": "auto",
    }  # fmt: skip
    assert {name: config.flat()[name] for name in expected} == expected


def test_the_flags_of_the_contract_exist():
    assert set(CONTRACT) <= set(FLAGS)


def test_the_global_batch_is_the_product_unless_it_is_set():
    assert parse().global_batch_size(8) == 256
    assert parse("--batch_size", "3").global_batch_size(2) == 48
    assert parse("--global_batch_size", "10").global_batch_size(8) == 10


def test_a_microbatch_holds_batch_size_sequences_of_full_length_unless_it_is_set():
    assert parse().max_tokens_per_microbatch() == 4096
    assert parse("--max_tokens_per_microbatch", "2000").max_tokens_per_microbatch() == 2000


@pytest.mark.parametrize(
    "argv",
    [["--learning_rate", "3e-6"], ["--learning_rate=3e-6"], ["--learning-rate", "3e-6"]],
)
def test_a_value_follows_its_flag_after_a_space_or_an_equals_sign(argv):
    assert parse(*argv).optimizer.learning_rate == 3e-6


def test_a_value_may_hold_an_equals_sign_and_begin_with_one_dash():
    assert parse("--wandb_run_name=lr=1e-5").tracking.wandb_run_name == "lr=1e-5"
    assert "-1" in one_fault_of("--seed", "-1")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--deterministic"], True),
        (["--deterministic", "--debug"], True),
        (["--deterministic", "true"], True),
        (["--deterministic=false"], False),
        (["--deterministic", "--no_deterministic"], False),
        (["--deterministic", "--no-deterministic"], False),
    ],
)
def test_a_bool_is_set_bare_with_a_word_or_negated(argv, expected):
    assert parse(*argv).engine.deterministic is expected


def test_no_before_a_flag_that_is_not_a_bool_is_a_fault():
    assert "--no_seed" in one_fault_of("--no_seed")


def test_the_last_of_two_values_wins():
    assert parse("--seed", "1", "--seed", "2").engine.seed == 2


def test_a_directory_called_like_a_number_or_null_stays_a_name():
    config = parse("--output_dir", "123", "--wandb_run_name", "null")
    assert config.checkpoint.output_dir == "123"
    assert config.tracking.wandb_run_name == "null"


# Faults


def test_all_faults_of_names_types_values_and_paths_are_told_together(tmp_path):
    faults = faults_of(
        "--lerning_rate", "1e-5", "--batch_size", "four", "--num_epochs", "0", "--dtype=fp16",
        "--data_path", str(tmp_path / "nowhere"), "stray", "--max_steps",
    )  # fmt: skip
    text = "\n".join(faults)
    assert len(faults) == 7, text
    assert "did you mean --learning_rate?" in text
    assert "--batch_size: expected int, found 'four'" in text
    assert "--num_epochs: expected at least 1, found 0" in text
    assert "--dtype: expected one of bfloat16, float32, found 'fp16'" in text
    assert f"--data_path: {tmp_path / 'nowhere'} does not exist" in text
    assert "found 'stray'" in text
    assert "--max_steps: expected a value (int), found none" in text


def test_the_message_of_the_error_numbers_the_faults():
    with pytest.raises(ConfigError) as caught:
        parse("--seed", "-1", "--num_epochs", "0")
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 faults in the configuration:"
    assert [line[:5] for line in lines[1:]] == ["  1. ", "  2. "]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("--keep_last_checkpoints", "--keep_last_n_checkpoints"),
        ("--lr_warmup_steps", "--warmup_steps"),
        ("--resume_from_chekpoint", "--resume_from_checkpoint"),
        ("--lr", "--learning_rate"),
        ("--model_name_or_path", "--model_path"),
        ("--per_device_train_batch_size", "--batch_size"),
    ],
)
def test_an_unknown_flag_names_the_nearest_one(wrong, meant):
    assert f"did you mean {meant}?" in one_fault_of(wrong, "1")


def test_what_other_trainers_call_a_setting_is_one_of_ours():
    assert set(ELSEWHERE.values()) <= set(FLAGS)
    assert not set(ELSEWHERE) & set(FLAGS)


def test_a_path_that_is_nearly_there_is_asked_about(tmp_path):
    (tmp_path / "data" / "MATH").mkdir(parents=True)
    for wrong in ("data/MAHT", "dta/MATH"):
        fault = one_fault_of("--data_path", str(tmp_path / wrong))
        meant = tmp_path / ("data/MATH" if wrong.startswith("data/") else "data")
        assert fault.endswith(f"did you mean {meant}?")
    assert "did you mean" not in one_fault_of("--data_path", str(tmp_path / "quite" / "another"))


def test_problems_alone_are_enough_to_evaluate():
    words = ["--model_path", "owner/model", "--eval_data_path", "owner/problems"]
    config, _ = parse_evaluate_config(words, (config_faults,))
    assert config.data.eval_data_path == "owner/problems"


def test_a_flag_like_no_other_points_to_the_help():
    assert "see --help" in one_fault_of("--zzzzzz", "1")


def test_the_value_of_an_unknown_flag_is_not_a_second_fault():
    assert "--lerning_rate" in one_fault_of("--lerning_rate", "3")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "0") for name in (
            "max_seq_length", "num_epochs", "max_steps", "batch_size", "eval_steps", "save_steps",
            "gradient_accumulation_steps", "global_batch_size", "eval_batch_size", "log_steps",
            "generation_max_length", "holdout",
        )),
        *((name, "-1") for name in (
            "learning_rate", "warmup_steps", "max_grad_norm", "weight_decay", "max_eval_samples",
            "generation_temperature", "keep_last_n_checkpoints", "seed", "adam_eps", "batch_size",
        )),
        ("adam_beta1", "1.0"), ("adam_beta2", "1.5"), ("eval_gpu_memory", "1"),
        ("learning_rate", "nan"), ("learning_rate", "inf"), ("seed", "1.5"), ("debug", "maybe"),
        ("seed", str(2**64)),
        ("max_tokens_per_microbatch", "1000"), ("eval_placement", "Shared"),
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_one_fault_that_names_the_flag(name, value):
    assert one_fault_of(f"--{name}", value).startswith(f"--{name}:")


def test_the_edges_of_the_ranges_are_no_faults():
    parse("--max_grad_norm", "0", "--warmup_steps", "0", "--keep_last_n_checkpoints", "0",
          "--max_eval_samples", "0", "--seed", "0", "--learning_rate", "0", "--max_steps", "1",
          "--max_tokens_per_microbatch", "1024")  # fmt: skip


def test_model_and_data_are_required():
    with pytest.raises(ConfigError) as caught:
        parse_train_config([], (config_faults,))
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["--model_path", "--data_path"]


def test_a_model_directory_without_config_json_is_a_fault(tmp_path):
    assert "config.json" in one_fault_of("--model_path", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    parse("--model_path", str(tmp_path))


def test_two_sources_of_evaluation_problems_are_a_fault():
    fault = one_fault_of("--eval_data_path", "owner/test", "--holdout", "10")
    assert "--eval_data_path" in fault
    assert "--holdout" in fault


@pytest.mark.parametrize("engine", ["torch", "fsdp"])
def test_a_deepspeed_file_without_deepspeed_is_a_fault(engine):
    fault = one_fault_of("--engine", engine, "--ds_config", "zero3")
    assert fault.startswith("--ds_config")
    assert engine in fault


@pytest.mark.parametrize(
    ("package", "argv"),
    [("vllm", []), ("deepspeed", []), ("flash_attn", ["--attention", "flash_attention_2"])],
)
def test_a_missing_package_is_a_fault_only_where_it_is_needed(monkeypatch, package, argv):
    monkeypatch.setattr("sft_dist.validation._installed", lambda name: name != package)
    assert "not installed" in one_fault_of(*argv)
    parse("--eval_backend", "hf", "--engine", "torch", "--attention", "sdpa")
    parse("--eval_placement", "off", "--engine", "torch")


def test_several_answers_to_a_problem_need_a_temperature():
    assert "--generation_temperature" in one_fault_of("--eval_num_samples", "4")
    sampled = parse("--eval_num_samples", "4", "--generation_temperature", "0.7")
    assert sampled.evaluation.eval_num_samples == 4
    assert "--eval_num_samples" in one_fault_of("--eval_num_samples", "0")


def test_gpus_of_an_engine_divide_those_of_evaluation():
    shared = ("--eval_tensor_parallel", "2")
    reserved = ("--eval_placement", "reserved", *shared)
    assert "--eval_gpus" in one_fault_of(*reserved, "--eval_gpus", "3")
    assert parse(*reserved, "--eval_gpus", "4").evaluation.eval_tensor_parallel == 2
    assert parse(*shared).evaluation.eval_tensor_parallel == 2
    assert "--eval_tensor_parallel" in one_fault_of(*shared, "--eval_backend", "hf")
    assert "--collective_timeout" in one_fault_of("--collective_timeout", "0")


def test_prompts_to_score_are_names_with_commas_between_them():
    config = parse("--eval_prompts", "question_only, r1_zero,question_only,")
    assert config.evaluation.other_prompts() == ["question_only", "r1_zero"]
    assert parse().evaluation.other_prompts() == []
    fault = one_fault_of("--eval_prompts", "question_only,r1-zero")
    assert "'r1-zero'" in fault
    assert "r1_zero" in fault


def test_the_prompts_that_settings_know_are_those_there_are():
    assert set(get_args(PromptName)) == set(PROMPTS)


# The run directory


def test_a_run_directory_that_is_not_empty_is_a_fault_without_resume(tmp_path):
    parse("--output_dir", str(tmp_path))
    (tmp_path / "metrics.jsonl").write_text("")
    assert "is not empty" in one_fault_of("--output_dir", str(tmp_path))
    parse("--output_dir", str(tmp_path), "--resume_from_checkpoint", "latest")


def test_latest_needs_the_run_to_look_in():
    assert "--output_dir" in one_fault_of("--resume_from_checkpoint", "latest")


def test_latest_in_a_directory_that_is_not_there_yet_is_no_fault(tmp_path):
    missing = str(tmp_path / "new")
    config = parse("--output_dir", missing, "--resume_from_checkpoint", "latest")
    assert config.checkpoint.output_dir == missing


@pytest.mark.parametrize("place", ["--output_dir", "--resume_from_checkpoint"])
def test_a_run_to_resume_that_is_not_there_is_what_is_told(tmp_path, place):
    (tmp_path / "run-a").mkdir()
    flags = {"--resume_from_checkpoint": "latest"} | {place: str(tmp_path / "run-b")}
    with pytest.raises(ConfigError) as caught:
        parse_train_config([word for pair in flags.items() for word in pair], (config_faults,))
    first = caught.value.faults[0]
    assert first.startswith("--resume_from_checkpoint: expected the directory of a run")
    assert f"did you mean {tmp_path / 'run-a'}?" in first


def test_a_checkpoint_that_is_not_there_is_a_fault(tmp_path):
    assert "no " in one_fault_of("--resume_from_checkpoint", str(tmp_path / "checkpoint-4"))


@pytest.mark.parametrize("place", ["checkpoint-4", ""])
def test_a_resumed_run_keeps_its_settings_and_its_directory(tmp_path, place):
    run_dir = stored_run(tmp_path, model_path="stored/model", learning_rate=3e-6, holdout=7)
    config = parse_train_config(
        ["--resume_from_checkpoint", str(run_dir / place), "--max_steps", "9"], (config_faults,)
    )
    assert config.model.model_path == "stored/model"
    assert config.optimizer.learning_rate == 3e-6
    assert config.data.holdout == 7
    assert config.optimizer.max_steps == 9
    assert Path(config.checkpoint.output_dir) == run_dir
    assert config.checkpoint.resume_from_checkpoint == str(run_dir / place)


def test_a_resume_by_latest_keeps_the_settings_of_the_run(tmp_path):
    run_dir = stored_run(tmp_path, learning_rate=3e-6, seed=1)
    config = parse(
        "--resume_from_checkpoint", "latest", "--output_dir", str(run_dir), "--seed", "2"
    )
    assert config.optimizer.learning_rate == 3e-6
    assert config.engine.seed == 2
    assert config.model.model_path == "owner/model"  # given again, so the command line's


def test_the_config_file_wins_over_the_resumed_run_and_loses_to_the_command_line(tmp_path):
    run_dir = stored_run(tmp_path, learning_rate=1.0, weight_decay=1.0, adam_eps=1.0)
    path = yaml_file(tmp_path, "learning_rate: 2.0\nweight_decay: 2.0\n")
    optimizer = parse(
        "--resume_from_checkpoint", str(run_dir), "--weight_decay", "3.0", "--config", path
    ).optimizer
    assert (optimizer.adam_eps, optimizer.learning_rate, optimizer.weight_decay) == (1, 2, 3)


def test_a_run_directory_can_be_resumed_that_holds_settings_of_another_version(tmp_path):
    run_dir = stored_run(tmp_path, no_such_flag_any_more=1, seed=7)
    assert parse("--resume_from_checkpoint", str(run_dir)).engine.seed == 7


# --debug


def test_debug_shortens_the_run_where_nothing_else_was_said():
    config = parse("--debug", "--save_steps", "2")
    assert config.tracking.debug
    assert config.optimizer.max_steps == 8
    assert config.evaluation.max_eval_samples == 16
    assert config.checkpoint.save_steps == 2


def test_debug_shortens_the_run_from_a_config_file_too(tmp_path):
    assert parse("--config", yaml_file(tmp_path, "debug: true\n")).optimizer.max_steps == 8
    assert parse("--no_debug", "--config", yaml_file(tmp_path, "debug: true\n")) == parse()


# --config and --print_config


def test_yaml_writes_numbers_and_bools_as_it_likes(tmp_path):
    text = "learning_rate: 1e-5\nadam_eps: 1.0e-7\nbatch_size: '2'\ndebug: yes\nmax_steps: null\n"
    config = parse("--config", yaml_file(tmp_path, text))
    assert config.optimizer.learning_rate == 1e-5
    assert config.optimizer.adam_eps == 1e-7
    assert config.batch.batch_size == 2
    assert config.tracking.debug is True
    assert config.optimizer.max_steps is None


def test_the_command_line_wins_over_the_file_wherever_it_stands(tmp_path):
    path = yaml_file(tmp_path, "seed: 1\nnum_epochs: 1\n")
    for argv in (["--config", path, "--seed", "2"], ["--seed", "2", f"--config={path}"]):
        config = parse(*argv)
        assert (config.engine.seed, config.optimizer.num_epochs) == (2, 1)


def test_the_later_of_two_files_wins(tmp_path):
    first = yaml_file(tmp_path, "seed: 1\nnum_epochs: 1\n", "a.yaml")
    second = yaml_file(tmp_path, "seed: 2\n", "b.yaml")
    config = parse("--config", first, "--config", second)
    assert (config.engine.seed, config.optimizer.num_epochs) == (2, 1)


def test_faults_of_a_file_name_the_file_and_the_nearest_setting(tmp_path):
    path = yaml_file(tmp_path, "lerning_rate: 1\nbatch_size: 4.5\nseed: [1]\n1: 2\n")
    faults = faults_of("--config", path)
    assert len(faults) == 4, faults
    assert all(fault.startswith(path) for fault in faults)
    assert "did you mean --learning_rate?" in faults[0]
    assert "expected int, found '4.5'" in faults[1]


@pytest.mark.parametrize("name", ["learning_rate", "adam_beta1", "batch_size", "dtype", "debug"])
def test_null_is_a_fault_for_a_setting_that_needs_a_value(tmp_path, name):
    assert name in one_fault_of("--config", yaml_file(tmp_path, f"{name}: null\n"))


@pytest.mark.parametrize("text", ["- a\n- b\n", "seed: [\n", "just words"])
def test_a_file_that_is_no_mapping_is_a_fault(tmp_path, text):
    path = yaml_file(tmp_path, text)
    assert path in one_fault_of("--config", path)


def test_a_file_that_is_not_there_is_a_fault(tmp_path):
    assert "nowhere.yaml" in one_fault_of("--config", str(tmp_path / "nowhere.yaml"))


def test_config_without_a_file_is_a_fault_that_says_so():
    assert "found none" in one_fault_of("--config")


def test_an_empty_file_sets_nothing(tmp_path):
    assert parse("--config", yaml_file(tmp_path, "# nothing\n")) == parse()


def test_what_print_config_prints_gives_the_same_settings_again(tmp_path, capsys):
    argv = ["--learning_rate", "3e-7", "--holdout", "5", "--deterministic", "--wandb_run_name", "x"]
    with pytest.raises(SystemExit) as left:
        parse(*argv, "--print_config")
    assert not left.value.code
    printed = capsys.readouterr().out
    assert list(yaml.safe_load(printed)) == list(FLAGS)
    read = parse_train_config(["--config", yaml_file(tmp_path, printed)], ())
    assert read == parse(*argv)


def test_print_config_tells_faults_like_any_other_call():
    assert "--seed" in one_fault_of("--print_config", "--seed", "-1")


def test_the_flat_settings_are_all_the_fields_once():
    assert sorted(TrainConfig().flat()) == sorted(FLAGS)


# --help


def test_the_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit) as left:
        parse_train_config(["--seed", "wrong", "--help"], ())
    assert not left.value.code
    printed = capsys.readouterr().out
    missing = [name for name in FLAGS if f"--{name} " not in printed]
    assert not missing
    words = " ".join(printed.split())
    assert "Peak learning rate, reached after the warm-up; then cosine to 0." in words


# DeepSpeed's JSON


@pytest.mark.parametrize("key", sorted(OWNED_BY_FLAGS))
def test_what_a_flag_owns_is_a_fault_in_the_deepspeed_file(tmp_path, key):
    path = yaml_file(tmp_path, f'{{"zero_optimization": {{"stage": 2}}, "{key}": 1}}', "ds.json")
    fault = one_fault_of("--ds_config", path)
    assert fault.startswith(f"{path}: {key} ")
    assert OWNED_BY_FLAGS[key] in fault


def test_the_keys_of_batch_clipping_precision_and_schedule_are_owned():
    assert set(OWNED_BY_FLAGS) >= {
        "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps",
        "gradient_clipping", "bf16", "fp16", "optimizer", "scheduler",
    }  # fmt: skip


def test_auto_is_a_fault_at_any_depth(tmp_path):
    text = '{"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "auto"}}}'
    path = yaml_file(tmp_path, text, "ds.json")
    assert "zero_optimization.offload_optimizer.device" in one_fault_of("--ds_config", path)


@pytest.mark.parametrize("content", [b"[1, 2]", b"{", b"\xff\xfe\x00", None])
def test_a_deepspeed_file_that_cannot_be_read_is_a_fault(tmp_path, content):
    path = tmp_path / "ds.json"
    if content is not None:
        path.write_bytes(content)
    assert one_fault_of("--ds_config", str(path)).startswith("--ds_config")


def test_the_deepspeed_file_is_not_read_for_another_engine(configured):
    assert ds_config_faults(configured(engine="torch", ds_config="nowhere.json")) == []


@pytest.mark.parametrize("name", ["zero0", "zero1", "zero2", "zero3"])
def test_the_files_that_come_with_the_product_can_be_named(name):
    assert parse("--ds_config", name).engine.ds_config == name
    assert load_ds_config(name)["zero_optimization"]["stage"] == int(name[-1])


@pytest.mark.parametrize(
    ("stage", "dtype", "accumulated"),
    [(2, "bfloat16", "fp32"), (2, "float32", "fp32"), (0, "float32", "fp32")],
)
def test_deepspeed_accumulates_in_float32_and_counts_one_micro_batch(stage, dtype, accumulated):
    settings = {"zero_optimization": {"stage": stage}}
    completed = complete_ds_config(settings, dtype=dtype, max_grad_norm=0.5, world_size=8)
    assert completed["data_types"] == {"grad_accum_dtype": accumulated}
    assert completed["bf16"] == {"enabled": dtype == "bfloat16"}
    assert completed["gradient_clipping"] == 0.5
    assert completed["gradient_accumulation_steps"] == 1
    assert completed["train_batch_size"] == 8 * completed["train_micro_batch_size_per_gpu"]
    assert settings == {"zero_optimization": {"stage": stage}}


# The command


def run_command(*argv, **environment):
    return subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_faults_end_the_command_with_2_and_one_message_on_standard_error():
    done = run_command(
        "-m", "sft_dist.train", "--model_path", "a/b", "--data_path", "a/b", "--engine", "torch",
        "--eval_placement", "off", "--lerning_rate", "1", "--seed", "-1",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "2 faults in the configuration" in done.stderr
    assert "did you mean --learning_rate?" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_faults_are_told_by_rank_0_alone():
    done = run_command("-m", "sft_dist.train", "--seed", "-1", RANK="1", WORLD_SIZE="2")
    assert done.returncode == 2
    assert done.stderr == ""


def test_help_and_faults_are_told_without_loading_torch():
    program = """
import sys
from sft_dist.train import main
codes = []
for argv in (["--help"], ["--print_config", "--model_path", "a/b", "--data_path", "a/b",
             "--engine", "torch", "--eval_placement", "off"], ["--seed", "-1"]):
    try:
        main(argv)
    except SystemExit as left:
        codes.append(left.code or 0)
heavy = {"torch", "transformers", "deepspeed", "vllm", "wandb", "numpy"} & set(sys.modules)
print("codes", codes, "heavy", sorted(heavy))
"""
    done = run_command("-c", program)
    assert done.stdout.splitlines()[-1] == "codes [0, 0, 2] heavy []", done.stderr
    assert "--model_path" in done.stdout


def test_a_shell_completes_the_flags(tmp_path):
    done = run_command("-m", "sft_dist.train", "--print_completion", "bash")
    assert done.returncode == 0, done.stderr
    script = tmp_path / "completion.sh"
    # What bash itself does at Tab: the words so far, and the function that was registered.
    script.write_text(
        done.stdout + "\nCOMP_WORDS=(sft-train --eval_pl) COMP_CWORD=1\n"
        "call=$(complete -p sft-train) && call=${call#*-F } && ${call%% *} sft-train --eval_pl\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    completed = subprocess.run(["bash", script], capture_output=True, text=True)
    assert completed.stdout.splitlines()[-1] == "--eval_placement", completed.stderr


def test_completion_for_an_unknown_shell_is_a_fault():
    done = run_command("-m", "sft_dist.train", "--print_completion", "dos")
    assert done.returncode == 2
    assert "--print_completion: expected one of bash, zsh, tcsh, found 'dos'" in done.stderr
