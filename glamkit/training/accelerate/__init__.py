"""Faster classes with the models' formulas, put in place of the plain ones by one table of rules.

`rules` has the table and puts it in; the other modules are the faster classes, each a subclass of the plain one that it
replaces. Weights are shared and keep their names; results are those of the plain models, up to rounding.
"""

from glamkit.training.accelerate.rules import RULES, accelerate, left_out, plainly

__all__ = ["RULES", "accelerate", "left_out", "plainly"]
