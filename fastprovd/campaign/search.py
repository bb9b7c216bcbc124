"""Which addresses to ask when nobody listed them: the predicted tree, narrowed by answers; pure."""

from __future__ import annotations

from collections.abc import Iterator

from fastprovd.campaign.shares import Share

# How many silent addresses in a row a pass looks behind; addresses are given one after another, so
# a gap is a board that never answers, or an attempt that failed after Provisioning Data. The last
# pass is for answers that were lost.
GAPS_BY_PASS = (0, 1, 5, 5)


class AddressSearch:
    """Walks the shares of a run. Tell it who exists, ask it whom to try.

    The n-th child of a share that exists makes the n-th sub-share worth a look. It sends nothing,
    and it does not know which child owns which share.
    """

    def __init__(self, root: Share) -> None:
        self._root = root
        self._exists: set[int] = set()
        self._tried: dict[int, int] = {}

    def found(self, address: int) -> None:
        """A node has this address."""
        self._exists.add(address)

    def tried(self, address: int, search_pass: int) -> None:
        """Nobody answered there in this pass."""
        self._tried[address] = max(search_pass, self._tried.get(address, -1))

    def candidates(self, search_pass: int) -> Iterator[int]:
        """Yield addresses worth asking in this pass, most promising first."""
        max_gap = GAPS_BY_PASS[search_pass]
        shares = [self._root]
        while shares:
            share = shares.pop(0)
            existing = 0
            gap = 0
            for address in share.children:
                if address in self._exists:
                    existing += 1
                    gap = 0
                    continue
                if gap > max_gap:
                    continue
                if self._tried.get(address, -1) < search_pass:
                    yield address
                gap += 1
            if existing:
                shares += share.sub_shares()[:existing]
