"""Triton kernels for CUDA GPUs, imported by `glamkit.ops` when they are first used."""
