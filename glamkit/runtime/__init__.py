"""The machine a run computes on: which device, in which precision, compiled and recorded or not, seeded how.

Nothing outside this package names a kind of device.
"""

from glamkit.runtime.machine import (
    LONG,
    Machine,
    any_shapes,
    available,
    memory_kept,
    missing_compiler,
    only_gpu,
    own_cores,
    resolve_device,
    send,
    visible_gpus,
)
from glamkit.runtime.randomness import ALONE, random_state, seed_everything, set_random_state, undisturbed
