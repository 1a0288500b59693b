"""Images: whose login is used, what is refused and in which words."""

import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from provider.runtime.engine import Engine
from provider.runtime.images import Images, explain
from provider.runtime.port import Credentials, StartFailed, Unknown
from tests.provider.runtime.registry import LOGIN, Registry, registry

pytestmark = pytest.mark.docker


@pytest.fixture
def engine(docker_url: str) -> Iterator[Engine]:
    """The shared engine."""
    with contextlib.closing(Engine(docker_url)) as made:
        yield made


@pytest.fixture
def shop(engine: Engine) -> Iterator[Registry]:
    """A registry; what was pulled from it is removed again."""
    with registry(engine.api.version()["Arch"], secrets.token_hex(8)) as served:
        yield served
        for image in engine.api.images():
            for tag in image.get("RepoTags") or []:
                if tag.startswith(served.host):
                    engine.api.remove_image(tag, force=True)


def refused(images: Images, reference: str, credentials: Credentials | None = None) -> str:
    """Why an image is refused."""
    with pytest.raises(StartFailed) as caught:
        images.ensure(reference, credentials)
    assert caught.value.kind == "image_failed"
    return caught.value.detail


def test_an_image_is_pulled_and_known_by_its_digest(engine: Engine, shop: Registry) -> None:
    """A pulled image has the registry's digest, and is the same by that digest."""
    images = Images(engine)
    found = images.ensure(f"{shop.host}/public/app:1", None)
    assert found.digest == shop.digest
    assert found.id.startswith("sha256:")
    assert images.ensure(f"{shop.host}/public/app:1", None) == found
    assert images.ensure(f"{shop.host}/public/app@{shop.digest}", None).digest == shop.digest


def test_only_the_tenants_login_is_used(engine: Engine, shop: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's login is never sent; a private image that one tenant pulled is not another's."""
    (tmp_path / "config.json").write_text(json.dumps({"auths": {shop.host: {"auth": "YWxpY2U6b3BlbiBzZXNhbWU="}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    shop.closed = True
    reference = f"{shop.host}/private/app:1"
    assert "login" in refused(Images(engine), reference)
    assert ":".join(LOGIN) not in shop.logins
    images = Images(engine)
    assert images.ensure(reference, Credentials(shop.host, *LOGIN)).digest == shop.digest
    assert ":".join(LOGIN) in shop.logins
    refused(images, reference)
    refused(images, reference, Credentials(shop.host, "mallory", "guess"))


def test_what_cannot_be_had_is_told_in_clear_words(engine: Engine, shop: Registry) -> None:
    """An image that is not there, a pull that stands still, and no reference at all."""
    assert "no such image" in refused(Images(engine), f"{shop.host}/absent/app:1")
    assert "no progress" in refused(Images(engine, silence_s=3), f"{shop.host}/stuck/app:1")
    for reference in ("", "sha256:" + "a" * 64, "a" * 64, "-x", "a b", "../x", "app:1\n"):
        refused(Images(engine), reference)


def test_a_local_image_is_known_by_its_id(engine: Engine, test_image: str) -> None:
    """An image that never was in a registry is offered by name; its id is its digest."""
    found = Images(engine).ensure(test_image, None)
    assert found.digest == found.id


def test_no_engine_is_not_no_image() -> None:
    """An engine that is away is unknown, not a missing image."""
    with contextlib.closing(Engine("unix:///nowhere/docker.sock")) as engine, pytest.raises(Unknown):
        Images(engine).ensure("app:1", None)


def test_a_secret_is_not_shown() -> None:
    """A login does not print its password, and known errors are explained."""
    assert "open" not in repr(Credentials("h", *LOGIN))
    assert explain("toomanyrequests: slow down").startswith("the registry's pull limit")
    assert explain("strange") == "strange"
