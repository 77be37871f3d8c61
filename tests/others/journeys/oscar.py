"""django-oscar: a shop, whose middleware gets or creates a basket in each page of a signed-in visitor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import oscar
import oscar.defaults

PACKAGE = "django-oscar"
APPS = [*oscar.INSTALLED_APPS, "sorl.thumbnail"]
BASKET = "oscar.apps.basket.middleware.BasketMiddleware"
MIDDLEWARE = ["django.contrib.flatpages.middleware.FlatpageFallbackMiddleware", BASKET]
CONTEXT_PROCESSORS = [
    "oscar.apps.search.context_processors.search_form",
    "oscar.apps.checkout.context_processors.checkout",
    "oscar.apps.communication.notifications.context_processors.notifications",
    "oscar.core.context_processors.metadata",
]
SETTINGS = {
    **{name: value for name, value in vars(oscar.defaults).items() if name.startswith("OSCAR_")},
    "OSCAR_INITIAL_ORDER_STATUS": "Pending",
    "OSCAR_INITIAL_LINE_STATUS": "Pending",
    "HAYSTACK_CONNECTIONS": {"default": {"ENGINE": "haystack.backends.simple_backend.SimpleEngine"}},
    "AUTHENTICATION_BACKENDS": ["oscar.apps.customer.auth_backends.EmailBackend", "django.contrib.auth.backends.ModelBackend"],
    "TIME_ZONE": "UTC",
}


def remedy(settings: dict[str, Any]) -> None:
    settings["MIDDLEWARE"][settings["MIDDLEWARE"].index(BASKET)] = "tests.others.place.shop.BasketMiddleware"


def urls() -> list[Any]:
    from django.apps import apps
    from django.urls import include, path

    return [path("i18n/", include("django.conf.urls.i18n")), path("", include(apps.get_app_config("oscar").urls[0]))]


def prepare() -> None:
    from django.conf import settings
    from oscar.apps.address.models import Country
    from oscar.test.factories import create_product
    from PIL import Image

    from ..settings import MEDIA_ROOT, MODE

    if MODE == "ours":
        from ..place.shop import count_views_for_nobody

        count_views_for_nobody()
    Image.new("RGB", (8, 8)).save(Path(MEDIA_ROOT) / settings.OSCAR_MISSING_IMAGE_URL)
    Country.objects.create(iso_3166_1_a2="GB", name="Great Britain", printable_name="Great Britain", is_shipping_country=True)
    for number in range(1, 5):
        create_product(title=f"Book {number}", price=10, num_in_stock=10)


def _product(number: int) -> tuple[str, str]:
    """The page of a product, and where its form goes."""
    from oscar.apps.catalogue.models import Product

    product = Product.objects.get(title=f"Book {number}")
    return product.get_absolute_url(), f"/basket/add/{product.pk}/"


def anonymous_basket(visit: Any) -> None:
    page, add = _product(1)
    visit.sees(page, "Book 1", "In stock")
    visit.post(add, {"quantity": 1})
    visit.sees("/basket/", "Book 1")


def sign_in_merges_baskets(visit: Any) -> None:
    form = {"login-username": "ann@example.com", "login-password": "secret", "login-redirect_url": "/", "login_submit": "Log In"}
    visit.post("/accounts/login/", form)
    visit.sees("/basket/", "Book 1")
    visit.sees("/accounts/profile/", "ann@example.com")


def browse_signed_in(visit: Any) -> None:
    for number in (3, 4):
        page, _ = _product(number)
        visit.sees(page, f"Book {number}")


def fill_basket(visit: Any) -> None:
    visit.post(_product(2)[1], {"quantity": 2})
    visit.sees("/basket/", "Book 1", "Book 2", "30.00")
    visit.sees(_product(3)[0], "Book 3", "30.00")


def review(visit: Any) -> None:
    page, _ = _product(2)
    visit.post(f"{page}reviews/add/", {"title": "Fine", "score": 4, "body": "Very fine."})
    visit.sees(page, "Very fine.")


def order(visit: Any) -> None:
    address = {"first_name": "Ann", "last_name": "Lee", "line1": "1 High Street", "line4": "London", "postcode": "N12 9RT", "country": "GB"}
    visit.post("/checkout/shipping-address/", address)
    assert "High Street" in visit.get("/checkout/preview/"), "the preview lacks the address"
    page = visit.post("/checkout/preview/", {"action": "place_order"})
    number = re.search(r"\b10000\d\b", page)
    assert number is not None, "no order was placed"
    visit.sees("/accounts/orders/", number[0])
    visit.sees("/basket/", "cart is empty")


STEPS = [anonymous_basket, sign_in_merges_baskets, browse_signed_in, fill_basket, review, order]
