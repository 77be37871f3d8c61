"""The pages and the buttons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import authenticate, get_user, login, logout
from django.contrib.auth.models import User
from django.http import JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from django_pglb import replica_reads

from ..control import ControlError, ask
from .answers import answers_so_far
from .hosts import list_hosts
from .models import Entry
from .people import PASSWORD, USERNAMES

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse

PAGE_LENGTH = 30
MAX_LENGTH = Entry._meta.get_field("text").max_length


@require_safe
def guestbook(request: HttpRequest) -> HttpResponse:
    """Show the newest entries, and the form to whoever is signed in."""
    return _page(request, "guestbook/guestbook.html", Entry.objects.all(), max_length=MAX_LENGTH)


@require_safe
def person(request: HttpRequest, username: str) -> HttpResponse:
    """Show what one person has written."""
    author = get_object_or_404(User, username=username)
    return _page(request, "guestbook/person.html", author.entries.all(), author=author)


@require_POST
def sign(request: HttpRequest) -> HttpResponse:
    """Write an entry; the page after it must show it, whoever answers."""
    if not request.user.is_authenticated:
        messages.error(request, "Sign in first.")
        return redirect("guestbook")
    text = request.POST.get("text", "").strip()[:MAX_LENGTH]
    if text:
        Entry.objects.create(author_id=request.user.pk, text=text)
        messages.success(request, "Written to the primary. Who showed it to you is said above.")
    return redirect("guestbook")


@require_POST
def sign_in(request: HttpRequest) -> HttpResponse:
    """Sign a visitor in."""
    user = authenticate(request, username=request.POST.get("username", ""), password=request.POST.get("password", ""))
    if user is None:
        messages.error(request, "No such user and password.")
    else:
        login(request, user)
    return redirect("guestbook")


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """Sign a visitor out."""
    logout(request)
    return redirect("guestbook")


@require_safe
def hosts(request: HttpRequest) -> JsonResponse:
    """Return the state of the hosts, for pages that stay open."""
    return JsonResponse({host.alias: host._asdict() for host in list_hosts()})


@require_POST
@replica_reads()
def control_host(request: HttpRequest, alias: str, action: str) -> HttpResponse:
    """Press a button. It writes nothing that its presser would have to see, hence `replica_reads`."""
    try:
        ask(settings.GUESTBOOK_CONTROL, action, alias)
    except ControlError as error:
        messages.error(request, str(error))
    return redirect("guestbook")


def _page(request: HttpRequest, template: str, entries: QuerySet[Entry], **context: Any) -> HttpResponse:
    """Render a page after all its reads, so that it can say who answered them."""
    # The templates' `user` is lazy and would be read while rendering, too late to be counted.
    request.user = get_user(request)
    newest = list(entries.select_related("author")[:PAGE_LENGTH])
    context |= {"entries": newest, "usernames": USERNAMES, "password": PASSWORD, "hosts": list_hosts()}
    answers = answers_so_far()
    context |= {"answers": answers, "answering": {answer.alias for answer in answers}}
    return render(request, template, context)
