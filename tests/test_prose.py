"""The prose avoids words that CONTRIBUTING.md lists, and uses American spelling.

Checked are Markdown outside of code, and comments, docstrings and messages in Python.
"""

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Files and folders whose Markdown and whose Python is checked.
PROSE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs")
CODE = ("zoo", "plugins", "docs")
#: Words that stay: the definitions of metrics are hashed into protocol ids.
ALLOWED = {("zoo/metrics.py", "neighbouring")}

AVOID = re.compile(
    r"""
    \b(
        told | untold | tell | tells | telling
        | mend | mends | mended | mending
        | anew | so\ many | beside | in\ place\ of
        | (?<!there\ )is\ no\ (?!longer\b|more\b|less\b|better\b|worse\b|different\b|need\b)\w+
        | whole\ or\ not\ at\ all | had\ here | cannot\ be\ had | to\ be\ had
        | stands\ (in|beside|there)
        | \w*(behaviour|colour|neighbour|favour)\w*
        | \w*(initial|normal|optim|organ|recogn|serial|summar|synchron)is(e|ing|ation|er|ed)\w*
        | (centre|labelled|licence|kilometre|metre|modelled|catalogue)s?
    )\b
    """,
    re.VERBOSE | re.IGNORECASE,
)

LITERALS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
BETWEEN = {tokenize.NL, getattr(tokenize, "FSTRING_START", 0), getattr(tokenize, "FSTRING_END", 0)}


def markdown_prose(text: str) -> Iterator[tuple[int, str]]:
    """The paragraphs of a page with their lines, without code, links and *quoted words*."""

    def blank(match: re.Match) -> str:
        return "\n" * match[0].count("\n")

    text = re.sub(r"^```.*?^```$", blank, text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|(?<!\*)\*[^*\n]+\*(?!\*)", blank, text)
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", text):
        yield line, paragraph
        line += paragraph.count("\n")


def python_prose(path: Path) -> Iterator[tuple[int, str]]:
    """The comments and the strings of a module; those that follow each other are one text."""
    kind, line, text = None, 0, ""
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in BETWEEN:
                continue
            new = "string" if token.type in LITERALS else "comment"
            if token.type not in LITERALS | {tokenize.COMMENT}:
                new = None
            if new != kind:
                yield line, text
                kind, line, text = new, token.start[0], ""
            if new == "string":
                text += token.string.strip("rbfuRBFU").strip("\"'")
            elif new == "comment":
                text += " " + token.string.lstrip("#: ")
    yield line, text


def problems(path: Path) -> Iterator[str]:
    python = path.suffix == ".py"
    texts = python_prose(path) if python else markdown_prose(path.read_text(encoding="utf-8"))
    for line, text in texts:
        text = re.sub(r"``.*?``|`[^`]*`|https?://\S+", "", text)
        words = " ".join(text.split())
        if " " not in words:  # a name, not prose
            continue
        for match in AVOID.finditer(words):
            if (str(path.relative_to(ROOT)), match[0]) in ALLOWED:
                continue
            context = words[max(0, match.start() - 30) : match.end() + 30]
            yield f"{path.relative_to(ROOT)}:{line}: {match[0]!r} in …{context}…"


def files() -> list[Path]:
    found = set()
    for name, suffix in (*((name, ".md") for name in PROSE), *((name, ".py") for name in CODE)):
        path = ROOT / name
        found |= {path} if path.is_file() else set(path.rglob(f"*{suffix}"))
    return sorted(found)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_avoids_listed_words(path: Path) -> None:
    found = list(problems(path))
    assert not found, "\n".join(["see the glossary in CONTRIBUTING.md", *found])


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("# What is told.\n", "told"),
        ("# as so\n# many times\n", "so many"),
        ('raise E(\n    f"{x} is "\n    "no number"\n)\n', "is no number"),
        ('def f():\n    """The colour of a frame."""\n', "colour"),
    ],
)
def test_words_are_found(tmp_path: Path, source: str, word: str, monkeypatch) -> None:
    monkeypatch.setattr("test_prose.ROOT", tmp_path)
    (tmp_path / "module.py").write_text(source)
    (problem,) = problems(tmp_path / "module.py")
    assert repr(word) in problem


@pytest.mark.parametrize(
    "source", ['name = "licence"\n', "# There is no file.\n", "# Optimistic.\ntold = 1\n"]
)
def test_names_and_ordinary_phrases_pass(tmp_path: Path, source: str) -> None:
    (tmp_path / "module.py").write_text(source)
    assert not list(problems(tmp_path / "module.py"))
