"""The CRM's own tokens: which are taken, by which keys, and what an attacker makes of them."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conftest import Daemon
from control_port import API
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwk, jws, jwt

from waguard.access.access import Access
from waguard.access.configured import ConfiguredTokens
from waguard.access.jwts import Jwts
from waguard.access.made import MadeTokens
from waguard.access.peers import Peers
from waguard.config.sections import Jwt
from waguard.core.access import Scope
from waguard.errors import ConfigError, TokenExpired, Unauthorized

NO_PEERS = Peers((), (), frozenset(), 0)
NOW = 1_900_000_000
RSA, OTHER_RSA = jwk.RSAKey.generate_key(2048), jwk.RSAKey.generate_key(2048)
THIRD_RSA = jwk.RSAKey.generate_key(2048)
EC = jwk.ECKey.generate_key("P-256")
OCT = jwk.OctKey.import_key("a secret of the CRM, of more than 32 bytes")
WEAK = (
    rsa.generate_private_key(65537, 1024)
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
)
NONES: Sequence[object] = ("none", "None", "NONE", "", None, ["RS256"], {})
KEYS: Mapping[str, Any] = {"RS256": RSA, "ES256": EC, "HS256": OCT}


def public(key: Any) -> bytes:
    """As an admin would put it into a file."""
    return key.raw_value if key.key_type == "oct" else key.as_pem(private=False)  # type: ignore[no-any-return]


def signed(key: Any, algorithm: str = "RS256", header: Mapping[str, Any] | None = None, **claims: Any) -> str:
    told = {"clientCode": "demo", "exp": NOW + 60, **claims}
    told = {name: value for name, value in told.items() if value is not None}
    return jwt.encode({"alg": algorithm, **(header or {})}, told, key, algorithms=[algorithm])


def part(told: object) -> str:
    data = told if isinstance(told, bytes) else json.dumps(told).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(header: Mapping[str, Any]) -> str:
    """What the library would not make: the signature is right."""
    text = f"{part(header)}.{part({'clientCode': 'demo', 'exp': NOW + 60})}"
    assert RSA.private_key is not None
    return f"{text}.{part(RSA.private_key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@pytest.fixture
def crm(tmp_path: Path) -> Callable[..., Jwts]:
    def made(data: bytes | None = None, algorithm: str = "RS256", **more: Any) -> Jwts:
        file = tmp_path / "key"
        file.write_bytes(public(KEYS[algorithm]) if data is None else data)
        file.chmod(0o600)
        given = {"key_file": file, "algorithm": algorithm, **more}
        return Jwts.load(Jwt.model_validate(given), lambda: NOW)

    return made


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_bearer_may_do_what_the_configuration_says_with_its_client(
    crm: Callable[..., Jwts], algorithm: str
) -> None:
    caller = crm(algorithm=algorithm).admit(signed(KEYS[algorithm], algorithm))
    assert caller.scopes == {Scope.OPEN, Scope.READ, Scope.CONNECT, Scope.CLEANUP}
    assert (caller.client, caller.name, caller.is_admin) == ("demo", "jwt:demo", False)
    assert caller.until == NOW + 60 + 30


def test_scopes_claim_issuer_and_audience_are_as_the_configuration_says(crm: Callable[..., Jwts]) -> None:
    crms = crm(claim="tenant", scopes=["read"], issuer="crm", audience="waguard")
    good: dict[str, Any] = {"clientCode": None, "tenant": "demo2", "iss": "crm", "aud": "waguard"}
    caller = crms.admit(signed(RSA, **good))
    assert caller.client == "demo2"
    assert caller.scopes == {Scope.OPEN, Scope.READ}
    assert crms.admit(signed(RSA, **{**good, "aud": ["another", "waguard"]}))
    wrongs: Sequence[dict[str, Any]] = (
        {"iss": "other"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"aud": ["other"]},
    )
    for wrong in wrongs:
        with pytest.raises(Unauthorized):
            crms.admit(signed(RSA, **{**good, **wrong}))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": "soon"},
        {"exp": [NOW + 60]},
        {"exp": True},
        {"nbf": NOW + 31},
        {"nbf": "later"},
        {"clientCode": None},
        {"clientCode": ""},
        {"clientCode": "../demo"},
        {"clientCode": ["demo"]},
        {"clientCode": {"demo": 1}},
        {"clientCode": 7.5},
    ],
)
def test_a_claim_that_is_not_as_it_should_be(crm: Callable[..., Jwts], claims: Mapping[str, Any]) -> None:
    with pytest.raises(Unauthorized):
        crm().admit(signed(RSA, **claims))


def test_its_term_and_the_clocks(crm: Callable[..., Jwts]) -> None:
    crms = crm()
    assert crms.admit(signed(RSA, exp=NOW - 29))
    with pytest.raises(TokenExpired):
        crms.admit(signed(RSA, exp=NOW - 31))
    assert crms.admit(signed(RSA, nbf=NOW + 29))
    assert crms.admit(signed(RSA, exp=NOW + 0.5))


def test_what_a_header_says_chooses_no_algorithm_and_no_key(crm: Callable[..., Jwts]) -> None:
    claims = part({"clientCode": "demo", "exp": NOW + 60})
    crms = crm()
    assert crms.admit(by_hand({"alg": "RS256"}))
    mac = hmac.digest(public(RSA), f"{part({'alg': 'HS256'})}.{claims}".encode(), "sha256")
    forged = [
        signed(OTHER_RSA),
        signed(OCT, "HS256"),
        f"{part({'alg': 'HS256'})}.{claims}.{part(mac)}",  # the public key as a secret
        signed(EC, "ES256"),
        jwt.encode({"alg": "RS512"}, {"clientCode": "demo", "exp": NOW + 60}, RSA, algorithms=["RS512"]),
        signed(OTHER_RSA, header={"jwk": OTHER_RSA.as_dict(private=False)}),
        signed(OTHER_RSA, header={"kid": "../../etc/passwd"}),
        *(f"{part({'alg': none})}.{claims}." for none in NONES),
        f"{part({'alg': 'none'})}.{claims}.{signed(RSA).rpartition('.')[2]}",
        f"{part({})}.{claims}.x",
        f"{part([])}.{claims}.x",
        f"{part(b'[' * 5000)}.{claims}.x",
        jws.serialize_compact({"alg": "RS256"}, b"no claims", RSA, algorithms=["RS256"]),
        jws.serialize_compact({"alg": "RS256"}, b"[]", RSA, algorithms=["RS256"]),
        signed(RSA)[:-4],
        signed(RSA).replace(".", "..", 1),
        by_hand({"alg": "RS256", "crit": ["later"], "later": 1}),
        by_hand({"alg": "RS256", "crit": ["b64"], "b64": False}),
    ]
    for token in forged:
        with pytest.raises(Unauthorized):
            crms.admit(token)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_text_is_a_token_and_none_is_a_mistake_of_ours(tmp_path_factory: Any, data: st.DataObject) -> None:
    file = tmp_path_factory.getbasetemp() / "public.pem"
    if not file.exists():
        file.write_bytes(public(RSA))
    crms = Jwts.load(Jwt(key_file=file), lambda: NOW)
    good = signed(RSA).split(".")
    texts = (
        st.text()
        | st.binary().map(part)
        | st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "exp"]), inner)
            ),
        ).map(part)
    )
    parts = [data.draw(st.just(one) | texts) for one in good]
    if parts == good:
        return
    with pytest.raises(Unauthorized):
        crms.admit(".".join(parts))


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")  # for others; here it is an error
@pytest.mark.parametrize(
    ("algorithm", "data", "why"),
    [
        ("RS256", b"", "cannot be read"),
        ("RS256", b"rubbish", "cannot be read"),
        ("RS256", b"{}", "cannot be read"),
        ("RS256", b'{"keys": []}', "has no key of the kind RSA"),
        ("RS256", b'{"keys": 7}', "cannot be read"),
        ("RS256", b"[]", "cannot be read"),
        ("RS256", b'{"keys": ' + b"[" * 100_000, "cannot be read"),
        ("RS256", WEAK, "fewer than 2048 bits"),
        ("RS256", EC.as_pem(private=False), "cannot be read"),
        ("ES256", RSA.as_pem(private=False), "cannot be read"),
        ("ES256", jwk.ECKey.generate_key("P-384").as_pem(private=False), "P-384, and ES256 is with P-256"),
        ("HS256", b"x" * 31, "fewer than 32 bytes"),
        ("HS256", RSA.as_pem(private=False), "public keys must not be used"),
        ("HS256", json.dumps(RSA.as_dict(private=False)).encode(), "has no key of the kind oct"),
    ],
)
def test_a_file_without_a_fit_key_is_refused_at_the_start(
    crm: Callable[..., Jwts], algorithm: str, data: bytes, why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        crm(data, algorithm)
    assert f"For {algorithm} it is" in caught.value.hint


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"x" * 32)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read it"):
        Jwts.load(Jwt(key_file=file, algorithm="HS256"))
    file.write_bytes(public(RSA))
    assert Jwts.load(Jwt(key_file=file)), "a public key is for everybody"


def test_of_a_set_the_one_that_the_header_names_or_any(crm: Callable[..., Jwts]) -> None:
    one, two = (
        jwk.RSAKey.import_key({**key.as_dict(private=True), "kid": kid})
        for key, kid in ((RSA, "one"), (OTHER_RSA, "two"))
    )
    kept = [key.as_dict(private=False) for key in (one, two, EC)] + [{"kty": "AKP", "kid": "later"}]
    kept.append({**THIRD_RSA.as_dict(private=False), "use": "enc"})
    crms = crm(json.dumps({"keys": kept}).encode())
    assert crms.admit(signed(one, header={"kid": "one"}))
    assert crms.admit(signed(two, header={"kid": "two"}))
    assert crms.admit(signed(one))
    assert crms.admit(signed(two))
    for key, header in ((one, {"kid": "two"}), (two, {"kid": "three"}), (THIRD_RSA, {})):
        with pytest.raises(Unauthorized):
            crms.admit(signed(key, header=header))
    with pytest.raises(Unauthorized):
        crms.admit(signed(EC, "ES256"))


def test_a_key_without_a_name_may_have_signed_what_names_one(crm: Callable[..., Jwts]) -> None:
    assert crm().admit(signed(RSA, header={"kid": "crm-1"}))
    assert crm(algorithm="HS256").admit(signed(OCT, "HS256", header={"kid": "crm-1"}))
    with pytest.raises(Unauthorized):
        crm().admit(signed(OTHER_RSA, header={"kid": "crm-1"}))


@pytest.mark.parametrize("told", [None, True, 7, 7.5, [], {}, ["demo"]])
def test_only_a_text_is_a_client(crm: Callable[..., Jwts], told: object) -> None:
    token = jwt.encode({"alg": "RS256"}, {"clientCode": told, "exp": NOW + 60}, RSA, algorithms=["RS256"])
    with pytest.raises(Unauthorized, match="is no client code"):
        crm().admit(token)


@pytest.mark.parametrize("exp", ["9" * 400, "1e400", "NaN", "-1e400", "[]", "null"])
def test_an_end_that_is_no_time(crm: Callable[..., Jwts], exp: str) -> None:
    claims = f'{{"clientCode": "demo", "exp": {exp}}}'.encode()
    token = jws.serialize_compact({"alg": "RS256"}, claims, RSA, algorithms=["RS256"])
    with pytest.raises(Unauthorized):
        crm().admit(token)


async def test_other_keys_are_taken_and_what_is_none_is_told(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(public(RSA))
    told: list[tuple[str, Any]] = []

    def publish(name: str, **fields: Any) -> None:
        told.append((name, fields))

    made = MadeTokens(tmp_path, publish, lambda _alert, _text: None)
    crms = await asyncio.to_thread(Jwts.load, Jwt(key_file=file), lambda: NOW)
    access = Access(
        ConfiguredTokens({}), made, crms, NO_PEERS, publish, lambda _alert, _text: None, lambda: NOW
    )
    assert access.admit(signed(RSA))
    new = tmp_path / "new.pem"
    new.write_bytes(b"half of a k")
    new.replace(file)
    await access._refresh()
    await access._refresh()
    assert [name for name, _ in told] == ["jwt.keys_unread"], "once"
    assert access.admit(signed(RSA)), "those before stay"
    new.write_bytes(public(OTHER_RSA))
    new.replace(file)
    await access._refresh()
    assert access.admit(signed(OTHER_RSA))
    with pytest.raises(Unauthorized):
        access.admit(signed(RSA))
    file.unlink()
    await access._refresh()
    assert [name for name, _ in told] == ["jwt.keys_unread"] * 2
    assert access.admit(signed(OTHER_RSA))


async def test_who_stays_by_it_is_sent_away_when_its_term_is_over(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(public(RSA))
    now = float(NOW)
    made = MadeTokens(tmp_path, lambda *_, **__: None, lambda _alert, _text: None)
    crms = await asyncio.to_thread(Jwts.load, Jwt(key_file=file), lambda: now)
    access = Access(
        ConfiguredTokens({}),
        made,
        crms,
        NO_PEERS,
        lambda *_, **__: None,
        lambda _alert, _text: None,
        lambda: now,
    )
    ended: list[str] = []
    with access.while_admitted(access.admit(signed(RSA)), ended.append):
        now += 89
        access._look()
        assert ended == []
        now += 1
        access._look()
        assert ended == ["This token has expired."]


async def test_the_old_crms_routes_by_its_own_token(pose: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(public(RSA))
    async with (
        pose("connected", api=API, jwt={"key_file": file}) as (supervisor, url),
        aiohttp.ClientSession() as http,
    ):
        headers = {"Authorization": f"Bearer {signed(RSA, exp=time.time() + 60)}"}
        async with http.post(f"{url}/api/whatsapp/connect", headers=headers) as answer:
            assert (await answer.json())["success"]
        assert [view.client for view in supervisor.views()] == ["demo"]
        async with http.get(f"{url}/v1/sessions/demo2", headers=headers) as answer:
            assert answer.status == 403
        async with http.post(f"{url}/v1/sessions/demo/snapshots", headers=headers) as answer:
            assert (answer.status, (await answer.json())["detail"]) == (
                403,
                "This token does not have the scope backup.",
            )
