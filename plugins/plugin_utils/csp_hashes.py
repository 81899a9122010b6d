# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a Content-Security-Policy has to allow for a page, read from the page's built HTML.

Browsers compare the hash of the text between the tags, byte for byte, after the newlines were normalised (HTML
standard §13.2.3.5) and NUL characters replaced (§13.2.5.4). So the hash is only right for the HTML as it is served.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser

from ansible_collections.fushuma.production.plugins.plugin_utils.csp_policy import (
    HASH_SOURCE,
    NONCE,
    allows_inline,
    canonical,
    effective,
)


@dataclass(frozen=True, order=True)
class PageProblem:
    """Something in the page that no hash allows: the line it stands on (from 1), what it is, what to do instead."""

    line: int
    kind: str
    found: str
    fix: str

    def sentence(self) -> str:
        """The problem as whoever builds the page reads it."""
        return f"line {self.line}: {self.found}. {self.fix}."


_ORIGIN = re.compile(r"(?:([a-z][a-z0-9+.-]*):)?(?://([^/?#]*))?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class ExternalScript:
    """A ``<script src>``: its line, its URL as written, the hash sources of its integrity, whether it has a nonce."""

    line: int
    src: str
    integrity: tuple[str, ...]
    nonce: bool

    @property
    def origin(self) -> str:
        """``https://cdn.example.com``, or ``data:`` for a URL without a host; "" for a script of the site itself."""
        match = _ORIGIN.match(self.src.strip())
        scheme, host = match.groups() if match else (None, None)
        if host is None:
            return f"{scheme.lower()}:" if scheme else ""
        return f"{scheme or 'https'}://{host}".lower()


@dataclass
class HashResult:
    """What was found in a page. Hashes are sources (``'sha256-…'``), each once, in the order of the page."""

    script_src: list[str] = field(default_factory=list)
    style_src: list[str] = field(default_factory=list)
    external: list[ExternalScript] = field(default_factory=list)
    problems: list[PageProblem] = field(default_factory=list)

    @property
    def integrity(self) -> list[str]:
        """The hashes by which script-src can allow external scripts, also under 'strict-dynamic' (CSP3 §6.7.1.1)."""
        return list(dict.fromkeys(source for script in self.external for source in script.integrity))

    @property
    def origins(self) -> list[str]:
        """The other sites scripts come from."""
        return sorted({script.origin for script in self.external if script.origin})


# JavaScript MIME types (WHATWG MIME Sniffing §4.6); a script of another type is data, which CSP does not judge.
_JAVASCRIPT = frozenset(
    {
        "application/ecmascript",
        "application/javascript",
        "application/x-ecmascript",
        "application/x-javascript",
        "text/ecmascript",
        "text/javascript",
        *(f"text/javascript1.{minor}" for minor in range(6)),
        "text/jscript",
        "text/livescript",
        "text/x-ecmascript",
        "text/x-javascript",
    }
)
_JUDGED = _JAVASCRIPT | {"module", "importmap", "speculationrules"}

_HANDLER = re.compile(r"on[a-z]+", re.ASCII)
_URL_ATTRIBUTES = frozenset({"action", "data", "formaction", "href", "src", "xlink:href"})
_JAVASCRIPT_URL = re.compile(r"[\x00-\x20]*j[\t\n\r]*" + r"[\t\n\r]*".join("avascript:"), re.IGNORECASE)
_EVAL = re.compile(r"(?<![\w$.])(?:eval|new\s+Function)\s*\(|(?<![\w$])set(?:Timeout|Interval)\s*\(\s*[\"'`]")

_FIXES: Mapping[str, str] = {
    "event-handler": "Call addEventListener in a script instead",
    "javascript-url": "Use a button and an event listener in a script instead",
    "style-attribute": "Move it to a class in a stylesheet, or set it from a script through element.style",
    "eval": "Use code instead of a string of code: JSON.parse, a function, an arrow function in the timer",
    "base": "Remove it and write absolute paths, or allow its address in base-uri",
    "plugin": "Use <img>, <video>, <iframe> or a link",
    "meta-policy": "Remove it: the header is the one owner of the policy, and browsers enforce both",
    "unclosed": "Write its end: browsers run no script that has none",
    "foreign-markup": "Move it out of the <svg> or <math>: markup inside is read differently there",
    "ambiguous": "Write it otherwise: between the two, </script> does not end a script, so its hash is not certain",
    "bad-integrity": "Write sha256-, sha384- or sha512- and the base64 of the file's hash",
    "blocked-script": "Allow it in script-src, by its origin or by the hash of an integrity attribute",
}
# Things a policy can allow after all, and the directive that does: what is allowed is no problem of that page.
_INLINE_DIRECTIVES: Mapping[str, str] = {
    "event-handler": "script-src-attr",
    "javascript-url": "script-src-elem",
    "style-attribute": "style-src-attr",
}
_OTHER_DIRECTIVES: Mapping[str, str] = {"base": "base-uri", "plugin": "object-src"}


def hash_source(text: str) -> str:
    """The source that allows an inline script or style of exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _kind_of_script(attributes: Mapping[str, str | None]) -> str:
    """The type of a script as HTML's "prepare the script element" finds it, in lower case."""
    if "type" in attributes:
        return (attributes["type"] or "text/javascript").strip("\t\n\f\r ").lower()
    language = attributes.get("language")
    return f"text/{language}".lower() if language else "text/javascript"


_AMBIGUOUS = re.compile(r"<!--.*<script", re.IGNORECASE | re.DOTALL)
_COMMENT = re.compile(r"<!--(?:-?>|.*?--!?>)", re.DOTALL)  # HTML §13.2.5.43 and what follows it
# Elements whose content is text and no markup (HTML §13.2.6.4): a <script> in a <textarea> is none.
_TEXT_ELEMENTS = frozenset({"script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"})


class _Page(HTMLParser):
    """Collects one document into a HashResult.

    Where a comment and the text of an element end is decided here as browsers do: html.parser reads some of it
    differently, and not the same in every release of Python.
    """

    def __init__(self, result: HashResult, first_line: int = 1) -> None:
        super().__init__()
        self.result = result
        self.before = first_line - 1
        self.element = ""  # the <script> or <style> we are in
        self.attributes: dict[str, str | None] = {}
        self.started = 0  # the line it started on
        self.text = ""  # its content
        self.opened = ""  # the element of text that has just been opened
        self.foreign: list[str] = []  # the <svg> and <math> we are in

    @property
    def line(self) -> int:
        return self.before + self.getpos()[0]

    def problem(self, kind: str, found: str, line: int = 0) -> None:
        self.result.problems.append(PageProblem(line or self.line, kind, found, _FIXES[kind]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.foreign:  # outside of <svg> and <math> no element closes itself
            self.opened = ""
            self.handle_endtag(tag)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(reversed(attrs))  # the first of two attributes of one name counts
        self._judge_attributes(tag, attributes)
        if tag in ("script", "style"):
            self.element, self.attributes, self.started, self.text = tag, attributes, self.line, ""
        elif tag in ("svg", "math"):
            self.foreign.append(tag)
        elif tag == "base" and "href" in attributes:
            self.problem("base", f"<base href={attributes['href']!r}>")
        elif tag in ("object", "embed"):
            self.problem("plugin", f"<{tag}>")
        elif tag == "meta" and (attributes.get("http-equiv") or "").lower() == "content-security-policy":
            self.problem("meta-policy", "<meta http-equiv=Content-Security-Policy>")
        elif tag == "iframe" and attributes.get("srcdoc"):
            _Page(self.result, self.line).read(attributes["srcdoc"] or "")  # it inherits the page's policy
        if tag in _TEXT_ELEMENTS and (tag == self.element or not self.foreign):
            self.opened = tag

    def _judge_attributes(self, tag: str, attributes: Mapping[str, str | None]) -> None:
        for name, value in attributes.items():
            if _HANDLER.fullmatch(name):
                self.problem("event-handler", f"<{tag}> has the inline event handler {name}")
            elif name == "style":
                self.problem("style-attribute", f"<{tag}> has a style attribute")
            elif name in _URL_ATTRIBUTES and _JAVASCRIPT_URL.match(value or ""):
                self.problem("javascript-url", f"<{tag}> has a javascript: URL in {name}")

    def parse_starttag(self, i: int) -> int:
        """Reads a tag and, if it opens an element of text, that text. Returns where to go on, -1 if it has no end."""
        end = super().parse_starttag(i)
        tag, self.opened = self.opened, ""
        if not tag:
            return end
        self.clear_cdata_mode()
        closing = re.compile(rf"</{tag}(?=[\t\n\f\r />])", re.IGNORECASE).search(self.rawdata, end)
        self.text = self.rawdata[end : closing.start()] if closing else ""
        return closing.start() if closing else len(self.rawdata)

    def parse_comment(self, i: int, report: bool = True) -> int:
        """Passes over a comment. Returns where to go on, -1 if it has no end."""
        match = _COMMENT.match(self.rawdata, i)
        return match.end() if match else -1

    def parse_html_declaration(self, i: int) -> int:
        """Passes over what starts with ``<!``; sections such as <![CDATA[ exist in <svg> and <math> only."""
        if self.rawdata.startswith("<![", i) and not self.foreign:
            return self.parse_bogus_comment(i)
        return super().parse_html_declaration(i)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.foreign:
            self.foreign.remove(tag)
        if tag != self.element:
            return
        self.element = ""
        text = self.text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        if self.foreign and re.search(r"[<&]", text):
            self.problem("foreign-markup", f"<{tag}> with markup or entities", self.started)
        elif tag == "style":
            if (self.attributes.get("type") or "text/css").lower() == "text/css":
                self.result.style_src.append(hash_source(text))
        elif _kind_of_script(self.attributes) in _JUDGED:
            self._script(text)

    def _script(self, text: str) -> None:
        src = self.attributes.get("src")
        if "src" in self.attributes:
            self._external(src or "")
        elif text:  # an empty script never runs; an empty style does apply
            self.result.script_src.append(hash_source(text))
            if _AMBIGUOUS.search(text):
                self.problem("ambiguous", "<!-- and <script in the text of a script", self.started)
            for match in _EVAL.finditer(text):
                line = self.started + text.count("\n", 0, match.start())
                call = re.sub(r"\s*\(.*", "", match.group(), flags=re.DOTALL)
                self.problem("eval", f"{call} turns a string into code", line)

    def _external(self, src: str) -> None:
        metadata = (self.attributes.get("integrity") or "").split()
        sources = [canonical(f"'{value.split('?')[0]}'") for value in metadata]
        usable = tuple(source for source in sources if HASH_SOURCE.fullmatch(source))
        if len(usable) < len(sources):
            self.problem("bad-integrity", f"<script src={src!r}> has an integrity browsers do not know", self.started)
        self.result.external.append(ExternalScript(self.started, src, usable, "nonce" in self.attributes))

    def read(self, html: str) -> None:
        """Takes in a whole document, its newlines normalised."""
        self.feed(html)
        # What is still open at the end is dropped by browsers. close() would read it as something else.
        if self.element:
            self.problem("unclosed", f"<{self.element}> has no closing tag", self.started)
        elif self.rawdata.startswith("<"):
            self.problem("unclosed", "a tag or a comment has no end")


def hashes(html: str) -> HashResult:
    """What the inline scripts and styles of a page need in its policy, and what no hash can allow.

    html: the page as it is served. A script of a data type (JSON, a template) and an empty one need nothing; import
    maps and speculation rules need a hash. ValueError: the text is not Unicode (it was decoded with errors).
    """
    try:
        html.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the page is not UTF-8: {error.reason} at character {error.start}") from error
    result = HashResult()
    _Page(result).read(html.replace("\r\n", "\n").replace("\r", "\n"))
    result.script_src = list(dict.fromkeys(result.script_src))
    result.style_src = list(dict.fromkeys(result.style_src))
    result.problems = sorted(set(result.problems))
    return result


def _host_allowed(origin: str, source: str) -> bool:
    """Whether a source allows the origin of a script, paths aside, on a page served over TLS (CSP3 §6.7.2)."""
    scheme, _separator, host = origin.partition("://")
    wanted_scheme, separator, rest = source.lower().rpartition("://")
    wanted = rest.partition("/")[0]
    if source in (origin, f"{scheme}:") or (source == "*" and host):
        return True
    if separator and wanted_scheme != scheme:
        return False
    return wanted == host or (wanted.startswith("*.") and host.endswith(wanted[1:]))


def _script_allowed(script: ExternalScript, sources: Sequence[str]) -> bool:
    if (script.nonce and NONCE in sources) or (script.integrity and set(script.integrity) <= set(sources)):
        return True
    if "'strict-dynamic'" in sources:
        return False
    if not script.origin:
        return not {"'self'", "*", "https:"}.isdisjoint(sources)
    return any(_host_allowed(script.origin, source) for source in sources)


def page_problems(page: HashResult, policy: Mapping[str, Sequence[str]]) -> list[PageProblem]:
    """What of a page this policy would block: its external scripts, and what no hash allows and the policy does not.

    The hashes of inline scripts and styles are not looked at: ``merge`` has put them into the policy, or will.
    """

    def governing(directive: str) -> list[str]:
        name = effective(policy, directive)
        return (
            ["*", "'unsafe-inline'", "'unsafe-eval'"]
            if name is None
            else [canonical(source) for source in policy[name]]
        )

    def allowed(kind: str) -> bool:
        if kind in _INLINE_DIRECTIVES:
            return allows_inline(governing(_INLINE_DIRECTIVES[kind]))
        if kind in _OTHER_DIRECTIVES:
            return governing(_OTHER_DIRECTIVES[kind]) not in ([], ["'none'"])
        return kind == "eval" and "'unsafe-eval'" in governing("script-src")

    scripts = governing("script-src-elem")
    blocked = [
        PageProblem(
            script.line,
            "blocked-script",
            f"the policy blocks <script src={script.src!r}>",
            _FIXES["blocked-script"],
        )
        for script in page.external
        if not _script_allowed(script, scripts)
    ]
    return sorted([problem for problem in page.problems if not allowed(problem.kind)] + blocked)
