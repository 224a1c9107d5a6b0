"""What the URLs mean, and what is said about those that mean nothing."""

import pytest

from taskharbor.drivers.redis import connect
from taskharbor.drivers.redis.address import TIMEOUT_SECONDS, parse
from taskharbor.errors import ConfigurationError


def test_a_plain_url_names_host_port_database_and_namespace() -> None:
    address = parse("redis://example.org:7000/3?namespace=shop")
    assert (address.kind, address.nodes) == ("single", (("example.org", 7000),))
    assert address.settings["db"] == 3
    assert address.prefix(0) == "{shop}:"


def test_what_is_not_said_has_defaults() -> None:
    address = parse("redis://")
    assert address.nodes == (("localhost", 6379),)
    assert (address.settings["db"], address.prefix(0), address.shards) == (0, "{th}:", 1)
    assert address.settings["socket_timeout"] == TIMEOUT_SECONDS
    assert "ssl" not in address.settings


def test_accounts_are_unquoted_and_never_shown() -> None:
    address = parse("redis://us%40er:pa%2Fss@h:1/0?namespace=n")
    assert (address.settings["username"], address.settings["password"]) == ("us@er", "pa/ss")
    assert address.url == "redis://h:1/0?namespace=n"
    sentinel = parse("redis+sentinel://:pw@h:1/m?sentinel_password=secret&timeout=2")
    assert "secret" not in sentinel.url
    assert "pw" not in sentinel.url
    assert sentinel.sentinel_settings["password"] == "secret"
    assert sentinel.settings["password"] == "pw"


@pytest.mark.parametrize("character", "/?#")
@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel", "redis+cluster"])
def test_a_password_that_is_not_quoted_is_not_told(scheme: str, character: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(f"{scheme}://:hush{character}secret@h:1/0")
    assert "%2F" in str(refused.value)
    assert "hush" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_no_namespace_is_the_shard_of_another() -> None:
    shards = parse("redis://?namespace=shop&shards=2")
    with pytest.raises(ConfigurationError, match="shop:1"):
        parse(f"redis://?namespace={shards.prefix(1)[1:-2]}")
    assert parse("redis://?namespace=shop:eu1").prefix(0) == "{shop:eu1}:"


def test_tls_is_verified_wherever_it_is_asked_for() -> None:
    for url in (
        "rediss://h?ca=/ca.pem",
        "redis+cluster://a,b?tls=1&ca=/ca.pem",
        "redis+sentinel://a/m?tls=1&ca=/ca.pem",
    ):
        settings = parse(url).settings
        assert settings["ssl"] is True
        assert settings["ssl_cert_reqs"] == "required"
        assert settings["ssl_check_hostname"] is True
        assert settings["ssl_ca_certs"] == "/ca.pem"


def test_a_cluster_and_sentinels_have_many_hosts() -> None:
    cluster = parse("redis+cluster://a:1,[::1]:2,c?shards=3")
    assert cluster.nodes == (("a", 1), ("::1", 2), ("c", 6379))
    assert [cluster.prefix(shard) for shard in range(3)] == ["{th:0}:", "{th:1}:", "{th:2}:"]
    sentinel = parse("redis+sentinel://a,b:3/mymaster/2")
    assert sentinel.nodes == (("a", 26379), ("b", 3))
    assert (sentinel.service, sentinel.settings["db"]) == ("mymaster", 2)


def test_a_socket_has_a_path() -> None:
    address = parse("unix:///run/redis.sock?db=4")
    assert address.settings["unix_socket_path"] == "/run/redis.sock"
    assert address.settings["db"] == 4


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://h?nmespace=x", "'nmespace'"),
        ("redis://h?namespace={x}", "namespace"),
        ("redis://h?shards=0", "shards='0'"),
        ("redis://h?timeout=soon", "timeout='soon'"),
        ("redis://h/one", "db="),
        ("redis://h/1/2", "too many parts"),
        ("redis://a,b", "redis\\+sentinel"),
        ("redis://h:port", "host:port"),
        ("redis+sentinel://h", "NAME"),
        ("redis+cluster://h/1", "namespace="),
    ],
)
def test_a_url_that_cannot_work_is_refused_by_name(url: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        connect(url)
