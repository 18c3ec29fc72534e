"""What every section of params.yaml has in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Strict, for else pydantic would take true for 1 and "4" for 4.
Fraction = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]
Positive = Annotated[int, Field(strict=True, ge=1)]
Rate = Annotated[float, Field(strict=True, gt=0.0, le=1.0)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]


class Section(BaseModel):
    """Base of every section: immutable; a key that is not declared, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
