"""Command line and YAML files -> `TrainConfig`, with every fault found before the first is told.

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

from sft_dist.config import DEBUG_DEFAULTS, GROUPS, TrainConfig, from_flat
from sft_dist.errors import ConfigError

FLAGS: dict[str, Any] = {f.name: f.type for group in GROUPS.values() for f in fields(group)}
EVALUATE_GROUPS = ("model", "data", "evaluation", "checkpoint", "tracking", "engine")
COMMANDS = ("config", "print_config", "help")

Check = Callable[[TrainConfig], list[str]]


def parse_train_config(argv: Sequence[str], checks: Sequence[Check]) -> TrainConfig:
    """Read the command line of `sft_dist.train`.

    Args:
        argv: what stands after the program's name.
        checks: each gives the faults it finds; all of them are asked.

    Raises:
        ConfigError: with all faults of names, types and values.
        SystemExit: after `--help` or `--print_config`.
    """
    description = "Fine-tune a causal LM on MATH. Under torchrun one process is one rank."
    parser = make_parser("sft-train", description, GROUPS)
    faults: list[str] = []
    given, commands = read_arguments(argv, parser, faults)
    config = from_flat({**_inherited(given), **given})
    faults += [fault for check in checks for fault in check(config)]
    if faults:
        raise ConfigError(faults)
    if "print_config" in commands:
        print(yaml.safe_dump(config.flat(), sort_keys=False), end="")
        raise SystemExit(0)
    return config


def parse_evaluate_config(argv: Sequence[str], checks: Sequence[Check]) -> TrainConfig:
    """Read the command line of `sft_dist.evaluate`: the flags of training that matter to it."""
    description = "Score a model or a checkpoint on MATH problems; nothing is trained."
    groups = {name: GROUPS[name] for name in EVALUATE_GROUPS}
    faults: list[str] = []
    given, _ = read_arguments(argv, make_parser("sft-evaluate", description, groups), faults)
    config = from_flat({**given, "engine": "torch"})  # no engine is built: none need be installed
    faults += [fault for check in checks for fault in check(config)]
    if faults:
        raise ConfigError(faults)
    return config


def read_arguments(
    argv: Sequence[str], parser: Any, faults: list[str]
) -> tuple[dict[str, Any], set[str]]:
    """(settings given, commands given); faults of names and types are added to `faults`."""
    pairs = list(_split_flags(argv, faults))
    commands = {name for name, _ in pairs if name in COMMANDS}
    if "help" in commands:
        parser.print_help()
        sys.stdout.flush()
        raise SystemExit(0)
    given: dict[str, Any] = {}
    for name, text in pairs:
        if name == "config" and text is None:
            faults.append("--config: expected the path of a YAML file, found none")
        elif name == "config":
            given.update(_read_yaml(Path(str(text)), parser, faults))
    given.update(_parse_text([p for p in pairs if p[0] not in COMMANDS], parser, faults))
    return given, commands


def make_parser(prog: str, description: str, groups: Mapping[str, type]) -> Any:
    """A jsonargparse parser: flat flags, one help group a dataclass."""
    import jsonargparse

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(
        prog=prog, exit_on_error=False, add_help=False, description=description
    )
    parser.add_argument("--config", help="YAML file of settings; the command line wins.")
    parser.add_argument("--print_config", action="store_true", help="Print all settings and stop.")
    for group in groups.values():
        parser.add_class_arguments(group, as_group=True)
    return parser


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


def _split_flags(argv: Sequence[str], faults: list[str]) -> Iterator[tuple[str, str | None]]:
    """`--name value`, `--name=value`, bare `--name` and `--no_name` as (name, text or None)."""
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        if token in ("-h", "--help"):
            yield "help", None
            continue
        if not token.startswith("--"):
            faults.append(f"expected a flag, found {token!r}; flags are written --name value")
            continue
        name, equals, text = token[2:].partition("=")
        name = name.replace("-", "_")
        if not equals and rest and not rest[0].startswith("--"):
            yield name, rest.pop(0)
        else:
            yield name, text if equals else None


def _parse_text(
    pairs: Sequence[tuple[str, str | None]], parser: Any, faults: list[str]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in pairs:
        negated = name.removeprefix("no_") if name.startswith("no_") else None
        if negated in FLAGS and FLAGS[negated] is bool and text is None:
            values[negated] = False
        elif name not in FLAGS:
            faults.append(_unknown(f"--{name}", name))
        elif text is None and FLAGS[name] is not bool:
            faults.append(f"--{name}: expected a value ({_type_name(name)}), found none")
        else:
            _check_value(
                f"--{name}", name, "true" if text is None else text, parser, values, faults
            )
    return values


def _read_yaml(path: Path, parser: Any, faults: list[str]) -> dict[str, Any]:
    """The settings of one `--config` file."""
    try:
        loaded = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        faults.append(f"--config {path}: expected a readable YAML file, found: {error}")
        return {}
    if not isinstance(loaded, dict):
        faults.append(f"--config {path}: expected `flag: value` lines, found {type(loaded)}")
        return {}
    values: dict[str, Any] = {}
    for name, value in loaded.items():
        if name not in FLAGS:
            faults.append(_unknown(f"{path}: {name}", str(name)))
        elif value is None:
            if "None" in str(FLAGS[name]):
                values[name] = None
            else:
                faults.append(f"{path}: {name}: expected {_type_name(name)}, found null")
        else:
            # As text, so that YAML's reading of 1e-5 as a string and the flag's agree.
            text = str(value).lower() if isinstance(value, bool) else str(value)
            _check_value(f"{path}: {name}", name, text, parser, values, faults)
    return values


def _check_value(
    place: str, name: str, text: str, parser: Any, values: dict[str, Any], faults: list[str]
) -> None:
    if FLAGS[name] in (str, str | None):  # a directory called 123 or null is still a name
        values[name] = text
        return
    try:
        values[name] = parser.parse_args([f"--{name}={text}"], defaults=False)[name]
    except Exception as error:
        if type(error).__name__ not in ("ArgumentError", "ParserError"):
            raise
        faults.append(f"{place}: expected {_type_name(name)}, found {text!r}")


def _unknown(place: str, name: str) -> str:
    near = difflib.get_close_matches(name, FLAGS, n=1, cutoff=0.5)
    hint = f"did you mean --{near[0]}?" if near else "see --help"
    return f"{place}: there is no such setting; {hint}"


def _type_name(name: str) -> str:
    kind = FLAGS[name]
    if hasattr(kind, "__origin__"):  # Literal
        return "one of " + ", ".join(kind.__args__)
    return getattr(kind, "__name__", str(kind)).replace(" | None", "").replace("None | ", "")
