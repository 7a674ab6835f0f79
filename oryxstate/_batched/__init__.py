"""Calls of layers that define `call_batched`, which sees all examples of the `vmap`s around.

`_primitive` gathers the examples of every `vmap` around a call, and knows nothing of modules.
`_call_batched` calls a layer through it, and registers itself in the hook of `_module`.
"""

from oryxstate._batched import _call_batched  # noqa: F401  (importing registers it)
