"""What test_one_curve.py trains, by number of ranks. `curve_worker.py` explains the keys.

Examples have up to 60 tokens, so 60, 120 and 240 tokens are micro-batches of 1, 2 and 4 of them
(with real ones: 1,024, 2,048 and 4,096).
"""

STEPS = 20
HALF = 10
FEW = 4

ENGINES = {
    "torch": {"engine": "torch"},
    **{f"zero{stage}": {"engine": "deepspeed", "stage": stage} for stage in range(4)},
    "zero2 offloaded": {"engine": "deepspeed", "stage": "2_offload_optimizer"},
    "zero3 offloaded": {"engine": "deepspeed", "stage": "3_offload_optimizer"},
    "fsdp": {"engine": "fsdp"},
    "fsdp sparing memory": {"engine": "fsdp", "whole_in_step": False},
}


def recipe(engine, max_tokens=60, **more):
    return {**ENGINES[engine], "max_tokens": max_tokens, "steps": STEPS, **more}


RECOMPUTING = {"activation_checkpointing": True}
PADDED = {"packing": False}
# Weights of 0.2 make softmaxes so sharp that bf16 rounding alone moves the norms by 2 % (torch on
# one rank against itself with another budget); with 0.05 it is 0.5 %, and a fault can be seen.
BF16 = {"dtype": "bfloat16", "initializer_range": 0.05}

REFERENCE = recipe("torch", 240)
SAME_CURVE = {
    1: {name: recipe(name) for name in ("zero2", "fsdp", "fsdp sparing memory")},
    2: {
        **{name: recipe(name) for name in ENGINES},
        **{f"{name} {n}": recipe(name, n) for name in ("zero2", "fsdp") for n in (120, 240)},
        **{f"{name} recomputing": recipe(name, **RECOMPUTING) for name in ("zero2", "fsdp")},
        "fsdp sparing memory, recomputing": recipe("fsdp sparing memory", 120, **RECOMPUTING),
        **{f"{name} padded": recipe(name, 120, **PADDED) for name in ("torch", "zero2", "fsdp")},
    },
    3: {
        **{name: recipe(name) for name in ("torch", "fsdp")},
        **{f"{name} 240": recipe(name, 240) for name in ("zero2", "zero3")},
        "fsdp sparing memory 120": recipe("fsdp sparing memory", 120),
    },
}
"""By number of ranks: the curve of `REFERENCE`."""

BF16_REFERENCE = recipe("torch", 240, **BF16)
BF16_CURVE = {
    1: {name: recipe(name, **BF16) for name in ("torch", "fsdp")},
    2: {
        **{name: recipe(name, **BF16) for name in ("torch", "zero2", "zero3", "fsdp")},
        "fsdp recomputing": recipe("fsdp", **BF16, **RECOMPUTING),
        "fsdp sparing memory": recipe("fsdp sparing memory", **BF16),
    },
    3: {name: recipe(name, **BF16) for name in ("torch", "zero2", "fsdp")},
}
"""By number of ranks: the curve of `BF16_REFERENCE`, all with the same micro-batches."""

MUTANTS = {
    f"{engine}: {fault}": recipe(engine, mutant=fault)
    for engine in ("zero2", "fsdp")
    for fault in ("scale doubled", "mean per micro-batch", "rank dropped")
}

HALVES = {name: recipe(name, steps=HALF, save=name) for name in ("zero2", "fsdp")}
"""On two ranks, up to a checkpoint."""
RESUMED = {
    1: {("torch", "zero2"), ("fsdp", "fsdp")},
    2: {
        *((name, "zero2") for name in ("torch", "zero0", "zero1", "zero2", "zero3", "fsdp")),
        *((name, "fsdp") for name in ("torch", "zero2", "zero3", "fsdp")),
    },
    3: {("fsdp", "fsdp"), ("fsdp", "zero2")},
}
"""By number of ranks: (engine that goes on, engine that saved)."""

NORMALIZED = {
    form: {
        name: recipe(name, 120, steps=FEW, normalization={"form": form, "constant": 7.0})
        for name in ("torch", "zero2", "fsdp")
    }
    for form in ("tokens", "sequences", "constant")
}
"""On two ranks, by form of the loss."""


def resumed(ranks):
    return {
        f"{name} after {saver}": recipe(name, 120, first=HALF, load=saver)
        for name, saver in sorted(RESUMED[ranks])
    }


def on(ranks):
    """Everything that so many ranks train, in an order that saves before it loads."""
    groups = {"": SAME_CURVE[ranks], "bf16 ": BF16_CURVE[ranks], "resumed ": resumed(ranks)}
    if ranks == 1:
        groups["reference "] = {"fp32": REFERENCE, "bf16": BF16_REFERENCE} | {
            form: {**recipes["torch"], "max_tokens": 240} for form, recipes in NORMALIZED.items()
        }
    if ranks == 2:
        groups = {"half ": HALVES, "mutant ": MUTANTS, **groups}
        groups |= {f"{form} ": recipes for form, recipes in NORMALIZED.items()}
    return {f"{group}{name}": r for group, recipes in groups.items() for name, r in recipes.items()}


LITERAL = (1024, 2048, 4096)
LITERAL_ENGINES = ("torch", "zero0", "zero1", "zero2", "zero3", "fsdp")


def literal_budgets(ranks):
    """Examples of up to 1,024 tokens at the budgets themselves: every engine, packed and padded."""
    layouts = {"packed": {}, "padded": PADDED}
    kinds = {"fp32": {}, "bf16": BF16}
    return {
        f"{kind} {engine} {budget} {layout}": recipe(
            engine, budget, longest=1024, **layouts[layout], **kinds[kind]
        )
        for kind in kinds
        for engine in LITERAL_ENGINES
        for budget in LITERAL
        for layout in layouts
    }
