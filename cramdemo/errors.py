"""Every exception a user of cramdemo may see. Each message says what, found versus wanted, and what to do next.

CramError
|- TextError         the text cannot be crammed as given: empty, too long, not UTF-8, changed by the tokenizer
|- ConfigError       a setting is out of its range
|- ModelError        a model cannot be found, loaded or run
|- ModelMismatch     the vectors were made for another model or tokenizer
`- VectorFileError   a vector file is damaged, not one of ours, or newer than this program
"""


class CramError(Exception):
    """Base of all errors meant for users' eyes: one or two plain sentences, no paths of the server."""


class TextError(CramError):
    """The text cannot be crammed as given."""


class ConfigError(CramError):
    """A setting is out of its range."""


class ModelError(CramError):
    """A model cannot be found, loaded or run."""


class ModelMismatch(CramError):  # noqa: N818 (the name stands in the design and reads well)
    """The vectors were made for another model or tokenizer."""


class VectorFileError(CramError):
    """A vector file is damaged, not one of ours, or newer than this program."""


def plural(count: int, noun: str) -> str:
    """ "1 token", "2 tokens", "1,000 tokens"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
