"""Panics of Rust code, as its Python binding raises them: they are no Exception, and their class has no module."""


def is_panic(error: BaseException) -> bool:
    """Whether the error is a panic, which leaves the matcher that was called useless and everything else sound."""
    return type(error).__name__ == "PanicException"
