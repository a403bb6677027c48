"""Two bits: an ONNX file with weights of 2 bits in, the same weights in 4 out, for those who know no less."""

from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto, helper, numpy_helper

_WIDER: Final = {TensorProto.INT2: TensorProto.INT4, TensorProto.UINT2: TensorProto.UINT4}


def widen_two_bits(path: Path) -> None:
    """Rewrite a file whose initializers are INT2 or UINT2 with INT4 or UINT4; any other stays as it is."""
    model = onnx.load(path)
    narrow = [tensor for tensor in model.graph.initializer if tensor.data_type in _WIDER]
    for tensor in narrow:
        values = numpy_helper.to_array(tensor).flatten().tolist()
        tensor.CopyFrom(helper.make_tensor(tensor.name, _WIDER[tensor.data_type], tensor.dims, values))
    if narrow:
        onnx.save(model, path)
