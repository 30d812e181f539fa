"""The states of a subscription, and the only list of legal moves between them."""

from enum import StrEnum


class SubscriptionState(StrEnum):
    """What a subscription does with the entries of its job.

    LIVE:      takes each published entry
    GAP:       an entry is missing; takes nothing until the whole log is read
    BEHIND:    the reader has so much to read that what follows was left in the log
    FILLING:   the log is read behind the last entry; published entries wait
    REREADING: the log is read from its beginning; published entries wait
    ENDED:     the END was taken; nothing follows
    FAILED:    the reader gets what is ready, then an error
    CLOSED:    the reader has gone
    """

    LIVE = "live"
    GAP = "gap"
    BEHIND = "behind"
    FILLING = "filling"
    REREADING = "rereading"
    ENDED = "ended"
    FAILED = "failed"
    CLOSED = "closed"


_FINAL = frozenset({SubscriptionState.ENDED, SubscriptionState.FAILED, SubscriptionState.CLOSED})
# States in which the log may be read; `begin_filling` leaves them.
OPEN = frozenset({SubscriptionState.LIVE, SubscriptionState.GAP, SubscriptionState.BEHIND})

LEGAL: dict[SubscriptionState, frozenset[SubscriptionState]] = {
    SubscriptionState.LIVE: _FINAL | {SubscriptionState.GAP, SubscriptionState.BEHIND, SubscriptionState.FILLING},
    SubscriptionState.GAP: _FINAL | {SubscriptionState.REREADING},
    SubscriptionState.BEHIND: _FINAL | {SubscriptionState.FILLING},
    SubscriptionState.FILLING: _FINAL | OPEN,
    SubscriptionState.REREADING: _FINAL | OPEN,
    SubscriptionState.ENDED: frozenset({SubscriptionState.CLOSED}),
    SubscriptionState.FAILED: frozenset({SubscriptionState.CLOSED}),
    SubscriptionState.CLOSED: frozenset(),
}
