"""Command lines and YAML files -> settings, with every fault found before the first is told.

Order of precedence: defaults < `--debug` defaults < settings of the resumed run < `--config`
files < command line. jsonargparse knows the types and prints the help; it stops at the first
fault, so each value is handed to it alone.
"""

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from sft_dist.config import DEBUG_DEFAULTS, GROUPS, ScoringConfig, TrainConfig, from_flat
from sft_dist.errors import ConfigError

FLAGS: dict[str, Any] = {f.name: f.type for group in GROUPS.values() for f in fields(group)}
COMMANDS = ("config", "print_config", "print_completion", "help")
SHELLS = ("bash", "zsh", "tcsh")
NOT_FOR_EVALUATION = ("optimizer", "batch")

ELSEWHERE = {
    "lr": "learning_rate", "epochs": "num_epochs", "num_train_epochs": "num_epochs",
    "model": "model_path", "model_name_or_path": "model_path", "dataset": "data_path",
    "dataset_name": "data_path", "data": "data_path", "max_length": "max_seq_length",
    "per_device_train_batch_size": "batch_size", "bf16": "dtype",
    "gradient_checkpointing": "activation_checkpointing", "fp32": "dtype",
    "deepspeed": "ds_config", "report_to": "wandb_mode",
    "max_new_tokens": "generation_max_length", "temperature": "generation_temperature",
    "save_total_limit": "keep_last_n_checkpoints", "logging_steps": "log_steps",
    "attn_implementation": "attention", "lr_warmup_steps": "warmup_steps",
}  # fmt: skip
"""What other trainers call a setting (TRL, torchtune, LLaMA-Factory): for the hint only."""

Check = Callable[[TrainConfig], list[str]]


def parse_train_config(argv: Sequence[str], checks: Sequence[Check]) -> TrainConfig:
    """Read the command line of `sft_dist.train`.

    Args:
        argv: what stands after the program's name.
        checks: each gives the faults it finds; all of them are asked.

    Raises:
        ConfigError: with all faults of names, types and values.
        SystemExit: after `--help`, `--print_config` or `--print_completion`.
    """
    description = (
        "Fine-tune a causal LM on MATH. Under torchrun one process is one rank. Switches are "
        "written --name and --no_name."
    )
    reader = ArgumentReader("sft-train", description, GROUPS)
    given = reader.read(argv)
    config = from_flat({**_inherited(given), **given})
    reader.raise_faults(check(config) for check in checks)
    if "print_config" in reader.commands:
        print(yaml.safe_dump(config.flat(), sort_keys=False), end="")
        raise SystemExit(0)
    return config


def parse_evaluate_config(
    argv: Sequence[str], checks: Sequence[Check], *, inherited: Mapping[str, Any] | None = None
) -> tuple[TrainConfig, ScoringConfig]:
    """Read the command line of `sft_dist.evaluate`: the flags of training that matter to it.

    Args:
        argv: what stands after the program's name.
        checks: as for training; with `--regrade` and `--serve` they are not asked, as nothing is
            generated, or by the settings of a run that was checked.
        inherited: settings that hold where `argv` says nothing: those of the run to serve.
    """
    description = "Score a model or a checkpoint on MATH problems; nothing is trained."
    groups = {name: group for name, group in GROUPS.items() if name not in NOT_FOR_EVALUATION}
    reader = ArgumentReader("sft-evaluate", description, {**groups, "scoring": ScoringConfig})
    given = reader.read(argv)
    names = {f.name for f in fields(ScoringConfig)}
    scoring = ScoringConfig(**{name: given[name] for name in names & set(given)})
    # No engine is built: none need be installed.
    settings = {**(inherited or {}), **given, "engine": "torch"}
    if not settings.get("data_path"):  # not read where problems are named
        settings["data_path"] = settings.get("eval_data_path") or ""
    config = from_flat(settings)
    asked = () if scoring.regrade or scoring.serve else checks
    reader.raise_faults(check(config) for check in asked)
    return config, scoring


class ArgumentReader:
    """Reads one command's settings, and gathers the faults of their names and types."""

    def __init__(self, prog: str, description: str, groups: Mapping[str, type]) -> None:
        """One help group for each dataclass of `groups`; flags are flat."""
        import jsonargparse

        jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
        self._parser: Any = jsonargparse.ArgumentParser(
            prog=prog, exit_on_error=False, add_help=False, description=description
        )
        self._parser.add_argument("--config", help="YAML file of settings; the command line wins.")
        self._parser.add_argument(
            "--print_config", action="store_true", help="Print all settings and stop."
        )
        self._parser.add_argument(
            "--print_completion", choices=SHELLS, help="Print a completion script and stop."
        )
        for group in groups.values():
            self._parser.add_class_arguments(group, as_group=True)
        self._types: dict[str, Any] = {
            f.name: f.type for group in groups.values() for f in fields(group)
        }
        self.commands: set[str] = set()
        self.faults: list[str] = []

    def read(self, argv: Sequence[str]) -> dict[str, Any]:
        """The settings given, by name; `--help` and `--print_completion` print and leave."""
        pairs = list(self._split(argv))
        self.commands = {name for name, _ in pairs if name in COMMANDS}
        if "help" in self.commands:
            self._parser.print_help()
            sys.stdout.flush()
            raise SystemExit(0)
        given: dict[str, Any] = {}
        for name, text in pairs:
            if name == "print_completion":
                self._print_completion(text)
            elif name == "config":
                given.update(self._read_yaml(text))
        for name, text in pairs:
            if name not in COMMANDS:
                given.update(self._read_flag(name, text))
        return given

    def raise_faults(self, more: Iterator[list[str]]) -> None:
        """Raise `ConfigError` when there are any, those of `more` among them."""
        self.faults += [fault for found in more for fault in found]
        if self.faults:
            raise ConfigError(self.faults)

    def _split(self, argv: Sequence[str]) -> Iterator[tuple[str, str | None]]:
        """`--name value`, `--name=value`, bare `--name`, `--no_name` as (name, text or None)."""
        rest = list(argv)
        while rest:
            token = rest.pop(0)
            if token in ("-h", "--help"):
                yield "help", None
                continue
            if not token.startswith("--"):
                self.faults.append(
                    f"expected a flag, found {token!r}; flags are written --name value"
                )
                continue
            name, equals, text = token[2:].partition("=")
            name = name.replace("-", "_")
            if not equals and rest and not rest[0].startswith("--"):
                yield name, rest.pop(0)
            else:
                yield name, text if equals else None

    def _print_completion(self, shell: str | None) -> None:
        if shell not in SHELLS:
            expected = f"expected one of {', '.join(SHELLS)}"
            self._fault(f"--print_completion: {expected}, found {shell!r}")
            return
        import shtab

        print(shtab.complete(self._parser, shell=shell))
        raise SystemExit(0)

    def _read_flag(self, name: str, text: str | None) -> dict[str, Any]:
        negated = name.removeprefix("no_")
        if name != negated and self._types.get(negated) is bool and text is None:
            return {negated: False}
        if name not in self._types:
            return self._fault(self._unknown(f"--{name}", name))
        if text is None and self._types[name] is not bool:
            expected = self._type_name(name)
            return self._fault(f"--{name}: expected a value ({expected}), found none")
        return self._value(f"--{name}", name, "true" if text is None else text)

    def _read_yaml(self, text: str | None) -> dict[str, Any]:
        """The settings of one `--config` file."""
        if text is None:
            return self._fault("--config: expected the path of a YAML file, found none")
        try:
            loaded = yaml.safe_load(Path(text).read_text()) or {}
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            return self._fault(f"--config {text}: expected a readable YAML file, found: {error}")
        if not isinstance(loaded, dict):
            found = type(loaded).__name__
            return self._fault(f"--config {text}: expected `flag: value` lines, found a {found}")
        values: dict[str, Any] = {}
        for name, value in loaded.items():
            values.update(self._read_yaml_value(f"{text}: {name}", str(name), value))
        return values

    def _read_yaml_value(self, place: str, name: str, value: Any) -> dict[str, Any]:
        if name not in self._types:
            return self._fault(self._unknown(place, name))
        if value is None:
            if "None" in str(self._types[name]):
                return {name: None}
            return self._fault(f"{place}: expected {self._type_name(name)}, found null")
        # As text, so that YAML's reading of 1e-5 as a string and the flag's agree.
        return self._value(
            place, name, str(value).lower() if isinstance(value, bool) else str(value)
        )

    def _value(self, place: str, name: str, text: str) -> dict[str, Any]:
        if self._types[name] in (str, str | None):  # a directory called 123 or null is a name
            return {name: text}
        try:
            return {name: self._parser.parse_args([f"--{name}={text}"], defaults=False)[name]}
        except Exception as error:
            if type(error).__name__ not in ("ArgumentError", "ParserError"):
                raise
            return self._fault(f"{place}: expected {self._type_name(name)}, found {text!r}")

    def _fault(self, text: str) -> dict[str, Any]:
        self.faults.append(text)
        return {}

    def _unknown(self, place: str, name: str) -> str:
        near = [ELSEWHERE[name]] if ELSEWHERE.get(name) in self._types else []
        near += difflib.get_close_matches(name, self._types, n=1, cutoff=0.5)
        hint = f"did you mean --{near[0]}?" if near else "see --help"
        return f"{place}: there is no such setting; {hint}"

    def _type_name(self, name: str) -> str:
        kind = self._types[name]
        if hasattr(kind, "__origin__"):  # Literal
            return "one of " + ", ".join(kind.__args__)
        return getattr(kind, "__name__", str(kind)).replace(" | None", "").replace("None | ", "")


def _inherited(given: dict[str, Any]) -> dict[str, Any]:
    """What holds where the user said nothing: the resumed run's settings, `--debug`'s."""
    inherited: dict[str, Any] = {}
    resume = given.get("resume_from_checkpoint")
    run_dir = resumed_run_dir(resume, given.get("output_dir")) if resume else None
    if run_dir is not None:
        inherited = read_run_config(run_dir)
        inherited["output_dir"] = str(run_dir)
        inherited.pop("resume_from_checkpoint", None)
    if given.get("debug", inherited.get("debug")):
        inherited = {**DEBUG_DEFAULTS, **inherited}
    return inherited


def read_run_config(run_dir: Path) -> dict[str, Any]:
    """The settings stored in `run_dir/config.yaml`; empty when there are none."""
    path = run_dir / "config.yaml"
    stored = yaml.safe_load(path.read_text()) if path.is_file() else {}
    return {name: value for name, value in (stored or {}).items() if name in FLAGS}


def resumed_run_dir(resume: str, output_dir: str | None) -> Path | None:
    """The run directory that `--resume_from_checkpoint` continues, when it exists."""
    if output_dir is not None:
        run_dir = Path(output_dir)
    elif resume == "latest":
        return None
    else:
        path = Path(resume)
        run_dir = path.parent if path.name.startswith("checkpoint-") else path
    return run_dir if (run_dir / "config.yaml").is_file() else None
