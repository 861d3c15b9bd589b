"""Which CPUs multiply bfloat16 themselves. The others convert on the way, several times slower."""


def emulates_bfloat16() -> bool:
    """Whether bfloat16 products run here by conversion: an x86 CPU without instructions for them.

    Measured on such a CPU (AVX-512, two cores, matrices of 4864 x 896 and 64 to 512 rows): 60
    GFLOP/s in bfloat16, 200 to 260 in float32. False where there is a GPU.
    """
    import torch

    if torch.cuda.is_available():
        return False
    found = torch.cpu.get_capabilities()
    return found.get("architecture") == "x86_64" and not any(
        found.get(name) for name in ("avx512_bf16", "amx_bf16", "avx10_2")
    )


def slow_dtype_advice(dtype: str) -> str | None:
    """What to tell who trains in `dtype` on this machine; None where it is as good as another."""
    if faster_dtype(dtype) == dtype:
        return None
    return (
        f"{dtype} is slow on this CPU, which has no instructions for it; --dtype float32 is faster "
        "here, and takes twice the memory for weights"
    )


def faster_dtype(dtype: str) -> str:
    """The type to compute in without gradients: float32 for bfloat16 where that is slow.

    Args:
        dtype: that of the weights, as torch calls it. Every bfloat16 value is one of float32 too,
            so the weights stay what they are; activations are rounded less.
    """
    return "float32" if dtype == "bfloat16" and emulates_bfloat16() else dtype
