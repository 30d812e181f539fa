"""HTTP clients for servers on this machine: nobody speaks TLS there, so no certificates are read for each client."""

import ssl

import httpx2
import openai

# Holds no certificates. The default one reads all of the machine's, which takes longer than most tests.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def http_client(base_url: str, *, timeout_s: float = 20.0) -> httpx2.Client:
    """A bare HTTP client."""
    return httpx2.Client(base_url=base_url, trust_env=False, timeout=timeout_s, verify=_NO_CERTIFICATES)


def sdk_client(base_url: str, *, api_key: str = "any", max_retries: int = 0) -> openai.OpenAI:
    """The unmodified SDK with its own HTTP client; without retries, which would hide a fault."""
    http = openai.DefaultHttpxClient(verify=_NO_CERTIFICATES)
    return openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=max_retries, http_client=http)
