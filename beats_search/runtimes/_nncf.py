"""NNCF: a float ONNX file and inputs in, OpenVINO's own int8 model of it out: what ours is compared with."""

import logging
import os
from pathlib import Path

import openvino
import torch
from torch import Tensor


def quantize_with_nncf(model: Path, inputs: Tensor, out: Path) -> None:
    """Write the OpenVINO model (`out` ends in .xml) that NNCF makes of a float file after training.

    `inputs` (n, …) are float as the user has them; all of them set the ranges. `OpenVino().load(out)` runs it.
    """
    os.environ.setdefault("NNCF_CI", "1")  # NNCF tells its makers of each call otherwise
    import nncf  # noqa: PLC0415 - reads the environment when it is imported

    nncf.set_log_level(logging.ERROR)
    samples = nncf.Dataset([sample.numpy() for sample in torch.split(inputs, 1)])
    quantized = nncf.quantize(openvino.Core().read_model(model), samples, subset_size=len(inputs))
    openvino.save_model(quantized, out, compress_to_fp16=False)
