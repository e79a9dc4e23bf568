"""Connection strings of Application Insights."""

from __future__ import annotations

import pytest

from azureml_inference_server_http.launch.connection_string import ConnectionStringError, is_key, is_url, parse

KEY = "00000000-0000-4000-8000-00000000000b"


@pytest.mark.parametrize(
    ("text", "key", "endpoint"),
    [
        (f"InstrumentationKey={KEY}", KEY, None),
        (f"InstrumentationKey={KEY.upper()};", KEY, None),
        (f" instrumentationkey = {KEY} ;INGESTIONENDPOINT=https://a.b/ ; ", KEY, "https://a.b"),
        (f"InstrumentationKey={KEY};EndpointSuffix=x.y", KEY, "https://dc.x.y"),
        (f"InstrumentationKey={KEY};EndpointSuffix=.x.y;Location=west", KEY, "https://west.dc.x.y"),
        (f"InstrumentationKey={KEY};IngestionEndpoint=http://a/;EndpointSuffix=x.y", KEY, "http://a"),
        (f"InstrumentationKey={KEY};Unknown=a=b;LiveEndpoint=zzz;ApplicationId=1;AADAudience=x", KEY, None),
        (f"Authorization=IKEY;InstrumentationKey={KEY}", KEY, None),
        ("IngestionEndpoint=https://a", None, "https://a"),
        ("", None, None),
    ],
)
def test_what_a_string_says(text: str, key: str | None, endpoint: str | None) -> None:
    assert parse(text) == (key, endpoint)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("InstrumentationKey=secret", "its InstrumentationKey is no UUID"),
        (f"InstrumentationKey={KEY};secret", "part 2 has no equals sign"),
        (f"InstrumentationKey={KEY};IngestionEndpoint=secret", "its IngestionEndpoint is no URL"),
        (f"InstrumentationKey={KEY};IngestionEndpoint=http://a:secret", "its IngestionEndpoint is no URL"),
        (f"InstrumentationKey={KEY};EndpointSuffix=a/secret", "EndpointSuffix or Location"),
        (f"InstrumentationKey={KEY};EndpointSuffix=a;Location=secret/", "EndpointSuffix or Location"),
        (f"InstrumentationKey={KEY};Authorization=secret", "its Authorization is not ikey"),
        ("secret" * 1000, "longer than 4096"),
    ],
)
def test_what_cannot_be_used_is_said_without_the_string(text: str, why: str) -> None:
    with pytest.raises(ConnectionStringError, match=why) as caught:
        parse(text)
    assert "secret" not in str(caught.value)


def test_keys_and_urls() -> None:
    assert is_key(KEY)
    assert is_key(KEY.upper())
    assert not is_key(KEY + "0")
    assert [is_url(text) for text in ("https://a", "http://a:1/b", "a", "ftp://a", "http://", "http://a b", "")] == [
        True,
        True,
        *[False] * 5,
    ]
