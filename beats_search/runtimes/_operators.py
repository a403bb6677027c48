"""Operators: torch's table of what each of its operators is in ONNX, made once per process and not for each graph."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from torch.onnx._internal.exporter._registration import ONNXRegistry

_MAKER: Final = "from_torchlib"
_ONE_AT_A_TIME: Final = threading.RLock()


@contextmanager
def one_table() -> Iterator[None]:
    """Let the exporter take the table of an earlier graph, within; making one takes 0.4 s, more than half of an export.

    Nothing of ours adds an operator to it. An exporter that makes its table another way makes its own.
    """
    with _ONE_AT_A_TIME:
        own = vars(ONNXRegistry).get(_MAKER)
        if own is None:
            yield
            return
        setattr(ONNXRegistry, _MAKER, _made_once(own))
        try:
            yield
        finally:
            setattr(ONNXRegistry, _MAKER, own)


@cache
def _made_once(own: "classmethod[ONNXRegistry, ..., ONNXRegistry]") -> "staticmethod[..., ONNXRegistry]":
    made: Callable[..., Any] = own.__get__(None, ONNXRegistry)
    return staticmethod(cache(made))
