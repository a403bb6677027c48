"""Fingerprints: a model in, a digest of its modules, their settings, and every tensor to the bit out."""

import hashlib

import torch
from torch import nn

from beats_search.training.checkpoint import tensors_of


def fingerprint(model: nn.Module) -> str:
    """Return 32 hex digits that differ where models do, as far as they print what they are and hold tensors."""
    found = hashlib.sha256(repr(model).encode())
    for name, tensor in tensors_of(model).items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:32]
