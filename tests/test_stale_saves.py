"""GUARD_STALE_SAVES: saving what was loaded from a replica may undo what others wrote; the guard names it, and the line that loaded it."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import authenticate, login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db import connection, connections, models, transaction
from django.db.models.functions import Concat
from django.db.models.signals import post_init, pre_save
from django.http import HttpRequest, HttpResponse
from django.template import Context, Engine
from django.template.base import NodeList, Parser
from django.template.defaulttags import ForNode
from django.test import Client
from django.test.utils import isolate_apps
from django.urls import path

from django_pglb import StaleSave, StaleSaveWarning, current_decisions, routing_session, stale_saves, use_primary, use_replicas
from django_pglb.core.decision import Reason

from .fix_site import Served, Site
from .guestbook.models import Author, Entry
from .test_read_your_writes import signed_in

EVERY_FIELD = "guestbook.Entry: text, author, created would be saved to 'default' as read from the replica "
Loaded = tuple[Entry, int]


def guard(site: Site, settings: Any, value: str) -> Entry:
    """Turn the guard to `value`, and return an entry that both replicas have, as the primary knows it."""
    settings.PGLB = {"default": {**settings.PGLB["default"], "GUARD_STALE_SAVES": value}}
    entry = Entry.objects.create(text="old", author=Author.objects.create(name="Ann"))
    site.wait_until_online()
    site.wait_until_seen()
    return entry


@pytest.fixture
def warned(site: Site, settings: Any) -> Site:
    """The site with the guard at "warn", and an entry on every host."""
    guard(site, settings, "warn")
    return site


@pytest.fixture
def refused(site: Site, settings: Any) -> Site:
    """The site with the guard at "raise", and an entry on every host."""
    guard(site, settings, "raise")
    return site


def write_elsewhere(site: Site, text: str) -> None:
    """Write as somebody else, with replay standing still."""
    for replica in site.cluster.replicas:
        replica.pause_replay()
    Entry.objects.update(text=text)


def load_stale() -> Entry:
    """Load the entry from a replica that has not replayed what somebody else wrote."""
    entry = Entry.objects.get()
    assert entry.text == "old"
    assert {(decision.alias.startswith("replica"), decision.reason) for decision in current_decisions()} == {(True, Reason.REPLICA)}
    return entry


def here() -> int:
    """Return the number of the line that calls this."""
    return sys._getframe(1).f_lineno


def complaint(save: Callable[[], object]) -> str:
    """Return the one warning that `save` gives."""
    with pytest.warns(StaleSaveWarning) as caught:
        save()
    (warning,) = caught
    return str(warning.message)


# --- What is lost, and the ways out ---


def test_without_the_guard_the_others_write_is_lost(site: Site, settings: Any) -> None:
    """What the guard is for: a save of one field brings back what a replica still showed in another."""
    guard(site, settings, "off")
    write_elsewhere(site, "theirs")
    with routing_session():
        entry = load_stale()
        entry.author = None
        entry.save()
    assert Entry.objects.get().text == "old"


def test_warning_names_model_fields_replica_line_and_ways_out(warned: Site) -> None:
    """One warning, at the line that saves, which is saved all the same."""
    write_elsewhere(warned, "theirs")
    with routing_session():
        entry = load_stale()
        with pytest.warns(StaleSaveWarning) as caught:
            entry.save()
        saved = here() - 1
    (warning,) = caught
    message = str(warning.message)
    assert message.startswith(EVERY_FIELD)
    assert f"{__file__}:{load_stale.__code__.co_firstlineno + 2}, which undoes" in message
    assert "select_for_update()" in message
    assert "use_primary()" in message
    assert (warning.filename, warning.lineno) == (__file__, saved)
    assert Entry.objects.get().text == "old"


def test_refusal_loses_nothing(refused: Site) -> None:
    """The save raises before anything is sent, and the transaction that is open goes on."""
    write_elsewhere(refused, "theirs")
    with routing_session():
        entry = load_stale()
        with pytest.raises(StaleSave, match=r"guestbook\.Entry: text, author, created") as caught:
            entry.save()
        assert caught.value.instance is entry
        assert [decision for decision in current_decisions() if decision.alias == "default"] == []
    assert Entry.objects.get().text == "theirs"


@pytest.mark.parametrize("way_out", ["select_for_update", "use_primary", "using", "refreshed"])
def test_ways_out_keep_the_others_write(refused: Site, way_out: str) -> None:
    """What is read from the primary is the newest there is, and may be saved."""
    write_elsewhere(refused, "theirs")
    with routing_session(), transaction.atomic():
        if way_out == "select_for_update":
            entry = Entry.objects.select_for_update().get()
        elif way_out == "use_primary":
            with use_primary():
                entry = Entry.objects.get()
        elif way_out == "using":
            entry = Entry.objects.using("default").get()
        else:
            entry = Entry.objects.using("replica1").get()
            entry.refresh_from_db(from_queryset=Entry.objects.select_for_update())
        entry.author = None
        entry.save()
    entry = Entry.objects.get()
    assert (entry.text, entry.author) == ("theirs", None)


def test_saving_inside_use_primary_what_was_loaded_before_is_stale(refused: Site) -> None:
    """The block must be around the read."""
    with routing_session():
        entry = load_stale()
        with use_primary(), pytest.raises(StaleSave):
            entry.save()


@pytest.mark.parametrize("value", ["off", "warn"])
def test_guard_costs_nothing_while_it_is_off(site: Site, settings: Any, value: str) -> None:
    """Not one receiver is connected, unless some cluster has the guard on; a changed setting is followed."""

    def receivers() -> list[str]:
        known = [weak() for signal in (post_init, pre_save) for _, weak, *_ in signal.receivers]
        return [getattr(receiver, "__module__", "") for receiver in known]

    before = receivers()
    assert "django_pglb.stale_saves" not in before
    guard(site, settings, value)
    assert receivers().count("django_pglb.stale_saves") == (0 if value == "off" else 2)
    settings.PGLB_ENABLED = False
    assert receivers() == before


# --- What is saved ---


@pytest.mark.parametrize("fields", [["text"], ["author"], ["author_id", "text"]])
def test_only_the_fields_that_are_saved_are_named(warned: Site, fields: list[str]) -> None:
    """`update_fields` by either name of a field."""
    with routing_session():
        entry = load_stale()
        message = complaint(lambda: entry.save(update_fields=fields))
    named = ", ".join(sorted({field.removesuffix("_id") for field in fields}, reverse=True))
    assert f"guestbook.Entry: {named} would" in message


def test_deferred_fields_are_saved_too(warned: Site) -> None:
    """Saved to another alias, an instance first loads what it lacks, and writes that back: the guard says so, and it is so."""
    write_elsewhere(warned, "theirs")
    with routing_session():
        entry = Entry.objects.only("author").get()
        assert complaint(entry.save).startswith(EVERY_FIELD)
    assert Entry.objects.get().text == "old"


def test_what_the_server_computes_overwrites_nothing(refused: Site) -> None:
    """An expression takes what the primary has."""
    write_elsewhere(refused, "theirs")
    with routing_session():
        entry = load_stale()
        entry.text = Concat(models.F("text"), models.Value("!"))  # type: ignore[assignment]
        entry.save(update_fields=["text"])
    assert Entry.objects.get().text == "theirs!"


def test_what_one_save_left_is_still_stale(refused: Site) -> None:
    """Django takes an instance for the primary's once any field was saved there. The others are as old as they were."""
    write_elsewhere(refused, "theirs")
    with routing_session():
        entry = load_stale()
        entry.author_id = models.F("author_id")  # type: ignore[assignment]
        entry.save(update_fields=["author"])
        assert entry._state.db == "default"
        with pytest.raises(StaleSave, match=r"guestbook\.Entry: text, created would"):
            entry.save()
        entry.refresh_from_db(fields=["text"])
        with pytest.raises(StaleSave, match=r"guestbook\.Entry: created would"):
            entry.save()
        entry.refresh_from_db()
        entry.save()
    assert Entry.objects.get().text == "theirs"


@pytest.mark.parametrize("kind", ["insert", "copy", "forced", "delete", "update", "get_or_create", "update_or_create", "raw"])
def test_what_overwrites_nothing_is_let_through(refused: Site, kind: str) -> None:
    """New rows, copies, deletions, and what Django itself reads from the primary."""
    with routing_session():
        entry = load_stale()
        if kind == "insert":
            Entry(text="new").save()
        elif kind == "copy":
            entry.pk, entry._state.adding = None, True
            entry.save()
        elif kind == "forced":
            entry.pk += 1
            entry.save(force_insert=True)
        elif kind == "delete":
            entry.delete()
        elif kind == "update":
            Entry.objects.filter(pk=entry.pk).update(text="new")
        elif kind == "get_or_create":
            Entry.objects.get_or_create(text="old")[0].save()
        elif kind == "update_or_create":
            Entry.objects.update_or_create(pk=entry.pk, defaults={"text": "new"})
        else:
            entry.save_base(raw=True)


def test_unsafe_requests_are_not_complained_about(refused: Site, user: Any) -> None:
    """A POST reads from the primary, so the usual form saves what it has loaded."""
    response = signed_in(user).post("/change_password/")
    assert response.status_code == 200
    assert Served(response).aliases == {"default"}


def test_inherited_and_proxied_models_are_complained_about_once(warned: Site) -> None:
    """One save, one complaint, with the fields of all tables; what Django sets to the time of the save is not among them."""
    with isolate_apps("tests.guestbook"):

        class Letter(Entry):
            stamp = models.CharField(max_length=9, default="")
            changed = models.DateTimeField(auto_now=True)

            class Meta:
                app_label = "guestbook"

        class Proxied(Letter):
            class Meta:
                app_label = "guestbook"
                proxy = True

    with connection.schema_editor() as editor:
        editor.create_model(Letter)
    try:
        Letter.objects.create(text="old")
        warned.wait_until_seen()
        with routing_session():
            letter = Letter.objects.get()
            assert "guestbook.Letter: text, author, created, stamp would" in complaint(letter.save)
        with routing_session():
            proxied = Proxied.objects.get()
            assert "guestbook.Proxied: text, author, created, stamp would" in complaint(proxied.save)
        with routing_session(), warnings.catch_warnings():
            warnings.simplefilter("error")
            Letter.objects.get().save(update_fields=["changed"])
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(Letter)


def test_login_by_a_link_is_let_through_and_nothing_more(refused: Site, user: Any, settings: Any) -> None:
    """Django notes the time of a login with the user that it has just read, from a replica in a GET. The user's other fields stay stale."""
    settings.ROOT_URLCONF = __name__
    refused.wait_until_seen()
    response = Client().get("/sign_in_by_link/")
    assert "auth.User: " in response.content.decode()
    assert "first_name" in response.content.decode()
    assert "last_login" not in response.content.decode()
    assert ("replica", Reason.REPLICA) in {(d.alias.rstrip("12"), d.reason) for d in Served(response).decisions}
    assert User.objects.get().last_login is not None


# --- The line that loaded it ---


def by_get() -> Loaded:
    return Entry.objects.get(), here()


def by_first() -> Loaded:
    return Entry.objects.order_by("pk").first(), here()  # type: ignore[return-value]


def in_loop() -> Loaded:
    entries = Entry.objects.all()
    for entry in entries:
        return entry, here() - 1
    raise AssertionError


def by_iterator() -> Loaded:
    for entry in Entry.objects.iterator(chunk_size=1):
        return entry, here() - 1
    raise AssertionError


def by_raw_query() -> Loaded:
    return Entry.objects.raw("SELECT * FROM guestbook_entry")[0], here()


def by_relation() -> Loaded:
    author = Author.objects.get()
    return author.entries.get(), here()


def by_foreign_key() -> Any:
    entry = Entry.objects.get()
    return entry.author, here()


def by_joined_foreign_key() -> Any:
    entry, line = Entry.objects.select_related("author").get(), here()
    return entry.author, line


def by_prefetch() -> Loaded:
    author, line = Author.objects.prefetch_related("entries").get(), here()
    return author.entries.all()[0], line


def by_refresh() -> Loaded:
    with use_primary():
        entry = Entry.objects.get()
    entry.refresh_from_db(using="replica1")
    return entry, here() - 1


def by_second_refresh() -> Loaded:
    entry = Entry.objects.get()
    entry.refresh_from_db()
    return entry, here() - 1


def with_a_deferred_field() -> Loaded:
    entry, line = Entry.objects.defer("text").get(), here()
    assert entry.text
    return entry, line


def by_copy() -> Loaded:
    entry, line = Entry.objects.get(), here()
    return copy.deepcopy(entry), line


def by_pickle() -> Loaded:
    entry, line = Entry.objects.get(), here()
    return pickle.loads(pickle.dumps(entry)), line


def by_own_methods() -> Any:
    """Through a constructor and a `from_db` of the project's own, which load nothing."""
    with isolate_apps("tests.guestbook"):

        class Own(Entry):
            class Meta:
                app_label = "guestbook"
                proxy = True

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)

            @classmethod
            def from_db(cls, *args: Any, **kwargs: Any) -> Any:
                return super().from_db(*args, **kwargs)

            def save(self, *args: Any, **kwargs: Any) -> None:
                super().save(*args, **kwargs)

    return Own.objects.get(), here()


def in_function_of_async_code() -> Loaded:
    return async_to_sync(sync_to_async(by_get))()


def in_thread() -> Loaded:
    found: list[Loaded] = []

    def run() -> None:
        with routing_session():
            found.append(by_get())
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


LOADING = [
    by_get,
    by_first,
    in_loop,
    by_iterator,
    by_raw_query,
    by_relation,
    by_foreign_key,
    by_joined_foreign_key,
    by_prefetch,
    by_refresh,
    by_second_refresh,
    with_a_deferred_field,
    by_copy,
    by_pickle,
    by_own_methods,
    in_function_of_async_code,
    in_thread,
]


@pytest.mark.parametrize("load", LOADING, ids=lambda load: load.__name__)
def test_line_that_loaded_it_is_named(warned: Site, load: Callable[[], Any]) -> None:
    """The very line, whichever way an instance comes; and the save's own line, past a `save()` of the model's own."""
    with routing_session(), use_replicas():
        instance, line = load()
        with pytest.warns(StaleSaveWarning) as caught:
            instance.save()
        saved = here() - 1
    (warning,) = caught
    assert f" at {__file__}:{line}, which" in str(warning.message)
    assert (warning.filename, warning.lineno) == (__file__, saved)


def test_template_that_loaded_it_is_named(warned: Site) -> None:
    """A queryset is often evaluated by a tag: the template and its line say more than the view that rendered it."""
    texts = {"list.html": "<ul>\n{% for entry in entries %}{{ entry.text }}{% endfor %}\n</ul>"}
    engine = Engine(loaders=[("django.template.loaders.locmem.Loader", texts)])
    with routing_session():
        entries = Entry.objects.all()
        assert "old" in engine.get_template("list.html").render(Context({"entries": entries}))
        assert " at list.html:2, which" in complaint(entries[0].save)


def test_node_that_a_tag_has_built_is_passed_over(warned: Site) -> None:
    """It is of no template and has no line: that of whoever renders it is named."""
    node = ForNode(["entry"], Parser("").compile_filter("entries"), False, NodeList())
    with routing_session():
        entries = Entry.objects.all()
        loaded, _ = here(), NodeList([node]).render(Context({"entries": entries}))
        assert f" at {__file__}:{loaded}, which" in complaint(entries[0].save)


async def _by_aget() -> Entry:
    return await Entry.objects.aget()


async def _by_async_for() -> Entry:
    async for entry in Entry.objects.all():
        return entry
    raise AssertionError


async def _by_aiterator() -> Entry:
    return [entry async for entry in Entry.objects.aiterator(chunk_size=1)].pop()


@pytest.mark.parametrize("load", [_by_aget, _by_async_for, _by_aiterator], ids=lambda load: load.__name__)
def test_no_wrong_line_is_named_for_async_code(warned: Site, load: Callable[[], Any]) -> None:
    """The line that waits is on another stack, and the stack that there is belongs to whoever runs the loop: the guard names neither."""

    async def load_and_save() -> None:
        async with routing_session():
            entry = await load()
            await entry.asave()

    with pytest.warns(StaleSaveWarning) as caught:
        async_to_sync(load_and_save)()
    (warning,) = caught
    assert "(in async code or by Django itself, so the line is not known)" in str(warning.message)
    assert __file__ not in str(warning.message)
    assert warning.filename == "async code"


def test_no_wrong_line_is_named_for_what_django_loads(warned: Site, user: Any, settings: Any) -> None:
    """A decorator of Django's loads the user before the view runs: the middleware around it, which is on the stack, has not."""
    settings.ROOT_URLCONF = __name__
    browser = Client()
    browser.force_login(user)
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.middleware_of_the_project"]
    warned.wait_until_seen()
    with pytest.warns(StaleSaveWarning) as caught:
        response = browser.get("/rename/")
    assert ("replica", Reason.REPLICA) in {(d.alias.rstrip("12"), d.reason) for d in Served(response).decisions}
    (warning,) = caught
    assert "auth.User: " in str(warning.message)
    assert "by Django itself" in str(warning.message)
    assert (warning.filename, warning.lineno) == (__file__, _rename.__code__.co_firstlineno + 3)


def test_a_line_that_saves_many_is_shown_once(warned: Site) -> None:
    """As with any warning of Python's: neither the log nor the memory of it grows with the rows."""
    Entry.objects.bulk_create(Entry(text="old") for _ in range(20))
    warned.wait_until_seen()
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        with routing_session():
            for entry in Entry.objects.all():
                entry.save()
    assert [warning.category for warning in caught] == [StaleSaveWarning]
    assert len(stale_saves._shown) <= 2


# --- Views and middleware of a project ---


def middleware_of_the_project(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def call(request: HttpRequest) -> HttpResponse:
        return get_response(request)

    return call


@login_required
def rename(request: HttpRequest) -> HttpResponse:
    request.user.first_name = "Ann"  # type: ignore[union-attr]
    request.user.save()
    return HttpResponse()


_rename = rename.__wrapped__  # type: ignore[attr-defined]


def sign_in_by_link(request: HttpRequest) -> HttpResponse:
    user = authenticate(request, username="ann", password="secret")
    assert user is not None
    login(request, user)
    try:
        user.save()
    except StaleSave as error:
        return HttpResponse(str(error))
    raise AssertionError("the user's other fields were saved as they were read")


urlpatterns = [path("rename/", rename), path("sign_in_by_link/", sign_in_by_link)]
