import pytest

from asking import check_problem, operations

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW")
FOREIGN_HOSTS = (
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "localhost:8001",
    "127.0.0.1:80",
    "127.0.0.2:8000",
    "0.0.0.0:8000",
    "[::2]:8000",
    "localhost:8000@evil.example",
    "localhost:",
    "localhost:99999999",
    "localhost,evil.example",
    "",
    " ",
    "localhost\\evil",
    "é",
)
OWN_HOSTS = ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.0.0.1", "[::1]:8000")
FOREIGN_ORIGINS = (
    "null",
    "http://evil.example",
    "https://evil.example:8000",
    "http://localhost:3000",
    "http://localhost",
    "http://localhost:8000.evil.example",
    "http://localhost:8000@evil.example",
    "file://localhost:8000",
    "chrome-extension://abcdef",
    "http://127.0.0.1:8001",
    "",
    "localhost:8000",
)
OWN_ORIGINS = ("http://localhost:8000", "http://127.0.0.1:8000", "http://[::1]:8000")


def _targets(ask):
    paths = sorted({operation.target() for operation in operations(ask.app)})
    return [*paths, "/", "/explore", "/nothing", "/api/v1/openapi.json"]


def _asked(ask, headers):
    """Every path with every method."""
    for target in _targets(ask):
        for method in METHODS:
            yield (method, target, headers), ask(method, target, headers)


def test_no_method_of_any_path_answers_to_a_foreign_name(ask):
    for about, answer in _asked(ask, [("host", "evil.example")]):
        assert answer.status == 421, about
        check_problem(answer)


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_names_that_are_not_the_services(ask, host):
    for target in ("/healthz", "/", "/api/v1/me"):
        answer = ask("GET", target, [("host", host)])
        assert answer.status == 421
        check_problem(answer)


def test_two_names_are_none(ask):
    headers = [("host", "localhost"), ("host", "evil.example")]
    assert ask("GET", "/healthz", headers).status == 421


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_names_that_are(ask, host):
    assert ask("GET", "/healthz", [("host", host)]).status == 200


def test_no_method_of_any_path_takes_requests_from_another_sites_page(ask):
    for headers in (
        [("origin", "http://evil.example")],
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")],
    ):
        for about, answer in _asked(ask, headers):
            assert answer.status == 403, about
            check_problem(answer)


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_pages_that_are_not_the_services(ask, origin):
    assert ask("DELETE", "/api/v1/session", [("origin", origin)]).status == 403


@pytest.mark.parametrize("origin", OWN_ORIGINS)
def test_pages_that_are(ask, origin):
    headers = [("origin", origin), ("sec-fetch-site", "same-origin")]
    assert ask("DELETE", "/api/v1/session", headers).status == 204


def test_one_foreign_origin_among_own_is_foreign(ask):
    headers = [("origin", OWN_ORIGINS[0]), ("origin", "http://evil.example")]
    assert ask("DELETE", "/api/v1/session", headers).status == 403


def test_a_link_from_elsewhere_opens_the_page_and_nothing_else(ask):
    link = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ]
    assert ask("GET", "/explore", link).status == 200
    for operation in operations(ask.app):
        if operation.path.startswith(("/api", "/media", "/metrics")):
            assert ask("GET", operation.target(), link).status == 403
    framed = [*link[:2], ("sec-fetch-dest", "iframe")]
    assert ask("GET", "/explore", framed).status == 403


def test_names_that_were_given(asking):
    ask = asking(host="0.0.0.0", names=("birds.example", "[2001:db8::1]:443", "near:9000"))

    def status(host, **headers):
        given = [("host", host), *headers.items()]
        return ask("GET", "/api/v1/me", given).status

    assert status("birds.example") == 200
    assert status("birds.example", origin="https://birds.example") == 200
    assert status("birds.example:9999") == 421
    assert status("[2001:db8::1]:443") == 200
    assert status("[2001:db8::1]:8000") == 421
    assert status("near:9000") == 200
    assert status("near") == 421
    assert status("birds.example", origin="https://birds.example:9999") == 403
    assert status("birds.example", origin="https://other.example") == 403


def test_listening_everywhere_answers_to_the_address_that_was_called(asking, monkeypatch):
    ask = asking(host="0.0.0.0")
    real = ask.app.__class__.__call__

    async def at_address(self, scope, receive, send):
        await real(self, {**scope, "server": ("192.0.2.7", 8000)}, receive, send)

    monkeypatch.setattr(ask.app.__class__, "__call__", at_address)
    assert ask("GET", "/healthz", [("host", "192.0.2.7:8000")]).status == 200
    assert ask("GET", "/healthz", [("host", "192.0.2.8:8000")]).status == 421


def test_every_answer_keeps_browsers_careful(ask):
    for method, target in (
        ("GET", "/"), ("GET", "/healthz"), ("GET", "/nothing"), ("POST", "/"),
        ("GET", "/api/v1/probe/fails"),
    ):  # fmt: skip
        headers = ask(method, target).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers
        assert len(headers["x-request-id"]) == 16
