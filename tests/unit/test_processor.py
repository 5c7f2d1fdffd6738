"""The type that a CPU computes in."""

import pytest

from specs.processor import cpu_dtype


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ("DEFAULT", "float32"),
        ("AVX2", "float32"),
        ("AVX512", "bfloat16"),
        ("SVE256", "bfloat16"),
    ],
)
def test_a_cpu_without_16_bit_instructions_computes_in_32(capability: str, dtype: str) -> None:
    assert cpu_dtype(capability) == dtype
