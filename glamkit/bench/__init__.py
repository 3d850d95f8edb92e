"""How fast this machine trains, whether it computes what the released model does, and what it lacks.

`objects` asks whether a model sees a small object that the game's memory knows.
`plain` is the reference that every fast path is timed against and tested equal to.
"""
