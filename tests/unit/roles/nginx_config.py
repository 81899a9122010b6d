# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads nginx's configuration as nginx does: directives of words, some of them blocks, and what one level inherits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | (?P<mark>[;{}]) | "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>(?:[^'\\]|\\.)*)'
    | (?P<word>(?:[^\s;{}"'#]|(?<!\s)["'#])+)""",
    re.VERBOSE | re.DOTALL,
)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass
class Directive:
    """One directive: its name and arguments, and the directives in its block."""

    words: list[str]
    block: list[Directive] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.words[0]

    def all(self, name: str) -> list[list[str]]:
        """The arguments of each directive of this name directly in the block."""
        return [one.words[1:] for one in self.block if one.name == name]

    def one(self, name: str) -> str:
        """The arguments of the only directive of this name; "" where there is none."""
        found = self.all(name)
        assert len(found) < 2, f"{name} stands {len(found)} times in {' '.join(self.words)}"
        return " ".join(found[0]) if found else ""

    def blocks(self, name: str) -> list[Directive]:
        """Each block of this name directly in this one."""
        return [one for one in self.block if one.name == name]

    def below(self) -> Iterator[Directive]:
        """This directive and all that stand in it at any depth."""
        yield self
        for one in self.block:
            yield from one.below()


def unescaped(text: str) -> str:
    """The text between quotes, as nginx reads it."""
    return re.sub(r"\\([\"'\\ntr])", lambda match: ESCAPES.get(match[1], match[1]), text)


def parsed(text: str) -> Directive:
    """A configuration as one block. Fails where nginx's own parser would."""
    root = Directive(["file"])
    open_blocks, words, at = [root], [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        assert match, f"unreadable: {text[at : at + 60]!r}"
        at = match.end()
        mark = match["mark"]
        if mark == "}":
            assert not words, f"no semicolon after {words}"
            open_blocks.pop()
            assert open_blocks, "one } too many"
        elif mark:
            assert words, f"{mark} after nothing before {text[at : at + 60]!r}"
            directive = Directive(words)
            open_blocks[-1].block.append(directive)
            words = []
            if mark == "{":
                open_blocks.append(directive)
        else:
            words += [unescaped(one) for one in (match["double"], match["single"]) if one is not None]
            words += [match["word"]] if match["word"] else []
    assert open_blocks == [root], "a } is missing"
    assert not words, f"no semicolon after {words}"
    return root


def with_includes(directive: Directive, files: Mapping[str, str]) -> Directive:
    """The same with the files of the role in the place of their ``include``."""
    block: list[Directive] = []
    for one in directive.block:
        if one.name == "include" and one.words[1] in files:
            block += with_includes(parsed(files[one.words[1]]), files).block
        else:
            block.append(with_includes(one, files))
    return Directive(directive.words, block)


def headers_of(*levels: Directive) -> list[list[str]]:
    """The ``add_header`` that count of nested levels, outermost first: a level that has any inherits none."""
    found = [level.all("add_header") for level in levels]
    return next((each for each in reversed(found) if each), [])
