# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Text without secrets: those that are known, and whatever looks like one.

Rather too much is taken away than too little; names stay, so that a reader sees what was there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

from ansible_collections.fushuma.production.plugins.module_utils.releases import scrubbed

REMOVED = "***"
LONGEST_KEY = 200  # lines; a private key of RSA with 16384 bits has as many
NAMES = (
    r"(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|credential|authorization|cookie|session[_-]?id"
    r"|(?:api|access|private|signing|encryption)[_-]?key)"
)
SECRET_NAME = re.compile(NAMES, re.IGNORECASE)
# A text in quotes: JSON within JSON, where both quotes have the same number of backslashes; JSON; a shell's. One that
# is cut ends with its line.
QUOTED = r"""(?P<slashes>\\+)"(?:(?!(?<!\\)(?P=slashes)")[^\n])*(?:(?P=slashes)")?|"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?"""

# What is found stays up to its first group; what follows is taken away.
PATTERNS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # Headers have words with blanks and signs: up to the end of the text in quotes, or of the line.
        rf"""(\b(?:proxy-)?(?:authorization|(?:set-)?cookie)\\*["']?[ \t]*[:=][ \t]*)(?:{QUOTED}|[^\n]+)""",
        rf"""({NAMES}[\w.-]{{0,64}}\\*["']?[ \t]*[:=][ \t]*)(?:{QUOTED}|[^\s,;&"'}}\])]+)""",
        rf"((?<![\w-])--?[\w-]{{0,64}}{NAMES}[\w-]{{0,64}}[ \t]+)(?!-)\S+",
        r"(\b(?:requirepass|masterauth|primaryauth|sentinel auth-pass \S+)[ \t]+)\S+",
        r"(\b(?:mysql|mariadb)[\w-]*\b[^\n]{0,500}?[ \t]-p)[^\s\d]\S*",
        rf"(\bidentified[ \t]+(?:(?:with|via)[ \t]+\S+[ \t]+)?(?:by|as|using)[ \t]+(?:password[ \t]+)?)(?:{QUOTED})",
        r"(://[^\s/@:\"']{0,128}:)[^\s/@\"']{1,256}(?=@)",
        r"(\b(?:bearer|basic)[ \t]+)[\w.~+/=-]{8,}",
        r"()\beyJ[\w-]+\.[\w-]+\.[\w-]*",  # a JSON Web Token (RFC 7519)
        r"()\$(?:1|5|6|y|gy|7|2[abxy]?|apr1|argon2\w*|scrypt)\$[^\s:\"']+",  # crypt(5)
        # Keys of well-known services, which have a mark of their own.
        r"()\b(?:gh[opsur]|github_pat|glpat|[sr]k_(?:live|test)|xox[abeprs]|npm|dckr_pat|hvs)[-_][\w-]{10,}",
        r"()\bA(?:KIA|SIA)[0-9A-Z]{16}\b",
    )
]
KEY_BEGIN, KEY_END = (rf"-----{word} [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----" for word in ("BEGIN", "END"))
WHOLE_KEY = re.compile(rf"({KEY_BEGIN}).*?(?:({KEY_END})|\Z)", re.DOTALL)
REST_OF_KEY = re.compile(rf"\A((?:[^\n]*\n){{0,{LONGEST_KEY}}}?[^\n]*){KEY_END}")


class Scrubber:
    """Takes secrets out of texts. ``secrets`` are values that are known to be some; short ones are left."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Know of more values."""
        self._values |= {form for secret in secrets for form in forms_of(secret)}

    def __call__(self, text: str) -> str:
        text = scrubbed(text, self._values)
        text = WHOLE_KEY.sub(rf"\1{REMOVED}\2", text)
        # The key of which a text shows but the end; its beginning was cut away.
        cut = REST_OF_KEY.match(text)
        if cut and not re.search(KEY_BEGIN, cut[1]):
            text = REMOVED + text[cut.end(1) :]
        for pattern in PATTERNS:
            text = pattern.sub(rf"\1{REMOVED}", text)
        return text


def forms_of(secret: str) -> set[str]:
    """The value as it stands in texts, in JSON and in URLs; and the lines of a long one, which programs number."""
    lines = [line for line in secret.splitlines() if len(line) >= 16 and not line.startswith("-----")]
    return {form for one in (secret.strip(), *lines) for form in (one, json.dumps(one)[1:-1], quote(one, safe=""))}


def secrets_among(environment: Iterable[str]) -> list[str]:
    """The values of ``NAME=value`` that are probably secret: their name says so, or they are a URL with a password."""
    found = []
    for pair in environment:
        name, _equals, value = pair.partition("=")
        in_url = re.search(r"://[^\s/@:]*:([^\s/@]+)@", value)
        found += [value] if SECRET_NAME.search(name) else []
        found += [in_url[1]] if in_url else []
    return found


def names_only(environment: Iterable[str]) -> list[str]:
    """``NAME=value`` without its value."""
    return [f"{pair.partition('=')[0]}={REMOVED}" for pair in environment]
