"""Checks of a machine and of a model: speed, parity with the released model, installation, small objects.

`benchmark` times training, `parity` compares outputs with the released model's, `doctor` checks the installation.
`objects` measures how often a world model shows a small object where it is.
"""
