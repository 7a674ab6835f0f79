"""Exceptions of the library, where no built-in one fits."""

from __future__ import annotations

from typing import Any


class EffectError(RuntimeError):
    """A state update that JAX could lose, double or give no meaning to.

    Raised instead of ever returning a wrong state. The text says what happened, where (the path of
    the module in the root call, the field, the JAX primitive) and what to do about it.
    """


class AnnotationError(TypeError):
    """A value that does not fit its annotation, while `oryxstate.check_annotations` is on.

    The text says which argument or field, of which module and where in the model, what it is
    annotated as, what it was given, and the sizes of the dimensions that are known so far.
    """


class CheckpointError(RuntimeError):
    """A checkpoint that was not written, or that cannot be read as it is.

    The text says which folder and step, what is wrong with it, and what to do. What was saved
    before is as it was.
    """


class MismatchError(ValueError):
    """Saved arrays that do not fit the model that they are to be loaded into.

    The text lists every path that is missing, left over, or of another shape or dtype. Nothing has
    been loaded.
    """


class InputError(ValueError):
    """An input that a layer does not take.

    Args:
        layer: the class of the layer.
        expected: what it takes.
        got: the specs of what it was given.
        path: where the layer stands in the model, empty for the model itself.

    Examples:
        >>> from oryxstate import ArraySpec
        >>> from oryxstate._errors import InputError
        >>> print(InputError("Dense", "[..., 3]", ArraySpec((2, 4))).inside("layers[0]"))
        Dense at 'layers[0]' takes [..., 3], but got float32[2,4].
    """

    def __init__(self, layer: str, expected: str, got: Any, path: str = ""):
        self.parts: tuple[str, str, Any, str] = (layer, expected, got, path)
        where = f" at '{path}'" if path else ""
        super().__init__(f"{layer}{where} takes {expected}, but got {got}.")

    def inside(self, path: str) -> InputError:
        """The same error, of a layer that stands deeper in a model."""
        layer, expected, got, inner = self.parts
        return InputError(layer, expected, got, f"{path}.{inner}" if inner else path)
