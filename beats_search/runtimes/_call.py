"""Call: the settings that every runtime has in, a refusal of those that nobody could time out."""


def check_call(*, threads: int, batch_size: int) -> None:
    """Raise ValueError for a call by no thread, or of no input."""
    if threads < 1:
        raise ValueError(f"threads needs to be at least 1, got {threads}")
    if batch_size < 1:
        raise ValueError(f"batch_size needs to be at least 1, got {batch_size}")
