import hmac
import time

import pytest
from fastapi import APIRouter

from asking import check_problem, operations
from fieldmark.app.access import Direct
from fieldmark.app.sessions import COOKIE, SECONDS, find_session, make_session
from fieldmark.app.tokens import (
    Keyring,
    Scope,
    Token,
    add_token,
    digest,
    find,
    read_tokens,
    remove_token,
)
from fieldmark.errors import ConfigError, InputError

PUBLIC = {"/healthz", "/readyz"}
CALLERS = (None, "unknown", "read", "label", "admin")


def _bearer(secret):
    return [] if secret is None else [("authorization", f"Bearer {secret}")]


def test_every_operation_asks_for_a_scope_unless_it_is_known_to_be_public(ask_guarded):
    without = {o.path for o in operations(ask_guarded.app) if o.scope is None}
    assert without == PUBLIC


@pytest.mark.parametrize("caller", CALLERS)
def test_every_operation_lets_in_whom_it_says(ask_guarded, token_file, caller):
    secret = None if caller is None else token_file[1].get(caller, "fm_unknown")
    for number, operation in enumerate(operations(ask_guarded.app)):
        headers, body = operation.request()
        answer = ask_guarded(
            operation.method,
            operation.target(),
            [*headers, *_bearer(secret)],
            body,
            client=f"10.0.0.{number}",  # so that unknown tokens are not too many from one address
        )
        about = (operation.method, operation.path, answer)
        if operation.scope is None:
            assert answer.status not in {401, 403}, about
        elif caller in {None, "unknown"}:
            assert answer.status == 401, about
            assert answer.headers["www-authenticate"].startswith("Bearer"), about
        elif not Scope(caller).holds(Scope(operation.scope)):
            assert answer.status == 403, about
        else:
            assert answer.status not in {401, 403}, about
        if answer.status >= 400 and operation.path not in PUBLIC:
            check_problem(answer)


def test_me_says_who_calls(ask, ask_guarded, token_file):
    told = ask_guarded("GET", "/api/v1/me", _bearer(token_file[1]["label"])).json()
    assert (told["name"], told["scopes"], told["tokens"]) == (
        "label person", ["read", "label"], True,
    )  # fmt: skip
    told = ask("GET", "/api/v1/me").json()
    assert told["scopes"] == ["read", "label", "admin"]
    assert told["name"]
    assert not told["tokens"]


@pytest.mark.parametrize(
    "header", ["Basic abc", "Bearer", "Bearer ", "bearer\tx", "fm_x", "Bearer é"]
)
def test_headers_that_are_no_token_let_nobody_in(ask_guarded, header):
    answer = ask_guarded("GET", "/api/v1/me", [("authorization", header)])
    assert answer.status == 401
    check_problem(answer)


def test_a_session_is_the_tokens_until_it_is_over_or_removed(asking, tmp_path):
    file = tmp_path / "tokens.toml"
    secret = add_token(file, "Ida B.", Scope.label)
    ask = asking(tokens=file)
    begun = ask("POST", "/api/v1/session", _bearer(secret))
    assert begun.status == 204
    cookie = begun.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie
    assert secret not in cookie
    headers = [("cookie", cookie.split(";")[0])]
    assert ask("GET", "/api/v1/me", headers).json()["name"] == "Ida B."
    # A cookie cannot prolong itself, and a wrong token is not helped by a right cookie.
    assert ask("POST", "/api/v1/session", headers).status == 401
    assert ask("GET", "/api/v1/me", [*headers, *_bearer("fm_wrong")]).status == 401
    ended = ask("DELETE", "/api/v1/session", headers)
    assert 'fieldmark_session=""' in ended.headers["set-cookie"]
    remove_token(file, "Ida B.")
    assert ask("GET", "/api/v1/me", headers).status == 401


def test_over_the_network_the_cookie_wants_tls(asking, token_file):
    ask = asking(tokens=token_file[0], names=("birds.example",))
    headers = [("host", "birds.example"), *_bearer(token_file[1]["read"])]
    assert "Secure" in ask("POST", "/api/v1/session", headers).headers["set-cookie"]


def test_only_the_signed_name_and_time_are_believed():
    token = Token("ida", Scope.read, digest("fm_1"))
    raised = token._replace(scope=Scope.admin)
    now = time.time()
    value = make_session(token, now)
    name, until, signature = value.split(".")
    assert find_session([token], value, now) == token
    assert find_session([token], value, now + SECONDS - 1) == token
    assert find_session([token], value, now + SECONDS + 1) is None
    assert find_session([raised], value, now) is None
    assert find_session([Token("ida", Scope.read, digest("fm_2"))], value, now) is None
    assert find_session([token], f"{name}.{int(until) + 9}.{signature}", now) is None
    for wrong in (
        "",
        "a",
        "..",
        "a.b.c",
        f"{name}.{until}.é",
        f"é.{until}.{signature}",
        value + ".",
    ):
        assert find_session([token], wrong, now) is None


def test_a_session_ends_twelve_hours_from_now_whatever_it_says():
    token = Token("ida", Scope.read, digest("fm_1"))
    assert find_session([token], make_session(token, 1_000.0 + SECONDS), 1_000.0) is None


def test_a_part_of_a_signature_is_none():
    token = Token("ida", Scope.read, digest("fm_1"))
    begin, signature = make_session(token, 1_000.0).rsplit(".", 1)
    for wrong in (signature[:32], signature[:32] + "0" * 32, "0" * 32 + signature[32:], ""):
        assert find_session([token], f"{begin}.{wrong}", 1_000.0) is None


def test_how_long_a_comparison_takes_tells_nothing(monkeypatch):
    compared = []

    def compare(first, second):
        compared.append((first, second))
        return first == second

    monkeypatch.setattr(hmac, "compare_digest", compare)
    tokens = [Token(name, Scope.read, digest(f"fm_{name}")) for name in "abc"]
    for secret in ("fm_a", "fm_c", "fm_none"):
        compared.clear()
        find(tokens, secret)
        assert compared == [(token.sha256, digest(secret)) for token in tokens]
    compared.clear()
    value = make_session(tokens[0], 1_000.0)
    assert find_session(tokens, value, 1_000.0) == tokens[0]
    assert compared == [(value.rsplit(".", 1)[1],) * 2]


def test_tokens_cannot_be_guessed_and_are_known_for_what_they_are(tmp_path):
    secrets = {add_token(tmp_path / "tokens.toml", f"t{n}", Scope.read) for n in range(3)}
    assert len(secrets) == 3
    for secret in secrets:
        assert secret.startswith("fm_")
        assert len(secret) >= 3 + 43  # 256 bits


def test_no_description_of_a_cookie_ends_in_a_failure(ask_guarded):
    for value in ("\xff\xfe", "é.1.2", "a." * 5000, '"', "a.9999999999999999999999.b"):
        answer = ask_guarded("GET", "/api/v1/me", [("cookie", f"{COOKIE}={value}")])
        assert answer.status == 401


def test_many_unknown_tokens_are_slowed_down_and_right_ones_are_not(asking, token_file):
    ask = asking(tokens=token_file[0])
    seen = [ask("GET", "/api/v1/me", _bearer(f"fm_{n}")).status for n in range(25)]
    assert seen[:20] == [401] * 20
    assert seen[-1] == 429
    assert ask("GET", "/api/v1/me", _bearer(token_file[1]["read"])).status == 200
    assert ask("GET", "/api/v1/me", _bearer("fm_1"), client="10.9.9.9").status == 401


def test_a_body_of_somebody_unknown_is_not_read(ask_guarded):
    headers = [("content-type", "application/json")]
    assert ask_guarded("POST", "/api/v1/probe/json", headers, b"[" * 5000).status == 401


def test_only_hashes_are_kept_and_only_for_the_owner(tmp_path):
    file = tmp_path / "tokens.toml"
    first = add_token(file, "ida", Scope.label)
    second = add_token(file, "max", Scope.read)
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert first not in text
    assert digest(first) in text
    tokens = read_tokens(file)
    assert [token.name for token in tokens] == ["ida", "max"]
    assert find(tokens, second) == tokens[1]
    assert find(tokens, second + "x") is None
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.toml"]


@pytest.mark.parametrize("name", ["", " ida", "a" * 65, "a\nb", "../x", "a\0b", "-x"])
def test_names_are_names(tmp_path, name):
    with pytest.raises(InputError, match="no name for a token"):
        add_token(tmp_path / "tokens.toml", name, Scope.read)


def test_names_are_taken_once_and_removed_by_name(tmp_path):
    file = tmp_path / "tokens.toml"
    add_token(file, "ida", Scope.read)
    with pytest.raises(InputError, match="already"):
        add_token(file, "ida", Scope.read)
    with pytest.raises(InputError, match="it has: ida"):
        remove_token(file, "max")


@pytest.mark.parametrize("mode", [0o660, 0o602, 0o644])
def test_a_file_that_others_reach_is_refused(tmp_path, mode):
    file = tmp_path / "tokens.toml"
    add_token(file, "ida", Scope.read)
    file.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_tokens(file)


@pytest.mark.parametrize(
    "text",
    [
        "token = 3",
        "other = 1",
        "[[token]]\nname = 'ida'",
        "[[token]]\nname = 'ida'\nscope = 'root'\nsha256 = '" + "0" * 64 + "'",
        "[[token]]\nname = 'ida'\nscope = 'read'\nsha256 = 'fm_plain'",
        *(
            f"[[token]]\nname = '{name}'\nscope = 'read'\nsha256 = '{'0' * 64}'"
            for name in ("", " ida", "-x", "i" * 65, "a;b")
        ),
        "[[token",
    ],
)
def test_what_is_no_token_file_is_refused(tmp_path, text):
    file = tmp_path / "tokens.toml"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ConfigError):
        read_tokens(file)


def test_changes_of_the_file_count_at_once_and_a_broken_one_opens_for_nobody(tmp_path):
    file = tmp_path / "tokens.toml"
    add_token(file, "ida", Scope.read)
    keys = Keyring(file)
    add_token(file, "max", Scope.read)
    assert [token.name for token in keys.tokens()] == ["ida", "max"]
    remove_token(file, "ida")
    assert [token.name for token in keys.tokens()] == ["max"]
    good = file.read_text()
    file.write_text("[[token")
    for _ in range(2):
        with pytest.raises(ConfigError):
            keys.tokens()
    file.write_text(good)
    assert [token.name for token in keys.tokens()] == ["max"]
    file.unlink()
    with pytest.raises(ConfigError):
        keys.tokens()


def test_a_file_that_cannot_be_read_any_more_answers_503(asking, tmp_path):
    file = tmp_path / "tokens.toml"
    secret = add_token(file, "ida", Scope.read)
    ask = asking(tokens=file)
    file.chmod(0o666)
    answer = ask("GET", "/api/v1/me", _bearer(secret))
    assert answer.status == 503
    check_problem(answer)


def test_a_direct_route_must_say_who_may_call_it():
    async def answer(request):
        return None

    router = APIRouter()
    with pytest.raises(TypeError, match="/open must say who"):
        router.add_api_route("/open", answer, route_class_override=Direct)
