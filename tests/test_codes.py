from __future__ import annotations

import pytest

from wse import CloseCode, ErrorCode, Reason, Status
from wse.codes import comes_back, suspends

# As the wire has them; the library's own follow.
WIRE_ERRORS = {
    "INVALID_CRA_HANDLER": "wse.client.invalid-cra-handler",
    "RP_TIMEOUT": "wse.client.rp.timeout",
    "RP_DISCONNECT": "wse.client.rp.disconnect",
    "CLIENT_ALREADY_CONNECTED": "wse.client.already-connected",
    "WS_CLIENT_ERROR": "wse.client.ws-error",
    "NOT_AUTHORIZED": "wse.not-authorized",
    "CONNECTION_NOT_READY": "wse.client.not-ready",
    "NO_CLIENT_CONNECTION": "wse.server.client.connection-missing",
    "IDENTIFY_HANDLER_MISSING": "wse.server.auth.identify-handler-missing",
    "INVALID_CRA_GENERATOR": "wse.server.auth.invalid-cra-generator",
    "RP_EXECUTION_FAILED": "wse.server.rp.failed",
    "RP_NOT_REGISTERED": "wse.server.rp.not-registered",
    "RP_ALREADY_REGISTERED": "wse.server.rp.already-registered",
    "PROTOCOL_VIOLATION": "wse.server.protocol-violation",
    "CONNECTION_ERROR": "wse.server.connection-error",
    "MESSAGE_PROCESSING_ERROR": "wse.server.msg-processing-error",
}
OWN_ERRORS = {
    "OUTBOX_FULL": "wse.client.outbox-full",
    "SOLVER_MISSING": "wse.client.solver-missing",
    "CHALLENGE_ROUNDS": "wse.server.auth.challenge-rounds",
    "INVALID_PAYLOAD": "wse.invalid-payload",
    "MESSAGE_TOO_LARGE": "wse.message-too-large",
}
WIRE_REASONS = {
    "": 1000,
    "wse.not-authorized": 1000,
    "wse.protocol-error": 1000,
    "wse.clients-concurrency": 1000,
    "wse.by-client": 1000,
    "wse.by-server": 1000,
    "jump": 4000,
}
OWN_REASONS = {
    "wse.replaced": 1000,
    "wse.seats-full": 1000,
    "wse.server-closing": 1012,
    "wse.authentication-timeout": 1013,
    "wse.heartbeat-lost": 1006,
    "wse.slow-consumer": 1013,
    "wse.rate-limit": 1013,
    "wse.message-too-large": 1009,
}


def test_error_codes_are_those_of_the_wire_and_five_more() -> None:
    assert {code.name: code.value for code in ErrorCode} == WIRE_ERRORS | OWN_ERRORS


def test_reasons_travel_with_their_close_code() -> None:
    assert {reason.value: reason.close_code for reason in Reason} == WIRE_REASONS | OWN_REASONS


def test_reasons_and_codes_are_the_plain_text_that_travels() -> None:
    assert f"{Reason.BY_SERVER}" == "wse.by-server"
    assert Reason("wse.by-server") is Reason.BY_SERVER
    assert f"{ErrorCode.RP_TIMEOUT}" == "wse.client.rp.timeout"
    assert not Reason.NO_REASON


def test_close_codes_are_those_of_rfc_6455_and_one_more() -> None:
    standard = {1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 1014}
    assert {code.value for code in CloseCode} == standard | {4000}


@pytest.mark.parametrize("code", [*CloseCode, 1004, 1010, 1015, 3000, 4001, 4999])
def test_a_client_comes_back_after_the_codes_of_the_wire_and_after_no_other(code: int) -> None:
    assert comes_back(code) == (code in {1005, 1006, 1011, 1012, 1013, 1014, 4000})


@pytest.mark.parametrize("code", [*CloseCode, 1004, 1010, 1015, 3000, 4001, 4999])
def test_a_session_outlasts_a_connection_that_was_lost_and_a_page_that_goes(code: int) -> None:
    assert suspends(code) == (code in {1001, 1005, 1006, 1011, 1012, 1013, 1014})


def test_states_of_a_client() -> None:
    names = ["IDLE", "CONNECTING", "READY", "OFFLINE", "RE_CONNECTING"]
    assert [status.name for status in Status] == [status.value for status in Status] == names
