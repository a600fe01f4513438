import gzip

import pytest

from fieldmark.app import page
from fieldmark.app.page import VIEWS, page_routes, read_page
from fieldmark.errors import ArtifactError


@pytest.fixture
def built(tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><title>fieldmark</title>")
    (tmp_path / "icon.svg").write_text("<svg/>")
    script = b"export const x = 1;" * 100
    (tmp_path / "assets" / "main-0a1B2c3D.js").write_bytes(script)
    (tmp_path / "assets" / "main-0a1B2c3D.js.gz").write_bytes(gzip.compress(script))
    return tmp_path


@pytest.fixture
def ask_built(asking, built, monkeypatch):
    monkeypatch.setattr("fieldmark.app.server.page_routes", lambda: page_routes(built))
    return asking()


def test_every_view_is_the_page_and_asked_for_again_each_time(ask_built):
    for path in VIEWS:
        answer = ask_built("GET", path)
        assert answer.body.startswith(b"<!doctype html>")
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["cache-control"] == "no-cache"
        assert ask_built("HEAD", path).status == 200
    known = [("if-none-match", f'"other", W/{answer.headers["etag"]}')]
    assert ask_built("GET", "/icon.svg").headers["cache-control"] == "no-cache"
    for path in ("/", "/explore", "/icon.svg"):
        assert ask_built("POST", path).status == 405
    again = ask_built("GET", "/", known)
    assert (again.status, again.body) == (304, b"")


def test_files_with_a_hash_are_kept_for_good_and_sent_as_they_were_compressed(ask_built):
    plain = ask_built("GET", "/assets/main-0a1B2c3D.js")
    assert plain.headers["cache-control"].endswith("immutable")
    assert plain.headers["content-type"].startswith("text/javascript")
    small = ask_built("GET", "/assets/main-0a1B2c3D.js", [("accept-encoding", "br, gzip")])
    assert small.headers["content-encoding"] == "gzip"
    assert plain.headers["vary"] == small.headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(small.body) == plain.body
    refused = ask_built("GET", "/assets/main-0a1B2c3D.js", [("accept-encoding", "gzip;q=0")])
    assert refused.body == plain.body
    assert ask_built("GET", "/assets/main-0a1B2c3D.js.gz").status == 404


def test_what_is_beside_the_page_is_not_served(built, ask_built):
    (built / "late.txt").write_text("not there when it started")
    assert ask_built("GET", "/late.txt").status == 404
    assert ask_built("GET", "/index.html").status == 404
    assert ask_built("GET", "/assets/").status == 404
    assert ask_built("GET", "/assets").status == 404


def test_without_the_page_there_is_the_api_alone(asking):
    ask = asking(page=False)
    assert ask("GET", "/").status == 404
    assert ask("GET", "/healthz").status == 200


def test_a_copy_without_a_page_says_so(tmp_path):
    with pytest.raises(ArtifactError, match="--api"):
        read_page(tmp_path)


def test_this_copy_has_a_page_without_scripts_or_styles_inside_it():
    text = (page.STATIC / "index.html").read_text()
    assert "<!doctype html>" in text.lower()
    assert "onclick" not in text
    assert "<style" not in text
    assert "<script>" not in text
    assert "http://" not in text
