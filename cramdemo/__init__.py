"""See, measure and play with text crammed into the input vectors of a frozen language model.

from cramdemo import CramConfig, cram, decode, load, load_model, run_cram, save
"""

__version__ = "0.1.0"

from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, Progress, cram, run_cram
from cramdemo.decode import Decoded, Verification, decode, decode_tokens, verify
from cramdemo.errors import ConfigError, CramError, ModelError, ModelMismatch, TextError, VectorFileError
from cramdemo.models import FrozenLM, load_model
from cramdemo.vectors import MemVectors, load, save

__all__ = [
    "ConfigError",
    "CramConfig",
    "CramError",
    "CramResult",
    "Decoded",
    "FrozenLM",
    "MemVectors",
    "ModelError",
    "ModelMismatch",
    "Progress",
    "TextError",
    "VectorFileError",
    "Verification",
    "__version__",
    "cram",
    "decode",
    "decode_tokens",
    "load",
    "load_model",
    "run_cram",
    "save",
    "verify",
]
