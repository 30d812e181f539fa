"""Rotary embeddings as a GGUF file describes them: transformers' reader takes over no more than their base."""

import math
from pathlib import Path

from storage.errors import ModelUnsupported
from workers.model.gguf.header import GgufHeader, read_floats

_FREQUENCIES = "rope_freqs.weight"
_DEFAULT_BASE = 10000.0
# Of Llama 3.1 and every later one; a file holds the factors that follow from them, not these numbers.
_LLAMA3_ORIGINAL_LENGTH = 8192
_LOW_FREQUENCY_FACTOR = 1.0
_HIGH_FREQUENCY_FACTOR = 4.0
_TOLERANCE = 1e-3


def rope_parameters_of(path: Path, header: GgufHeader, rotary_dim: int) -> dict[str, object]:
    """The rotary parameters in transformers' words.

    rotary_dim: numbers of a head that are rotated

    Raises ModelUnsupported for a scaling that is not known.
    """
    base = float(_number(header, "rope.freq_base") or _DEFAULT_BASE)
    if _FREQUENCIES in header.tensors:
        factors = read_floats(path, header, _FREQUENCIES)
        return {"rope_theta": base, **_llama3(path, factors, base, rotary_dim)}
    return {"rope_theta": base, **_scaling(path, header)}


def _scaling(path: Path, header: GgufHeader) -> dict[str, object]:
    kind = header.text(f"{header.architecture}.rope.scaling.type") or "none"
    factor = _number(header, "rope.scaling.factor")
    original = _number(header, "rope.scaling.original_context_length")
    if kind == "none" or (kind == "linear" and factor in (None, 0, 1)):
        return {"rope_type": "default"}
    if kind == "linear" and factor is not None:
        return {"rope_type": "linear", "factor": float(factor)}
    if kind == "yarn" and factor is not None and original is not None:
        optional = {
            "attention_factor": _yarn_attention_factor(header, float(factor)),
            "beta_fast": _number(header, "rope.scaling.yarn_beta_fast"),
            "beta_slow": _number(header, "rope.scaling.yarn_beta_slow"),
        }
        return {
            "rope_type": "yarn",
            "factor": float(factor),
            "original_max_position_embeddings": int(original),
            **{name: float(value) for name, value in optional.items() if value is not None},
        }
    if kind == "longrope" and original is not None and "rope_factors_short.weight" in header.tensors:
        return _longrope(path, header, int(original))
    raise ModelUnsupported(f"{path} scales its rotary embeddings in a way that is not known: {kind}, factor {factor}")


def _yarn_attention_factor(header: GgufHeader, factor: float) -> float | None:
    """llama.cpp multiplies its own factor with the usual one; transformers takes their product."""
    own = _number(header, "rope.scaling.yarn_attn_factor") or _number(header, "rope.scaling.attn_factor")
    return None if own is None else float(own) * (0.1 * math.log(factor) + 1.0)


def _longrope(path: Path, header: GgufHeader, original: int) -> dict[str, object]:
    found: dict[str, object] = {
        "rope_type": "longrope",
        "original_max_position_embeddings": original,
        "short_factor": read_floats(path, header, "rope_factors_short.weight"),
        "long_factor": read_floats(path, header, "rope_factors_long.weight"),
    }
    attention_factor = _number(header, "rope.scaling.attn_factor")
    return found if attention_factor is None else found | {"attention_factor": float(attention_factor)}


def _llama3(path: Path, factors: list[float], base: float, rotary_dim: int) -> dict[str, object]:
    """Llama 3's scaling, found again from the factor by which the file divides each frequency."""
    found = {
        "rope_type": "llama3",
        "factor": round(max(factors), 4),
        "low_freq_factor": _LOW_FREQUENCY_FACTOR,
        "high_freq_factor": _HIGH_FREQUENCY_FACTOR,
        "original_max_position_embeddings": _LLAMA3_ORIGINAL_LENGTH,
    }
    expected = [_llama3_factor(base ** (2 * place / rotary_dim), max(factors)) for place in range(len(factors))]
    is_known = len(factors) == rotary_dim // 2 and all(
        math.isclose(given, wanted, rel_tol=_TOLERANCE) for given, wanted in zip(factors, expected, strict=True)
    )
    if not is_known:
        raise ModelUnsupported(f"{path} scales its rotary frequencies ({_FREQUENCIES}) by a rule that is not known")
    return found


def _llama3_factor(positions_per_radian: float, factor: float) -> float:
    """By what a frequency is divided.

    Source: `_compute_llama3_parameters` of transformers
    """
    wavelength = 2 * math.pi * positions_per_radian
    if wavelength < _LLAMA3_ORIGINAL_LENGTH / _HIGH_FREQUENCY_FACTOR:
        return 1.0
    if wavelength > _LLAMA3_ORIGINAL_LENGTH / _LOW_FREQUENCY_FACTOR:
        return factor
    smooth = (_LLAMA3_ORIGINAL_LENGTH / wavelength - _LOW_FREQUENCY_FACTOR) / (
        _HIGH_FREQUENCY_FACTOR - _LOW_FREQUENCY_FACTOR
    )
    return 1.0 / ((1.0 - smooth) / factor + smooth)


def _number(header: GgufHeader, key: str) -> float | None:
    value = header.of_architecture(key)
    return value if isinstance(value, int | float) else None
