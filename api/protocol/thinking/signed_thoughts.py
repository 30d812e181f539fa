"""`encrypted_content` of reasoning items: the thought in an opaque form that only this installation can make.

It is for clients that store nothing (`store: false`) and send the item back. The key belongs to one project and one
model, so that no other's is accepted. Equal thoughts have equal forms, and every replay gives the same bytes.
"""

import base64
import binascii
import hashlib
import hmac
import zlib
from collections.abc import Sequence

from storage.errors import InvalidEncryptedContent

_VERSION = "tpt1"
_SIGNATURE_BYTES = 32
# Of a thought; no model writes more.
_MAX_BYTES = 16 * 1024 * 1024


def thought_key(pepper: bytes, project: str, model: str) -> str:
    """The key of a project's thoughts of a model, in hexadecimal."""
    message = "\0".join(("reasoning", project, model)).encode()
    return hmac.digest(pepper, message, hashlib.sha256).hex()


def signed_thought(text: str, key: str) -> str:
    """The opaque form of a thought."""
    body = zlib.compress(text.encode(), 6)
    signature = hmac.digest(bytes.fromhex(key), body, hashlib.sha256)
    return f"{_VERSION}.{base64.urlsafe_b64encode(signature + body).decode().rstrip('=')}"


def read_thought(content: str, keys: Sequence[str], *, param: str) -> str:
    """The thought of an opaque form. Raises InvalidEncryptedContent for one that none of these keys made."""
    if not keys:
        raise InvalidEncryptedContent("This server has no secret that signs encrypted content.", param=param)
    version, _, data = content.partition(".")
    try:
        signed = base64.b64decode(data + "=" * (-len(data) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        signed = b""
    signature, body = signed[:_SIGNATURE_BYTES], signed[_SIGNATURE_BYTES:]
    if version != _VERSION or not any(_is_signed(signature, body, key) for key in keys):
        raise InvalidEncryptedContent(
            "The encrypted content could not be verified: it is not of this server, project and model.", param=param
        )
    return zlib.decompressobj().decompress(body, _MAX_BYTES).decode()


def _is_signed(signature: bytes, body: bytes, key: str) -> bool:
    return hmac.compare_digest(signature, hmac.digest(bytes.fromhex(key), body, hashlib.sha256))
