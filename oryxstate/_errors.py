"""What can go wrong that has no built-in exception?"""


class EffectError(RuntimeError):
    """A state update that JAX could lose, double or give no meaning to.

    Raised instead of ever returning a wrong state. The text says what happened, where (the path of
    the module in the root call, the field, the JAX primitive) and what to do about it.
    """
