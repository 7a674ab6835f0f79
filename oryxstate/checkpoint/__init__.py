"""oryxstate.checkpoint: pytrees on the disk, by path; whole, durable, and of a frozen format."""

from oryxstate.checkpoint._checkpoints import Checkpoints
from oryxstate.checkpoint._one import restore, save

__all__ = ["Checkpoints", "restore", "save"]
