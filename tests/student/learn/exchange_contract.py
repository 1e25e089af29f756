"""What every exchange must do.

As a program, on each rank: `python -m tests.student.learn.exchange_contract contract` checks it, `... wait` goes on
until another rank ends.
"""

import os
import sys
from itertools import count

import numpy as np
import torch

from runtime.errors import GraftError
from student.learn.exchange import Exchange, open_exchange

ODD_BYTES = [b"", b"\x00\xff\n", b"a" * 1000]


def check(exchange: Exchange) -> None:
    """AssertionError on the rank that finds a fault."""
    assert 0 <= exchange.rank < exchange.ranks
    for rows in (0, 1, 2, 7, 64):
        check_rows(exchange, rows)
    check_sums(exchange)
    check_words(exchange)


def check_rows(exchange: Exchange, rows: int) -> None:
    """The parts in the order of ranks are all rows, whatever holds them."""
    all_B2 = torch.arange(2.0 * rows).view(rows, 2)
    (whole_B2, twice_B2) = exchange.whole([exchange.own(all_B2), exchange.own(2 * all_B2)], rows)
    assert torch.equal(whole_B2, all_B2)
    assert torch.equal(twice_B2, 2 * all_B2)
    numbers = [str(n) for n in range(rows)]
    own = exchange.own(numbers)
    assert len(own) in (rows // exchange.ranks, -(-rows // exchange.ranks))
    gathered = exchange.gather([number.encode() for number in own])
    assert [message.decode() for messages in gathered for message in messages] == numbers
    assert exchange.own(np.arange(rows)).tolist() == [int(number) for number in own]
    missing = exchange.whole([exchange.own(torch.full((rows,), torch.nan))], rows)
    assert torch.isnan(missing[0]).all()


def check_sums(exchange: Exchange) -> None:
    one, two = exchange.sum(torch.tensor([1.0, exchange.rank]), torch.full((2, 1), 0.5))
    assert one.tolist() == [exchange.ranks, sum(range(exchange.ranks))]
    assert two.tolist() == [[0.5 * exchange.ranks]] * 2


def check_words(exchange: Exchange) -> None:
    last = exchange.ranks - 1
    assert exchange.any(exchange.rank == last)
    assert not exchange.any(flag=False)
    found = exchange.gather(ODD_BYTES[: exchange.rank + 1])
    assert found == [ODD_BYTES[: rank + 1] for rank in range(exchange.ranks)]
    assert exchange.gather([]) == [[] for _ in range(exchange.ranks)]


def main() -> None:
    with open_exchange() as exchange:
        assert exchange.ranks > 1
        if sys.argv[1] == "contract":
            check(exchange)
            return
        try:
            for round_ in count():
                exchange.any(flag=False)
                if round_ == 1:
                    os.write(2, b"met\n")
        except GraftError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
