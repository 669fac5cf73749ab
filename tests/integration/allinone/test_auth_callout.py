"""The bus's auth callout, as realtime will answer it."""

import asyncio
import base64
import hashlib
import json
import time
from typing import Any

import nats
import nkeys
import pytest

CALLOUT = "$SYS.REQ.USER.AUTH"


@pytest.fixture
async def guarded_bus(start_stack):
    """A bus whose responder admits the token `psk_good` to the subjects of tenant acme."""
    stack = start_stack()
    ready = stack.ready()
    secrets = json.loads((stack.data_dir / "secrets.json").read_text())
    signer = nkeys.from_seed(bytearray(secrets["auth_callout_seed"], "ascii"))
    responder = await nats.connect(stack.services_bus())

    async def decide(message):
        await message.respond(answer(decode(message.data), signer))

    await responder.subscribe(CALLOUT, queue="callout", cb=decide)
    await responder.flush()
    await responder.flush()  # the first PING overtakes nats-py\'s own buffer
    yield ready["nats"]
    await responder.close()


def decode(token: bytes) -> dict[str, Any]:
    body = token.split(b".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
    return claims


def answer(request: dict[str, Any], signer) -> bytes:
    asked = request["nats"]
    claims = {"type": "authorization_response", "version": 2}
    if asked["connect_opts"].get("auth_token") == "psk_good":
        claims["jwt"] = user_token(asked["user_nkey"], signer)
    else:
        claims["error"] = "unknown key"
    return sign(
        {"sub": asked["user_nkey"], "aud": asked["server_id"]["id"], "nats": claims}, signer
    )


def user_token(user: str, signer) -> str:
    allowed = {"allow": ["v1.acme.>", "_INBOX.>"]}
    claims = {
        "type": "user",
        "version": 2,
        "pub": allowed,
        "sub": allowed,
        "subs": -1,
        "data": -1,
        "payload": -1,
    }
    return sign({"sub": user, "aud": "PENSTOCK", "nats": claims}, signer).decode()


def sign(claims: dict[str, Any], signer) -> bytes:
    """Write a NATS JWT: header `ed25519-nkey`, signed with the account key."""
    issuer = bytes(signer.public_key).decode()
    claims = {**claims, "iss": issuer, "iat": int(time.time())}
    claims["jti"] = hashlib.sha256(json.dumps(claims).encode()).hexdigest()
    head = part({"typ": "JWT", "alg": "ed25519-nkey"}) + b"." + part(claims)
    return head + b"." + base64.urlsafe_b64encode(signer.sign(head)).rstrip(b"=")


def part(document: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=")


async def test_a_token_is_admitted_to_its_own_subjects_only(guarded_bus):
    """I8: the responder's answer opens one tenant's subjects and no other's."""
    refusals = []

    async def note(error):
        refusals.append(str(error))

    client = await nats.connect(guarded_bus, token="psk_good", allow_reconnect=False, error_cb=note)
    inbox = await client.subscribe("v1.acme.responses.r1")
    await client.flush()
    await client.flush()  # the first PING overtakes nats-py\'s own buffer
    await client.publish("v1.acme.responses.r1", b"own")
    assert (await inbox.next_msg(timeout=5)).data == b"own"
    await client.publish("v1.other.requests.queue", b"foreign")
    await client.flush()
    await client.flush()  # the first PING overtakes nats-py\'s own buffer
    await asyncio.sleep(0.1)
    await client.close()
    assert any("permissions violation" in text.lower() for text in refusals)


async def test_an_unknown_token_is_refused(guarded_bus):
    """I8: no key, no connection."""

    async def ignore(_):
        return

    for options in ({"token": "psk_bad"}, {}):
        with pytest.raises(nats.errors.Error):
            await asyncio.wait_for(
                nats.connect(guarded_bus, allow_reconnect=False, error_cb=ignore, **options), 10
            )
