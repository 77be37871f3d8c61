"""Events that others may listen to. The package itself logs; metrics and toolbars listen here."""

from __future__ import annotations

from django.dispatch import Signal

statement_routed = Signal()
"""Sent for each statement on a cluster's alias. Arguments: `primary`, `decision` (alias and reason). Keep receivers quick."""

topology_changed = Signal()
"""Sent when a host changes state, from a thread of the checker's that does nothing else but log. Arguments: `primary`, `topology`.
A receiver that hangs holds up the next ones, and the log of what changes; it holds up no look at any host."""
