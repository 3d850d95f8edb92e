"""Array types that carry a shape: ``Float[Tensor, "B T D"]``, letters as in the glossary of `world_model`.

The tests check them at every call (jaxtyping and beartype, see tests/conftest.py); everywhere else they are only read.
A single axis is written ``" B"`` with a space, so that linters do not take it for the name of a type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Annotated as Bool
    from typing import Annotated as Float
    from typing import Annotated as Int
    from typing import Annotated as Shaped
    from typing import Annotated as UInt8
else:
    try:
        from jaxtyping import Bool, Float, Int, Shaped, UInt8
    except ImportError:  # only the tests need it
        from typing import Annotated

        Bool = Float = Int = Shaped = UInt8 = Annotated

__all__ = ["Bool", "Float", "Int", "Shaped", "UInt8"]
