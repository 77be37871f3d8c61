"""What docs/working-with-other-packages.md advises for a shop on django-oscar."""

from __future__ import annotations

from typing import Any

from oscar.apps.analytics import receivers
from oscar.apps.basket import middleware
from oscar.core.loading import get_class, get_model

from django_pglb import ignore_writes


class BasketMiddleware(middleware.BasketMiddleware):  # type: ignore[misc]
    """Looks for the basket before it gets or creates one: to look is a read, which a replica may answer."""

    def get_basket(self, request: Any) -> Any:
        if request._basket_cache is None and request.user.is_authenticated and not request.COOKIES.get(self.get_cookie_key(request)):
            found = get_model("basket", "basket").open.filter(owner=request.user)[:2]
            if len(found) == 1:
                request._basket_cache = found[0]
                found[0].owner = request.user
        return super().get_basket(request)


def count_views_for_nobody() -> None:
    """Let the counters of products that were looked at bind nobody."""
    product_viewed = get_class("catalogue.signals", "product_viewed")
    product_viewed.disconnect(receivers.receive_product_view)
    product_viewed.connect(ignore_writes()(receivers.receive_product_view), weak=False)
