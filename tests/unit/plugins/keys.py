"""Public keys that nobody has the other half of."""

from __future__ import annotations

import base64


def _packed(*strings: bytes) -> str:
    return base64.b64encode(b"".join(len(one).to_bytes(4, "big") + one for one in strings)).decode()


def ed25519(seed: int = 1) -> str:
    return f"ssh-ed25519 {_packed(b'ssh-ed25519', bytes([seed] * 32))}"


def rsa(bits: int, seed: int = 1) -> str:
    modulus = ((1 << (bits - 1)) | seed).to_bytes(bits // 8 + 1, "big")
    packed = _packed(b"ssh-rsa", b"\1\0\1", modulus)
    return f"ssh-rsa {packed}"


def ecdsa() -> str:
    return f"ecdsa-sha2-nistp256 {_packed(b'ecdsa-sha2-nistp256', b'nistp256', bytes([4] * 65))}"
