"""Two bits: an ONNX file with weights of 2 bits in, the same weights in 4 out, for those who know no less."""

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_WIDER: Final = {TensorProto.INT2: TensorProto.INT4, TensorProto.UINT2: TensorProto.UINT4}


def widen_two_bits(path: Path) -> None:
    """Rewrite a file whose initializers are INT2 or UINT2 with INT4 or UINT4; any other stays as it is."""
    model = onnx.load(path)
    narrow = [tensor for tensor in model.graph.initializer if tensor.data_type in _WIDER]
    for tensor in narrow:
        values = numpy_helper.to_array(tensor).astype(np.int8)
        kind = helper.tensor_dtype_to_np_dtype(_WIDER[tensor.data_type])
        tensor.CopyFrom(numpy_helper.from_array(values.astype(kind), tensor.name))
    if narrow:
        onnx.save(model, path)
