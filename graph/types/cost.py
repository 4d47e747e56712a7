"""The cost of a simulation so far, by the shares of machines that its attempts hold and held."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Self

import strawberry

from db.billing import Holding
from policy.cost import cost_per_hour, cost_so_far


@strawberry.type(
    description="Cost so far: the price of each attempt's machine times its share of it, from assignment to end."
)
class Cost:
    amount: Decimal = strawberry.field(description="The sum over all attempts, up to now.")
    currency: str
    per_hour: Decimal = strawberry.field(description="The current cost per hour; 0 while it holds no machine.")

    @classmethod
    def of(cls, holdings: Sequence[Holding], currency: str) -> Self:
        """currency: the installation's, for a simulation that had no machine yet."""
        return cls(
            amount=cost_so_far(holdings),
            currency=holdings[-1].currency if holdings else currency,
            per_hour=cost_per_hour(holdings),
        )
