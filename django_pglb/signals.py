"""Events that others may listen to. The package itself logs; metrics and toolbars listen here."""

from __future__ import annotations

from django.dispatch import Signal

statement_routed = Signal()
"""Sent for each statement on a cluster's alias. Arguments: `primary`, `decision` (alias and reason). Keep receivers quick."""

topology_changed = Signal()
"""Sent from the checker's thread when a host changes state. Arguments: `primary`, `topology`. No host is looked at until its receivers
have returned: keep them quick."""
