"""Whether a Ray cluster answers at an address, asked within seconds before Ray itself connects.

Ray tries an address at which nothing listens again and again, for a quarter of an hour, and tells
of a token that is missing or wrong only in its log; a run must not take either for a slow start.
"""

from __future__ import annotations

import os
from typing import Any

from specs.errors import Finding, InputError, Where

ANSWER_S = 5.0
"""How long a head may take to answer; it does nothing else meanwhile that takes long."""

ASKED = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""The question with which Ray's own clients begin; an empty message asks it."""

HINT = "Name the cluster's head, such as 10.0.0.5:6379 (its `ray start --head` says so)"
TOKEN_HINT = (
    "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a file with the cluster's token, which "
    "`ray get-auth-token` prints on its head."
)


def check_address(address: str) -> None:
    """Refuse an address that no cluster can be joined at.

    Args:
        address: as `ray.init` takes it: `host:port`, or `auto` for this machine's.

    Raises:
        InputError: saying what answers there in place of a cluster, or what it asks for.
    """
    if address == "local":
        return
    if "://" in address:
        raise _refusal(address, "is no cluster's address", _other_hint(address))
    _ask(address, _host_and_port(address))


def _host_and_port(address: str) -> str:
    from ray._private.authentication import authentication_token_setup as setup
    from ray._private.services import canonicalize_bootstrap_address

    if address == "auto":  # alone there Ray sends the home folder's token without being told to
        setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        found = canonicalize_bootstrap_address(address)
    except ConnectionError:
        message = "no Ray is running on this machine"
        raise _refusal(address, message, f"{HINT}, or start one with `ray start`.") from None
    except ValueError:
        raise _refusal(address, "is no cluster's address", f"{HINT}.") from None
    except OSError as error:
        raise _refusal(address, f"is no host that is known here: {error}", f"{HINT}.") from None
    return str(found or address)


def _other_hint(address: str) -> str:
    if address.startswith("ray://"):
        return (
            "A Ray Client's run would write its folder on another machine than its nodes do. "
            "Submit it (ray job submit --address http://HEAD:8265), or start it on a node of the "
            "cluster with cluster.address=auto."
        )
    return f"This is where jobs go (ray job submit --address {address}). {HINT}."


def _ask(address: str, host: str) -> None:
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.exceptions import AuthenticationError

    try:
        with init_grpc_channel(host) as channel:
            channel.unary_unary(ASKED)(b"", timeout=ANSWER_S)
    except AuthenticationError as error:  # raised here, before anything is sent
        raise _refusal(address, f"no token can be sent: {error.message}", TOKEN_HINT) from None
    except grpc.RpcError as error:
        raise answer_refused(address, error.code().name, error.details() or "") from None


def answer_refused(address: str, status: str, details: str) -> InputError:
    """Say what an answer that is none means.

    Args:
        status: of gRPC, by its name.
        details: in gRPC's words.
    """
    if status == "UNAUTHENTICATED":
        sent = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
        missing = "and the one that was sent is another" if sent else "and none was sent"
        return _refusal(address, f"the cluster there asks for a token, {missing}", TOKEN_HINT)
    if status == "UNIMPLEMENTED":
        message = "what answers there is no cluster's head"
        return _refusal(address, message, f"{HINT}; other ports of Ray's are for other things.")
    if status == "DEADLINE_EXCEEDED":
        message = f"no Ray cluster answers there within {ANSWER_S:g} s"
        return _refusal(address, message, f"{HINT}. A firewall may be in between.")
    if "parsing HTTP/2" in details:
        message = "what answers there is a web server, such as a head's dashboard"
        return _refusal(address, message, _other_hint(f"http://{address}"))
    why = details.rpartition(": ")[2].strip("]") or status
    return _refusal(address, f"no Ray cluster answers there ({why})", f"{HINT}.")


def _refusal(address: str, message: str, hint: str) -> InputError:
    key: Any = "RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") == address else "cluster.address"
    return InputError([Finding(Where(f"{key}={address}"), message, hint)])
