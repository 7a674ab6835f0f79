"""Rules for whole batches: `call_batched` of a layer that is called on one example in a `vmap`.

`_primitive` gathers the examples of every `vmap` around a call, and knows nothing of modules.
`_call_batched` calls a layer through it, and registers itself in the hook of `_module`.
"""

from oryxstate._batched import _call_batched  # noqa: F401  (importing registers it)
