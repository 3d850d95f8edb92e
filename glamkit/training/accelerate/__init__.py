"""Faster classes with the models' formulas, put in place of the plain ones by one table of rules.

`rules` has the table and puts it in; the other modules are the faster classes, each a subclass of the plain one that it
replaces. Weights are shared and keep their names; results are those of the plain models, up to rounding.
"""

from glamkit.training.accelerate.rules import RULES, Rule, accelerate, left_out, plainly
from glamkit.training.accelerate.scans import available_kernels, select_kernel

__all__ = ["RULES", "Rule", "accelerate", "available_kernels", "left_out", "plainly", "select_kernel"]
