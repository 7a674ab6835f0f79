"""An unsupported JAX gives one clear error at import."""

import types

import jax
import pytest

from oryxstate import _jax


@pytest.mark.parametrize("version", [(0, 10, 0), (0, 12, 9), jax.__version_info__])
def test_supported(version):
    assert _jax.check_version(version) is None


@pytest.mark.parametrize("version", [(0, 9, 2), (0, 13, 0), (1, 0, 0)])
def test_unsupported(version):
    with pytest.raises(ImportError) as error:
        _jax.check_version(version)
    found = ".".join(map(str, version))
    assert str(error.value) == (
        f"oryxstate works with JAX 0.10 to 0.12, but JAX {found} is installed. "
        "Run `pip install 'jax>=0.10,<0.13'`."
    )


def test_the_unfinished_scan_is_refused():
    assert _jax.check_flags(jax.config) is None
    with pytest.raises(ImportError, match=r"does not work with JAX_SCAN3=1.*'jax_scan3', False"):
        _jax.check_flags(types.SimpleNamespace(jax_scan3=True))
