"""Canaille, its people and clients in memory: one person, and a client that the tests describe."""

import os

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from flask import request

port = os.environ["PORT"]
app = create_app(
    {
        "SECRET_KEY": "of these tests",
        "PREFERRED_URL_SCHEME": "http",
        "SERVER_NAME": f"localhost:{port}",
        "WTF_CSRF_ENABLED": True,
        "CANAILLE": {"DATABASE": "memory", "NAME": "Canaille", "HTMX": False},
        "CANAILLE_OIDC": {"TRUSTED_DOMAINS": []},
    }
)


@app.post("/tests/client")
def client():
    client = models.Client(client_id="gateway", client_secret=os.environ["SECRET"], **request.json)
    Backend.instance.save(client)
    client.audience = [client]
    Backend.instance.save(client)
    return {}


app.extensions["csrf"].exempt(client)
with app.app_context():
    person = models.User(
        user_name="grace",
        formatted_name="Grace",
        family_name="Hopper",
        emails=["grace@example.com"],
    )
    Backend.instance.save(person)
    Backend.instance.set_user_password(person, os.environ["PASSWORD"])

app.run(host="127.0.0.1", port=int(port), threaded=True)
