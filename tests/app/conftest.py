import threading

import pytest

from asking import Asker, probe
from fieldmark.app import server as server_module
from fieldmark.app.run import listen, make_server
from fieldmark.app.server import create_app
from fieldmark.app.settings import Settings
from fieldmark.app.tokens import Scope, add_token


@pytest.fixture(scope="session")
def token_file(tmp_path_factory):
    """A real file of tokens, and a token of each scope."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    return file, {str(scope): add_token(file, f"{scope} person", scope) for scope in Scope}


@pytest.fixture(scope="session")
def asking():
    """Builds applications with the probes' routes beside all others, and asks them."""
    made = []

    def build(settings=None, **changes):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(server_module, "ROUTERS", (*server_module.ROUTERS, probe))
            made.append(Asker(create_app(settings or Settings(**changes))))
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def ask(asking):
    """Of a service without tokens."""
    return asking()


@pytest.fixture(scope="session")
def ask_guarded(asking, token_file):
    """Of a service with tokens."""
    return asking(tokens=token_file[0])


@pytest.fixture(scope="session")
def port(token_file):
    """Of a real server with small limits in a thread."""
    settings = Settings(
        port=0,
        header_seconds=0.4,
        body_seconds=0.4,
        body_rate=100_000,
        keep_alive_seconds=0.3,
        max_upload_bytes=200_000,
        max_json_bytes=20_000,
        max_connections=20,
        max_bodies=8,
    )
    taken = listen(settings)
    started = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_module, "ROUTERS", (*server_module.ROUTERS, probe))
        running = make_server(settings, create_app(settings), started.set)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [taken]})
    thread.start()
    assert started.wait(10)
    yield taken.getsockname()[1]
    running.should_exit = True
    thread.join(10)
    taken.close()
    assert not thread.is_alive()
