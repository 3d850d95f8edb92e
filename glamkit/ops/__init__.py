"""Operations: tensors in, tensors out. Nothing here knows a model or a config.

`functional` has the method's pure functions, `scan` the state space's sums. The others are for GPUs, by `ops.triton`,
which this package alone imports; `tests/ops/plain_bodies.py` has the same in torch's own operations.
"""
