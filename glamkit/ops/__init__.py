"""Operations: tensors in, tensors out. Each is the plain formula and, behind the same function, a fast one.

`functional` has the method's pure functions, `scan` the state space's sums; the others are layers' arithmetic as it is
fast on CPUs and GPUs. `ops.triton` holds GPU kernels and is imported by this package alone. Nothing here knows a model,
a config or a file.
"""
