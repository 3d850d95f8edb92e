"""How fast this machine trains, whether it computes what the released model does, and what it lacks.

`plain` is the reference that every fast path is timed against and tested equal to.
"""
