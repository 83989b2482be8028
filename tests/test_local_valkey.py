"""The embedded Valkey, which other tests take away in the middle of a purchase."""

from pathlib import Path

import pytest
import redis

from offers_project.local.children import ChildFailed
from offers_project.local.ports import answers
from offers_project.local.valkey import ValkeyProcess


def ping(url: str) -> bool:
    with redis.Redis.from_url(url, retry=None) as client:
        return bool(client.ping())


def test_it_comes_back_on_its_port_after_a_crash(private_valkey: ValkeyProcess) -> None:
    url, port = private_valkey.url, private_valkey.port
    assert ping(url)
    private_valkey.kill()
    with pytest.raises(redis.ConnectionError):
        ping(url)
    private_valkey.start()
    assert private_valkey.port == port
    assert ping(url)


def test_it_takes_the_port_that_it_is_given(tmp_path: Path, private_valkey: ValkeyProcess) -> None:
    private_valkey.stop()
    other = ValkeyProcess(private_valkey.port, folder=tmp_path / "other")
    other.start()
    try:
        assert other.url == private_valkey.url
        assert ping(other.url)
    finally:
        assert other.stop()


def test_a_port_that_somebody_has_is_named_with_the_log(
    tmp_path: Path, private_valkey: ValkeyProcess
) -> None:
    other = ValkeyProcess(private_valkey.port, folder=tmp_path / "other")
    with pytest.raises(ChildFailed, match="Valkey did not start"):
        other.start()
    other.stop()
    assert ping(private_valkey.url)


def test_a_password_is_asked_for_and_written_where_only_its_owner_reads(tmp_path: Path) -> None:
    valkey = ValkeyProcess(folder=tmp_path, password="secret")
    valkey.start()
    try:
        assert ping(valkey.url)
        with pytest.raises(redis.AuthenticationError):
            ping(valkey.url.replace(":secret@", ""))
        assert (tmp_path / "valkey.conf").stat().st_mode & 0o077 == 0
    finally:
        valkey.stop()


def test_it_keeps_data_over_a_stop_only_if_asked(tmp_path: Path) -> None:
    for keeps_data in (True, False):
        valkey = ValkeyProcess(folder=tmp_path / str(keeps_data), keeps_data=keeps_data)
        try:
            valkey.start()
            with redis.Redis.from_url(valkey.url) as client:
                client.set("name", "value")
            valkey.stop()
            valkey.start()
            with redis.Redis.from_url(valkey.url) as client:
                assert (client.get("name") == b"value") is keeps_data
        finally:
            valkey.stop()


def test_stopping_twice_and_killing_what_is_gone_is_fine(private_valkey: ValkeyProcess) -> None:
    assert private_valkey.port is not None
    assert private_valkey.stop()
    assert private_valkey.stop()
    private_valkey.kill()
    assert not answers(private_valkey.port)
