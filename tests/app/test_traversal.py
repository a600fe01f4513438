"""No client string reaches a path: odd ones in every place where a client may write one."""

import pytest

from asking import check_problem, operations

_FILES = ("etc/passwd", "canary.txt")
_UPS = (
    "../", "..\\", "%2e%2e/", "%2e%2e%2f", "..%2f", "%2e%2e%5c", "..%5c", "%252e%252e%252f",
    "..%252f", "....//", "..;/", "%c0%ae%c0%ae/", "%e0%80%ae/", "..%00/", "./../", ".%2e/",
    "..%u2215", "%uff0e%uff0e/", "..%c1%9c", "..//",
)  # fmt: skip
PAYLOADS = tuple(
    dict.fromkeys(
        [
            *(up * 8 + file for up in _UPS for file in _FILES),
            *(up + "index.html" for up in _UPS),
            "/etc/passwd",
            "//etc/passwd",
            "///etc///passwd",
            "%2fetc%2fpasswd",
            "%252fetc%252fpasswd",
            "\\etc\\passwd",
            "C:\\Windows\\win.ini",
            "C:%5cWindows%5cwin.ini",
            "C:/Windows/win.ini",
            "%5c%5cserver%5cshare%5cx",
            "//server/share/x",
            "\\\\?\\C:\\x",
            "file:///etc/passwd",
            "file:%2f%2f%2fetc%2fpasswd",
            "~/.ssh/id_rsa",
            "~root",
            "$HOME/.bashrc",
            "%00",
            "index.html%00.png",
            "a%0d%0aSet-Cookie:%20x=1",
            "con",
            "nul.txt",
            "aux",
            ".",
            "..",
            "...",
            ".git/config",
            ".env",
            "index.sqlite",
            "*",
            "?",
            "a" * 5000,
            "\udcff",
            "proc/self/environ",
            "0" * 31 + "/",
            "0" * 33,
            "G" * 32,
            "０" * 32,
        ]
    )
)


@pytest.fixture(scope="module")
def ask_near_canary(asking, tmp_path_factory):
    folder = tmp_path_factory.mktemp("near")
    (folder / "canary.txt").write_text("canary sings")
    (folder / "photos").mkdir()
    return asking(photos=folder / "photos")


def _check(answer, about):
    assert answer.status < 500 or answer.status == 503, about
    assert b"canary sings" not in answer.body, about
    assert b"root:" not in answer.body, about
    assert "set-cookie" not in answer.headers, about
    if answer.status >= 400:
        check_problem(answer)


def test_there_are_enough_of_them():
    assert len(PAYLOADS) >= 60


def test_no_route_with_a_parameter_leaves_its_place(ask_near_canary):
    routes = [o for o in operations(ask_near_canary.app) if "{" in o.path]
    assert routes
    for operation in routes:
        headers, body = operation.request()
        for payload in PAYLOADS:
            target = operation.target(payload)
            answer = ask_near_canary(operation.method, target, headers, body)
            _check(answer, (operation.method, target, answer))


@pytest.mark.parametrize("prefix", ["/", "/assets/", "/media/", "/api/v1/", "", "/explore/"])
def test_no_file_of_the_page_leads_elsewhere(ask_near_canary, prefix):
    for payload in PAYLOADS:
        target = prefix + payload
        if target in {"/?", "/explore/?", "?"}:
            continue
        answer = ask_near_canary("GET", target)
        _check(answer, (target, answer))
        assert answer.status >= 400, target


def test_no_parameter_in_the_query_leads_elsewhere(ask_near_canary):
    """Keys are looked up in the index, filters are read; neither is a file's name."""
    for operation in operations(ask_near_canary.app):
        names = [p["name"] for p in operation.told.get("parameters", ()) if p["in"] == "query"]
        headers, body = operation.request()
        for name in names:
            for payload in PAYLOADS[::7]:
                target = f"{operation.target()}?{name}={payload.replace('?', '%3F')}"
                answer = ask_near_canary(operation.method, target, headers, body)
                assert answer.status not in {500, 502, 504}, (target, answer)
                assert b"canary sings" not in answer.body
                assert b"root:x" not in answer.body
