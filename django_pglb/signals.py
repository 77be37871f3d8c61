"""Events that others may listen to. The package itself logs; metrics and toolbars listen here."""

from __future__ import annotations

from django.dispatch import Signal

statement_routed = Signal()
"""Sent for each statement on a cluster's alias, after it has run or failed. Arguments:

`primary`: the alias that names the cluster. `decision`: the alias on which it ran, and the reason. `using`: the alias that it was
addressed to, which is what the ORM notes on rows (`_state.db`) and what caches make keys of; it differs from the decision's where another
host answered. `is_write`: whether it may have written. Keep receivers quick.
"""

topology_changed = Signal()
"""Sent when a host changes state, from a thread of the checker's that does nothing else but log. Arguments: `primary`, `topology`.
A receiver that hangs holds up the next ones, and the log of what changes; it holds up no look at any host."""
