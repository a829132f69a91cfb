"""Users and devices beside Django's views, for its logged-in users: `uvicorn with_django:app`."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from wse import Attempt, Decision, WseServer

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of no use to anybody",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)
django.setup()

from django.contrib.sessions.backends.signed_cookies import SessionStore  # noqa: E402


def identify(attempt: Attempt) -> Decision:
    """The session of the cookie that the browser sent with the upgrade."""
    session = SessionStore(attempt.cookies.get(settings.SESSION_COOKIE_NAME))
    return attempt.accept(session.get("who"))


server = WseServer(identify, conn_per_user=3)


def sign_in(request: HttpRequest, who: str) -> JsonResponse:
    """As `login()` does, without a table of users."""
    request.session["who"] = who
    return JsonResponse({"who": who})


def tell(request: HttpRequest, who: str) -> JsonResponse:
    """A synchronous view, in a thread of Django's."""
    server.send(who, "told", request.GET["text"])
    return JsonResponse({"online": who in server.clients})


urlpatterns = [path("sign-in/<who>", sign_in), path("tell/<who>", tell)]
django_app, devices = get_asgi_application(), server.asgi()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """One path is ours, and there are no other WebSockets; everything else is Django's."""
    if scope["type"] == "lifespan" or scope["path"] == "/ws":
        await devices(scope, receive, send)
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close"})
    else:
        await django_app(scope, receive, send)
