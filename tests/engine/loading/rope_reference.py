"""Prints the RoPE tables that config_rope_test.cc expects: python3 tests/engine/loading/rope_reference.py

Written from the formulas of transformers' modeling_rope_utils (the `factor` key scales yarn).
"""
import math


def default(theta, dim):
    return [1.0 / theta ** (i / dim) for i in range(0, dim, 2)]


def llama3(theta, dim, factor, low, high, old):
    out = []
    for inv in default(theta, dim):
        wavelength = 2 * math.pi / inv
        if wavelength < old / high:
            out.append(inv)
        elif wavelength > old / low:
            out.append(inv / factor)
        else:
            smooth = (old / wavelength - low) / (high - low)
            out.append((1 - smooth) * inv / factor + smooth * inv)
    return out


def yarn(theta, dim, factor, old, fast=32, slow=1, truncate=True):
    def dim_of(rotations):
        return dim * math.log(old / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dim_of(fast), dim_of(slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    out = []
    for i, position in enumerate(theta ** (j / dim) for j in range(0, dim, 2)):
        extrapolate = 1 - min(max((i - low) / (high - low), 0), 1)
        out.append(1 / (factor * position) * (1 - extrapolate) + 1 / position * extrapolate)
    return out


for name, values in {
    "default": default(1e6, 16),
    "linear": [v / 4 for v in default(10000.0, 16)],
    "llama3": llama3(500000.0, 16, 8.0, 1.0, 4.0, 32),
    "llama3 128": llama3(500000.0, 128, 8.0, 1.0, 4.0, 8192)[28:36],
    "yarn": yarn(10000.0, 16, 4.0, 64),
    "yarn 128": yarn(1e6, 128, 4.0, 32768)[24:40],
    "yarn betas, not truncated": yarn(10000.0, 16, 2.5, 4096, 16, 2, False),
}.items():
    print(name, "{" + ", ".join(f"{v:.17g}" for v in values) + "}")
print("attention factors", 0.1 * math.log(4.0) + 1, (0.1 * 0.7 * math.log(4) + 1) / (0.1 * 0.9 * math.log(4) + 1))
