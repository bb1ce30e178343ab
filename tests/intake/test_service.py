"""What senders are told, and what stands in the log for it.

Laws checked: L1, L7. Faults: a full disk, a failed sync, hostile bodies, senders that go away.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dropless.errors import ConnectorError

from .service import Service, serving, serving_all, source, stored, values


def event(number: int, **more: Any) -> bytes:
    made = {"specversion": "1.0", "id": str(number), "source": "/shop", "type": "click", **more}
    return json.dumps({k: v for k, v in made.items() if v is not None}).encode()


def test_one_object_an_array_and_lines_are_taken_with_their_very_bytes(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        assert service.post(b' {"a": 1.0, "b":1e40}\n').body == {"accepted": 1, "duplicates": 0}
        array = b'\xef\xbb\xbf[ {"n": 12345678901234567890123, "n2": 1.10} ,{"s":"]\\"[,"}\n, [1,[2]], 7,"\xc3\xa9"]'
        assert service.post(array).body["accepted"] == 5
        lines = b'{"l":1}\r\n\n  \n{"l" : 2}'
        assert service.post(lines, Content_Type="application/x-ndjson; charset=utf-8").body["accepted"] == 2
        assert service.post(b'{"u":1}\n{"u":2}\n', Content_Type="text/plain").body["accepted"] == 2
        assert service.post(b"[]").body["accepted"] == 0
    assert values(tmp_path) == [
        b'{"a": 1.0, "b":1e40}', b'{"n": 12345678901234567890123, "n2": 1.10}', b'{"s":"]\\"[,"}', b"[1,[2]]", b"7",
        b'"\xc3\xa9"', b'{"l":1}', b'{"l" : 2}', b'{"u":1}', b'{"u":2}',
    ]  # fmt: skip


def test_malformed_events_are_kept_beside_good_ones(tmp_path: Path) -> None:
    """L7: whoever sends them may have no other copy. The pipeline makes them dead letters."""
    with serving(tmp_path) as service:
        told = service.post(b'{"a":1}\n\n{"a":\n{"a":3}', Content_Type="application/x-ndjson")
        assert told.status == 202
        assert told.body["accepted"] == 3
        assert told.body["malformed"] == 1
        assert told.body["first_malformed"][0].startswith("line 3: it is not JSON")
        assert service.post(b"[1, 2").body["malformed"] == 1
        assert service.post(b"\xff\xfe").body["malformed"] == 1
        deep = b"[" * 100_000 + b"]" * 100_000
        assert service.post(deep).body["malformed"] == 1
        assert service.post(b"").status == 400
    assert values(tmp_path) == [b'{"a":1}', b'{"a":', b'{"a":3}', b"[1, 2", b"\xff\xfe", deep]


def test_malformed_requests_are_refused_whole_where_asked(tmp_path: Path) -> None:
    with serving(tmp_path, malformed="refuse") as service:
        told = service.post(b'{"a":1}\n{"a":\n', Content_Type="application/x-ndjson")
        assert told.status == 400
        assert "line 2: it is not JSON" in told.body["message"]
        assert service.post(b'{"a":1,"a":2}').status == 400
        assert service.post(b"[1]").body["message"] == "element 1: it is JSON, but no object"
        assert service.post(b'[{"a":1},3,4]').body["message"].startswith("2 of 3 are malformed, nothing was stored")
        assert service.post(event(1, id=None), Content_Type="application/cloudevents+json").status == 400
        assert service.post(b'{"a":1}').status == 202
    assert values(tmp_path) == [b'{"a":1}']


def test_cloudevents_come_in_all_modes_and_once(tmp_path: Path) -> None:
    structured, batch = "application/cloudevents+json; charset=UTF-8", "application/cloudevents-batch+json"
    binary = {"Ce_Specversion": "1.0", "Ce_Id": "3", "Ce_Source": "/shop", "Ce_Type": "caf%C3%A9"}
    with serving(tmp_path) as service:
        assert service.post(event(1), Content_Type=structured).body["accepted"] == 1
        assert service.post(event(1), Content_Type=structured).body == {"accepted": 0, "duplicates": 1}
        many = b"[" + event(1) + b"," + event(2) + b"," + event(2) + b"]"
        assert service.post(many, Content_Type=batch).body == {"accepted": 1, "duplicates": 2}
        assert service.post(b' {"n": 1.10} ', **binary).body["accepted"] == 1
        assert service.post(b"{}", **binary).body == {"accepted": 0, "duplicates": 1}
        assert service.post(b"plain", **{**binary, "Ce_Id": "4", "Content_Type": "text/plain"}).status == 202
        assert service.post(b"\x00\xff", **{**binary, "Ce_Id": "5", "Content_Type": "image/png"}).status == 202
        assert service.post(b"", **{**binary, "Ce_Id": "6"}).status == 202
    found = [json.loads(value) for value in values(tmp_path)]
    assert [e["id"] for e in found] == ["1", "2", "3", "4", "5", "6"]
    assert b'"data":{"n": 1.10}}' in values(tmp_path)[2]
    assert found[2]["type"] == "café"
    assert found[3]["data"] == "plain"
    assert base64.b64decode(found[4]["data_base64"]) == b"\x00\xff"
    assert "data" not in found[5]


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": None}, {"source": ""}, {"type": 7}, {"specversion": "0.3"}, {"Bad": "x"}, {"time": "yesterday"},
        {"time": "2026-01-01T00:00:00"}, {"ext": {"a": 1}}, {"source": "a b"}, {"data": 1, "data_base64": ""},
    ],
)  # fmt: skip
def test_what_is_no_cloudevent_is_kept_as_suspect(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with serving(tmp_path) as service:
        told = service.post(event(1, **wrong), Content_Type="application/cloudevents+json")
        assert told.body["malformed"] == 1, told.text
    [frame] = stored(tmp_path)
    assert json.loads(frame.around)["suspect"] == "cloudevents"


def test_same_key_is_stored_once_and_answered_again_also_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        assert service.post(b'[{"a":1},{"a":2}]', Idempotency_Key="k").body == {"accepted": 2, "duplicates": 0}
        assert service.post(b'[{"a":1},{"a":2}]', Idempotency_Key="k").body == {"accepted": 0, "duplicates": 2}
    with serving(tmp_path) as service:
        assert service.post(b'[{"a":1},{"a":2}]', Idempotency_Key="k").body == {"accepted": 0, "duplicates": 2}
        assert service.post(b'{"a":9}', Idempotency_Key="k").status == 422, "another event must not pass for this one"
        assert service.post(b'{"a":9}', Idempotency_Key="").status == 400
    for path in (tmp_path / "intake/clicks").glob("keys.sqlite*"):
        path.write_bytes(b"damaged" * 1000)
    with serving(tmp_path) as service:
        assert service.post(b'[{"a":1},{"a":2}]', Idempotency_Key="k").body == {"accepted": 0, "duplicates": 2}
    assert len(stored(tmp_path)) == 2


def test_retry_that_meets_its_own_first_try_waits_for_it(tmp_path: Path) -> None:
    """Many at once with one key: one is stored, all are told so."""
    statuses: list[int] = []
    with serving(tmp_path, lambda point, name: time.sleep(0.2) if point == "intake.sync" else None) as service:
        senders = [
            threading.Thread(target=lambda: statuses.append(service.post(b'{"a":1}', Idempotency_Key="k").status))
            for _ in range(8)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    assert statuses == [202] * 8
    assert values(tmp_path) == [b'{"a":1}']


def test_compressed_bodies(tmp_path: Path) -> None:
    body = b'{"a":1}'
    zstd = pa.compress(body, codec="zstd", asbytes=True)
    with serving(tmp_path, max_bytes="1MiB") as service:
        assert service.post(gzip.compress(body), Content_Encoding="gzip").status == 202
        assert (
            service.post(gzip.compress(b'[{"b":1},') + gzip.compress(b'{"b":2}]'), Content_Encoding="gzip").status
            == 202
        )
        assert service.post(zstd, Content_Encoding="zstd").status == 202
        for bad in (gzip.compress(body)[:-9], b"none"):
            assert service.post(bad, Content_Encoding="gzip").status == 400
        for bad in (zstd[:-3], b"none"):
            assert service.post(bad, Content_Encoding="zstd").status == 400
        assert service.post(b"x", Content_Encoding="br").status == 415
        bomb = b'"' + b"a" * (64 << 20) + b'"'
        assert service.post(gzip.compress(bomb), Content_Encoding="gzip").status == 413
        assert service.post(pa.compress(bomb, codec="zstd", asbytes=True), Content_Encoding="zstd").status == 413
    assert values(tmp_path) == [body, b'{"b":1}', b'{"b":2}', body]


def test_too_long_a_body_is_refused_before_and_while_it_is_read(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * 65536

    with serving(tmp_path, max_bytes="100kB") as service:
        assert service.post(b"x" * 100_001).status == 413
        with suppress(BrokenPipeError, ConnectionResetError):  # The answer came before all was sent.
            assert service.post(pieces(), Transfer_Encoding="chunked").status == 413
        assert service.post(b'{"a":1}').status == 202
    assert values(tmp_path) == [b'{"a":1}']


def test_tokens_tell_senders_apart(tmp_path: Path) -> None:
    auth = {"tokens": {"shop": "s3cret", "app": "other"}}
    with serving(tmp_path, auth=auth) as service:
        for wrong in ("", "Bearer", "Bearer s3cre", "Bearer s3crett", "Basic s3cret", "Bearer é"):
            told = service.post(b'{"a":1}', Authorization=wrong)
            assert (told.status, told.headers["www-authenticate"]) == (401, "Bearer")
            assert "s3cret" not in told.text.decode()
        assert service.post(b'{"a":1}', Authorization="Bearer s3cret", Idempotency_Key="1").status == 202
        assert service.post(b'{"a":2}', Authorization="bearer other", Idempotency_Key="1").body["accepted"] == 1
    assert [json.loads(f.around)["sender"] for f in stored(tmp_path)] == ["shop", "app"]


def test_signature_of_the_body(tmp_path: Path) -> None:
    body = b'{"a":1}'
    good = hmac.new(b"key", body, "sha256").hexdigest()
    with serving(tmp_path, auth={"hmac": {"secret": "key"}}) as service:
        assert service.post(body, X_Hub_Signature_256=f"sha256={good}").status == 202
        for wrong in ("", good, "sha256=", "sha256=zz", f"sha256={good[:-2]}00", f"sha256={good[:-2]}"):
            assert service.post(body, X_Hub_Signature_256=wrong).status == 401
        assert service.post(body + b" ", X_Hub_Signature_256=f"sha256={good}").status == 401
        assert service.post(body).status == 401
    assert values(tmp_path) == [body]


def test_standard_webhooks_are_verified_and_stored_once(tmp_path: Path) -> None:
    key = hashlib.sha256(b"k").digest()
    secret = "whsec_" + base64.b64encode(key).decode()

    def signed(at: float, body: bytes) -> dict[str, str]:
        text = b"msg_1.%d." % at + body
        made = base64.b64encode(hmac.new(key, text, "sha256").digest()).decode()
        return {"Webhook_Id": "msg_1", "Webhook_Timestamp": str(int(at)), "Webhook_Signature": f"v1,AAAA v1,{made}"}

    now = time.time()
    with serving(tmp_path, auth={"hmac": {"secret": secret, "scheme": "standard"}}) as service:
        assert service.post(b'{"a":1}', **signed(now, b'{"a":1}')).body["accepted"] == 1
        assert service.post(b'{"a":1}', **signed(now + 1, b'{"a":1}')).body["duplicates"] == 1
        assert service.post(b'{"a":2}', **signed(now, b'{"a":1}')).status == 401
        assert service.post(b'{"a":1}', **signed(now - 900, b'{"a":1}')).status == 401
        assert service.post(b'{"a":1}', **{**signed(now, b'{"a":1}'), "Webhook_Id": "msg_2"}).status == 401
    assert values(tmp_path) == [b'{"a":1}']


def test_senders_wait_while_too_much_is_not_committed(tmp_path: Path) -> None:
    """L11: what the pipeline does not keep up with is bounded; a waiting event is still its sender's."""
    clicks = source(tmp_path, max_backlog="4kB")
    with serving_all([clicks]) as service:
        told = service.post(b'"%s"' % (b"x" * 5000))
        until = time.monotonic() + 20
        while told.status == 202:
            assert time.monotonic() < until
            told = service.post(b'{"a":1}')
        assert (told.status, told.body["error"], told.headers["retry-after"]) == (429, "backlog", "1")
        assert service.ask("GET", "/readyz").status == 503
        clicks.shelf.note_reader("p.clicks", 10**9)
        # Only whole files count as committed, so the present one is waited for as long as it is there.
        assert service.ask("GET", "/healthz").status == 200


def test_full_disk_is_told_and_nothing_is_acknowledged(tmp_path: Path) -> None:
    with serving(tmp_path, min_free=str(1 << 60)) as service:
        told = service.post(b'{"a":1}')
        assert (told.status, told.body["error"]) == (507, "disk_full")
        assert int(told.headers["retry-after"]) > 0
    assert stored(tmp_path) == []


def test_failed_sync_is_no_acknowledgement(tmp_path: Path) -> None:
    failing = threading.Event()

    def reached(point: str, name: str) -> None:
        if point == "intake.sync" and failing.is_set():
            failing.clear()
            raise OSError(5, "planted")

    with serving(tmp_path, reached) as service:
        failing.set()
        assert service.post(b'{"a":1}', Idempotency_Key="k").status == 503
        until = time.monotonic() + 20
        while (told := service.post(b'{"a":1}', Idempotency_Key="k")).status != 202:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert told.body["accepted"] == 1
    assert values(tmp_path) == [b'{"a":1}']


def test_sender_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        for sent in (
            b"",
            b"POST /clicks HTTP/1.1\r\n",
            b"POST /clicks HTTP/1.1\r\nContent-Length: 50\r\n\r\n{",
            b"\x00" * 99,
        ):
            with socket.create_connection((service.host, service.port)) as connection:
                connection.sendall(sent)
        assert service.post(b'{"a":1}').status == 202
        assert service.ask("GET", "/metrics").text.count(b"in_flight_bytes{") == 1
        assert b'in_flight_bytes{path="/clicks"} 0' in service.ask("GET", "/metrics").text
    assert values(tmp_path) == [b'{"a":1}']


def test_other_paths_and_methods_are_refused(tmp_path: Path) -> None:
    with serving_all([source(tmp_path, path="/in/a"), source(tmp_path, name="b")]) as service:
        assert service.post(b"{}", "/in/a").status == service.post(b"{}", "/in/a/").status == 202
        assert service.post(b"{}", "/b").status == 202
        assert service.post(b"{}", "/c").status == 404
        assert service.ask("GET", "/b").status == 405
        assert service.ask("GET", "/readyz").body == {"status": "ready"}


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    def refused(*sources: Any, host: str = "127.0.0.1") -> str:
        with pytest.raises(ConnectorError) as caught, serving_all(list(sources), host=host):
            pass
        return str(caught.value)

    assert "source.bad_setting" in refused(source(tmp_path), host="0.0.0.0")
    assert "which is taken by" in refused(source(tmp_path), source(tmp_path, name="b", path="/clicks"))
    assert "the service itself" in refused(source(tmp_path, path="/metrics"))
    assert "have the same log" in refused(source(tmp_path), source(tmp_path, name="b", log="intake/clicks"))
    with serving_all([source(tmp_path, auth={"anonymous": True})], host="0.0.0.0") as service:
        assert Service(service.port).post(b"{}").status == 202
        assert "source.log_in_use" in refused(source(tmp_path))


def test_address_that_is_taken_is_named(tmp_path: Path) -> None:
    from threading import Event

    from dropless.connect.serve import Serving
    from dropless.connectors.intake.source import IntakeSource

    with serving(tmp_path) as service, pytest.raises(ConnectorError) as caught:
        other = source(tmp_path, name="other")
        IntakeSource.serve([other], Serving("127.0.0.1", service.port, print, Event()))
    assert caught.value.code == "source.address"
