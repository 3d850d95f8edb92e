"""Operations: tensors in, tensors out.

`functional` has the method's pure functions, `scan` the state space's sums for CPUs and GPUs. `norms`, `image_conv` and
`imagination` are what GPUs do faster by kernels of their own, in `ops.triton`, which this package alone imports;
`tests/ops/plain_bodies.py` has what they compute in torch's own operations. Nothing here knows a model or a config.
"""
