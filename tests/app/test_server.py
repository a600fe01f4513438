from starlette.testclient import TestClient

from fieldmark.app.server import create_app
from fieldmark.app.settings import Settings


def test_the_service_answers():
    with TestClient(create_app(Settings())) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
